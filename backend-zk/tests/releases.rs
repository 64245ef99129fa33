//! What is particular to servers that understand less.

#![expect(
    clippy::future_not_send,
    reason = "a test's own future stays on its thread"
)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::{ErrorKind, Instance, Registration, Registry, Snapshot, Watch};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, ready};
use plimsoll_test_servers::zk::{Server, newest_available, oldest_available};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::time::{sleep, timeout};

use support::bench::{Bench, fault};
use support::harness::builder;
use support::old_release::{OldRelease, OldServer};

/// A handle that comes through `old`, and what it has under way.
struct Handle {
    registry: ZkRegistry,
    registration: Registration,
    watch: Watch,
}

impl Handle {
    async fn through(address: SocketAddr, bench: &Bench) -> Self {
        let registry = builder(address).build().expect("good settings");
        let registration = registry
            .register(bench.instance("a"))
            .await
            .expect("a registration");
        ready(&registration).await;
        let watch = registry.watch(&bench.service).await.expect("a watch");
        Self {
            registry,
            registration,
            watch,
        }
    }

    /// Loads, members and departures come through, each time.
    async fn is_told_of_everything(&self, bench: &Bench, load: u64) {
        for (round, other) in (0..3).zip(["b", "c", "d"]) {
            let load = load + 100 * round;
            self.registration.load().set(load);
            let carries = |s: &Snapshot| s.get("a").and_then(|m| m.load().get()) == Some(load);
            self.sees("the load", carries).await;
            let other = bench.live(other).await;
            self.sees("who came", |s| s.members().len() == 2).await;
            other.deregister().await.expect("a removal");
            self.sees("who went", |s| ids(s) == ["a"]).await;
        }
        let listed = self.registry.list(&bench.service).await.expect("a list");
        assert_eq!(ids(&listed), ["a"]);
    }

    async fn sees(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) {
        let latest = || async { self.watch.latest().filter(|s| wanted(s)).map(drop) };
        eventually(what, latest).await;
    }
}

fault! {
    /// Each question costs the connection of everything that shares it.
    async fn an_old_server_is_asked_once_for_what_it_does_not_understand(bench: Bench) {
        for (release, questions) in [(OldRelease::V3_5, 1), (OldRelease::V3_5_0, 2)] {
            let old = OldServer::start(bench.server.address(), Some(release));
            let proxy = Proxy::start(old.address(), Mode::Pass);
            let handle = Handle::through(proxy.address(), &bench).await;
            for load in 1..=3 {
                handle.is_told_of_everything(&bench, load).await;
                assert!(handle.registration.state().is_live());
                proxy.cut();
            }
            handle.is_told_of_everything(&bench, 9).await;
            assert_eq!(old.refused(), questions, "{release:?}");
            handle.registration.deregister().await.expect("a removal");
        }
    }
}

/// As in an ensemble that is being upgraded, or set back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_to_an_older_server_changes_how_services_are_followed() {
    if !newest_available() {
        return;
    }
    let bench = Bench::on(Server::start_newest()).await;
    let old = OldServer::start(bench.server.address(), None);
    let proxy = Proxy::start(old.address(), Mode::Pass);
    let handle = Handle::through(proxy.address(), &bench).await;
    let life = handle.registration.state().incarnation();
    handle.is_told_of_everything(&bench, 1).await;
    assert_eq!(old.refused(), 0);
    old.become_release(OldRelease::V3_5);
    proxy.cut();
    handle.is_told_of_everything(&bench, 2).await;
    // What was on its way at that moment may have asked before.
    assert!((1..=3).contains(&old.refused()), "{}", old.refused());
    assert_eq!(handle.registration.state().incarnation(), life);
}

fault! {
    async fn a_server_before_3_5_is_named_as_what_is_wrong_and_not_pestered(bench: Bench) {
        let old = OldServer::start(bench.server.address(), Some(OldRelease::V3_4));
        let _registry = refused(old.address(), &bench.instance("a")).await;
        let before = old.refused();
        sleep(Duration::from_secs(3)).await;
        // Three questions every few seconds.
        assert!(old.refused() - before <= 6, "{}", old.refused() - before);
    }
}

/// What seems old here is so by the same answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_before_3_5_is_named_as_what_is_wrong() {
    if oldest_available() {
        let server = Server::start_oldest();
        let instance = Instance::builder("orders", "10.0.0.7", 8080).build();
        let _registration = refused(server.address(), &instance.expect("an instance")).await;
    }
}

async fn refused(address: SocketAddr, instance: &Instance) -> (ZkRegistry, Registration) {
    let registry = builder(address).build().expect("good settings");
    let registration = registry
        .register(instance.clone())
        .await
        .expect("a registration");
    let verdict = timeout(PATIENCE, registration.ready())
        .await
        .expect("in time");
    let error = verdict.expect_err("no use");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("3.5"), "{error}");
    (registry, registration)
}
