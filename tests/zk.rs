//! What the quickstart promises, over a real `ZooKeeper`.

#![allow(dead_code, reason = "the quickstart is used in part")]

use std::sync::{Arc, Mutex};

use plimsoll_test_servers::zk::{self, Server};

use quickstart::Outage;

#[path = "../examples/quickstart.rs"]
mod quickstart;

fn url(server: &Server) -> String {
    format!("{}&load_interval=200ms", server.url("quickstart"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises() {
    if !zk::available() {
        return;
    }
    let server = Server::start();
    quickstart::run(&url(&server))
        .await
        .expect("every promise to be kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises_while_the_registry_is_killed_and_restarted() {
    if !zk::available() {
        return;
    }
    let server = Server::start();
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
