//! What the quickstart promises, over a real `ZooKeeper`.

#![allow(dead_code, reason = "the quickstart is used in part")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::{Incoming, LoadUpdater, Registry, connect};
use plimsoll_test_servers::zk::{self, Server};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

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
    run_through_restart(&url, server, Server::kill, Server::restart).await;
}

/// 10,000 connections come and go at 1,000 a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_connections_is_published_in_moderation_and_ends_at_the_exact_count() {
    const STORM: u32 = 10_000;
    const OPEN: usize = 7;
    let interval = Duration::from_millis(200);
    if !zk::available() {
        return;
    }
    let registry_server = Server::start();
    let registry = connect(&url(&registry_server)).await.expect("a registry");
    let server = plimsoll::Server::builder(Arc::clone(&registry), "stormy")
        .start(|mut incoming: Incoming| async move {
            let _ended = incoming.stream.read(&mut [0]).await;
        })
        .await
        .expect("a server");
    let ready = timeout(Duration::from_secs(20), server.registration().ready()).await;
    ready.expect("in time").expect("to be registered");

    let (before, start) = (transactions(&registry_server), Instant::now());
    let mut open = VecDeque::new();
    for number in 0..STORM {
        sleep_until(start + Duration::from_millis(1) * number).await;
        let connection = TcpStream::connect(server.local_addr()).await;
        open.push_back(connection.expect("a connection"));
        if open.len() > OPEN {
            open.pop_front();
        }
    }
    let listed = || async {
        let service = server.instance().service().clone();
        let members = registry.list(&service).await.ok()?;
        members.members().first()?.load().get()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while listed().await != Some(OPEN as u64) {
        assert!(Instant::now() < deadline, "published {:?}", listed().await);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.load().current(), OPEN as u64);
    let writes = transactions(&registry_server) - before;
    let allowed = start.elapsed().as_millis() / interval.as_millis() + 2;
    assert!(
        writes > 10 && u128::from(writes) <= allowed,
        "{writes} writes, {allowed} allowed"
    );
    assert!(server.registration().state().is_live());
}

/// How many there have been, of whatever kind.
fn transactions(server: &Server) -> u64 {
    let answer = server.ask("srvr").expect("a server");
    let number = answer
        .lines()
        .find_map(|line| line.strip_prefix("Zxid: 0x"));
    u64::from_str_radix(number.expect("its last transaction"), 16).expect("a number")
}
