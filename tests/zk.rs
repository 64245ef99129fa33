//! What the quickstart promises, over a real `ZooKeeper`.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the server and the quickstart are used in part"
)]
#![expect(clippy::print_stderr, reason = "a skip must be seen")]

#[path = "../examples/quickstart.rs"]
mod quickstart;
#[path = "../backend-zk/tests/support/server.rs"]
mod server;

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises() {
    if !server::available() {
        return;
    }
    let server = server::Server::start();
    let url = format!("{}&load_interval=200ms", server.url("quickstart"));
    quickstart::run(&url)
        .await
        .expect("every promise to be kept");
}
