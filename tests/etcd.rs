//! What the quickstart promises, over a real etcd.

#![allow(dead_code, reason = "the quickstart is used in part")]

use plimsoll_test_servers::etcd::{self, Server};

use outage::run_through_restart;

#[path = "support/failing_servers.rs"]
mod failing_servers;
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

#[tokio::test]
#[ignore = "a process of the tests below"]
async fn provider_process() {
    failing_servers::serve_if_asked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_and_hung_servers_waste_few_attempts_of_the_default_client() {
    if !etcd::available() {
        return;
    }
    let server = Server::start();
    failing_servers::waste_few_attempts(&server.url("failing")).await;
}
