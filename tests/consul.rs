//! What the quickstart promises, over a real Consul.

#![allow(dead_code, reason = "the quickstart is used in part")]

use std::sync::{Arc, Mutex};

use plimsoll_test_servers::consul::{self, Data, Server};

use quickstart::Outage;

#[path = "../examples/quickstart.rs"]
mod quickstart;

/// Loads are published up to five times a second here, and not every 15 s: so long the quickstart
/// would have to wait, again and again, to hold what is published against what is true.
fn url(server: &Server) -> String {
    let address = server.address();
    format!("consul://{address}/quickstart?ttl=3s&session_ttl=3s&load_interval=200ms")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises() {
    if !consul::available() {
        return;
    }
    let server = Server::start(Data::Disk);
    quickstart::run(&url(&server))
        .await
        .expect("every promise to be kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises_while_the_registry_is_killed_and_restarted() {
    if !consul::available() {
        return;
    }
    let server = Server::start(Data::Disk);
    let url = url(&server);
    let server = Arc::new(Mutex::new(server));
    let outage = Outage {
        down: change(Arc::clone(&server), Server::kill),
        up: change(Arc::clone(&server), Server::restart),
    };
    quickstart::run_through(&url, Some(outage))
        .await
        .expect("every promise to be kept");
}

/// Starting and stopping a process blocks, and the quickstart must go on meanwhile.
async fn change(server: Arc<Mutex<Server>>, change: fn(&mut Server)) {
    let changed = move || change(&mut server.lock().expect("nobody panicked"));
    let changed = tokio::task::spawn_blocking(changed).await;
    changed.expect("the server to do as it is told");
}
