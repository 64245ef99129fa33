//! What the quickstart promises, over a real Consul.

#![allow(dead_code, reason = "the quickstart is used in part")]

use plimsoll_test_servers::consul::{self, Data, Server};

use outage::run_through_restart;

#[path = "support/failing_servers.rs"]
mod failing_servers;
#[path = "support/outage.rs"]
mod outage;
#[path = "../examples/quickstart.rs"]
mod quickstart;

/// Loads are published up to five times a second, and not every 15 s: so long the quickstart waits,
/// again and again, to hold what is published against what is true.
const FAST: &str = "&load_interval=200ms";

fn url(server: &Server, options: &str) -> String {
    let address = server.address();
    format!("consul://{address}/quickstart?ttl=3s&session_ttl=3s{options}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises() {
    if !consul::available() {
        return;
    }
    let server = Server::start(Data::Disk);
    quickstart::run(&url(&server, FAST))
        .await
        .expect("every promise to be kept");
}

/// With what a client gets that asks for nothing: it goes by what it has open itself meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises_at_the_default_interval_of_15_seconds() {
    if !consul::available() {
        return;
    }
    let server = Server::start(Data::Disk);
    let url = url(&server, "");
    let registry = plimsoll::registry_from_url(&url).expect("a registry");
    assert_eq!(registry.capabilities().load_interval.as_secs(), 15);
    quickstart::run(&url)
        .await
        .expect("every promise to be kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises_while_the_registry_is_killed_and_restarted() {
    if !consul::available() {
        return;
    }
    let server = Server::start(Data::Disk);
    let url = url(&server, FAST);
    run_through_restart(&url, server, Server::kill, Server::restart).await;
}

#[tokio::test]
#[ignore = "a process of the tests below"]
async fn provider_process() {
    failing_servers::serve_if_asked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_and_hung_servers_waste_few_attempts_of_the_default_client() {
    if !consul::available() {
        return;
    }
    let server = Server::start(Data::Disk);
    failing_servers::waste_few_attempts(&format!("consul://{}/failing", server.address())).await;
}
