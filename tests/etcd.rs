//! What the quickstart promises, over a real etcd.

#![allow(dead_code, reason = "the quickstart is used in part")]

use plimsoll_test_servers::etcd::{self, Server};

use outage::run_through_restart;

#[path = "support/outage.rs"]
mod outage;
#[path = "../examples/quickstart.rs"]
mod quickstart;

fn url(server: &Server) -> String {
    format!("{}&load_interval=200ms", server.url("quickstart"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises() {
    if !etcd::available() {
        return;
    }
    let server = Server::start();
    quickstart::run(&url(&server))
        .await
        .expect("every promise to be kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises_while_the_registry_is_killed_and_restarted() {
    if !etcd::available() {
        return;
    }
    let server = Server::start();
    let url = url(&server);
    run_through_restart(&url, server, Server::kill, Server::restart).await;
}
