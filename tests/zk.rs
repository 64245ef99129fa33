//! What the quickstart promises, over a real `ZooKeeper`.

#![allow(dead_code, reason = "the quickstart is used in part")]

use plimsoll_test_servers::zk;

#[path = "../examples/quickstart.rs"]
mod quickstart;

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises() {
    if !zk::available() {
        return;
    }
    let server = zk::Server::start();
    let url = format!("{}&load_interval=200ms", server.url("quickstart"));
    quickstart::run(&url)
        .await
        .expect("every promise to be kept");
}
