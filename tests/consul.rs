//! What the quickstart promises, over a real Consul.

#![allow(dead_code, reason = "the quickstart is used in part")]

use plimsoll_test_servers::consul::{self, Data, Server};

use outage::run_through_restart;

#[path = "support/outage.rs"]
mod outage;
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
    run_through_restart(&url, server, Server::kill, Server::restart).await;
}
