//! A server that understands less than is needed.

use std::time::Duration;

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::{ErrorKind, Instance, Registry};
use plimsoll_test_servers::probe::PATIENCE;
use plimsoll_test_servers::zk::{Server, oldest_available};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_before_3_6_is_named_as_what_is_wrong_and_not_pestered() {
    if !oldest_available() {
        return;
    }
    let server = Server::start_oldest();
    let proxy = Proxy::start(server.address(), Mode::Pass);
    let registry = ZkRegistry::builder([proxy.address().to_string()]).build();
    let registry = registry.expect("good settings");
    let instance = Instance::builder("orders", "10.0.0.7", 8080).build();
    let registration = registry.register(instance.expect("an instance")).await;
    let registration = registration.expect("a registration");
    let verdict = timeout(PATIENCE, registration.ready()).await;
    let error = verdict.expect("in time").expect_err("no use");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("before 3.6"), "{error}");
    let before = proxy.openings().len();
    sleep(Duration::from_secs(3)).await;
    let more = proxy.openings().len() - before;
    // A question every 2.5 to 5 s costs the connection, and another one to end the session.
    assert!(more <= 4, "{more}");
}
