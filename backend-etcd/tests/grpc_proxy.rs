//! etcd behind its own proxy, which answers less than a server does.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{Registration, RegistrationState, Registry, Watch};
use plimsoll_test_servers::etcd::GrpcProxy;
use plimsoll_test_servers::probe::{eventually, ids, life, load_of, new_life, shown, state};
use tokio::time::sleep;

use support::harness::builder;
use support::operator::identity;
use support::stage::{Stage, live, live_many, service};

/// As [`timed`](support::harness::timed) has it.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Long enough for servers to hang up on who pings them too often.
const STEADY: Duration = Duration::from_secs(24);
/// A list of so many is some 100 kB.
const MANY: usize = 300;

/// Who writes nothing while there is nothing new.
fn quiet(address: std::net::SocketAddr) -> EtcdRegistry {
    builder(address)
        .with_timings(|timings| timings.load.max_age = Duration::from_secs(3_600))
        .build()
        .unwrap()
}

fn behind(stage: &Stage) -> (GrpcProxy, EtcdRegistry) {
    let proxy = tokio::task::block_in_place(|| GrpcProxy::start(&stage.server));
    let handle = quiet(proxy.address());
    (proxy, handle)
}

/// Each of so many loads.
async fn publish(registration: &Registration, count: u64) {
    for value in 1..=count {
        registration.load().set(value);
        registration.load().flush().await.unwrap();
    }
}

/// Counts how often the watch shows that it is stale.
fn count_stale(mut watch: Watch) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Some(snapshot) = watch.next().await {
            let stale = usize::from(!snapshot.freshness().is_live());
            counted.fetch_add(stale, Ordering::Relaxed);
        }
    });
    count
}

fault! {
    /// It answers no request for progress.
    async fn a_steady_state_behind_a_proxy_costs_no_list_and_stays_live(stage: Stage) {
        let others = quiet(stage.server.address());
        let _members = live_many(&others, MANY).await;
        let (_proxy, handle) = behind(&stage);
        let registration = live(&handle, "a").await;
        let mut watch = handle.watch(&service()).await.unwrap();
        shown(&mut watch, "all", |s| s.freshness().is_live() && s.members().len() == MANY + 1).await;
        let unsteady = Arc::new(AtomicUsize::new(0));
        let (mut states, counted) = (registration.states(), Arc::clone(&unsteady));
        tokio::spawn(async move {
            while let Some(state) = states.next().await {
                counted.fetch_add(usize::from(!state.is_live()), Ordering::Relaxed);
            }
        });
        let before = life(&registration);
        let stale = count_stale(handle.watch(&service()).await.unwrap());
        let sent = || stage.server.metric("etcd_network_client_grpc_sent_bytes_total");
        let costs = || (sent(), stage.server.calls("Range"));
        let (since, (bytes, reads)) = (Instant::now(), costs());
        sleep(STEADY).await;
        let (took, (bytes, reads)) = (since.elapsed(), (sent() - bytes, costs().1 - reads));
        eprintln!("{bytes} bytes and {reads} reads in {took:?}");
        assert_eq!((stale.load(Ordering::Relaxed), unsteady.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(life(&registration), before);
        assert!(bytes < 50_000.0, "{bytes} bytes were sent: a list");
        // One of a stream at each half of the silence: of that of the watch, and of that of own keys.
        let most = 2.0 * (took.as_secs_f64() / (WATCH_TIMEOUT / 2).as_secs_f64() + 1.0);
        assert!(reads <= most, "{reads} reads in {took:?}");
    }
}

fault! {
    async fn a_server_that_stops_behind_a_proxy_is_noticed_and_followed_again(stage: Stage) {
        let (_proxy, handle) = behind(&stage);
        let registration = live(&handle, "a").await;
        let mut watch = handle.watch(&service()).await.unwrap();
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        // The silence is known for what it is.
        let reads = stage.server.calls("Range");
        eventually("two more reads", || async {
            (stage.server.calls("Range") >= reads + 2.0).then_some(())
        })
        .await;
        stage.server.pause();
        shown(&mut watch, "a stale list", |s| !s.freshness().is_live() && ids(s) == ["a"]).await;
        state(&registration, "a registration in doubt", |s| !s.is_live()).await;
        stage.server.resume();
        let other = quiet(stage.server.address());
        let _second = live(&other, "b").await;
        shown(&mut watch, "both", |s| s.freshness().is_live() && ids(s) == ["a", "b"]).await;
        state(&registration, "Live", RegistrationState::is_live).await;
    }
}

fault! {
    /// The proxy neither answers nor refuses: a connection that is half open.
    async fn a_proxy_that_falls_silent_itself_is_noticed_in_time(stage: Stage) {
        let (proxy, handle) = behind(&stage);
        let mut watch = handle.watch(&service()).await.unwrap();
        shown(&mut watch, "a list", |s| s.freshness().is_live()).await;
        sleep(WATCH_TIMEOUT * 2).await;
        assert!(watch.latest().unwrap().freshness().is_live());
        proxy.pause();
        shown(&mut watch, "a stale list", |s| !s.freshness().is_live()).await;
        proxy.resume();
        shown(&mut watch, "a list", |s| s.freshness().is_live()).await;
    }
}

fault! {
    /// Whose data the proxy's own watches know nothing of.
    async fn a_server_exchanged_behind_a_proxy_is_followed_from_its_beginning(stage: Stage) {
        let (_proxy, handle) = behind(&stage);
        let registration = live(&handle, "a").await;
        let mut watch = handle.watch(&service()).await.unwrap();
        publish(&registration, 100).await;
        shown(&mut watch, "the load", |s| load_of(s, "a") == Some(100)).await;
        stage.blocking(|server| server.restart_empty());
        let other = quiet(stage.server.address());
        let _second = live(&other, "b").await;
        shown(&mut watch, "both", |s| s.freshness().is_live() && ids(s) == ["a", "b"]).await;
        state(&registration, "Live", RegistrationState::is_live).await;
    }
}

fault! {
    /// It numbers watches by itself.
    async fn loads_and_deleted_keys_are_heard_of_through_a_proxy(stage: Stage) {
        let (_proxy, handle) = behind(&stage);
        let first = live(&handle, "a").await;
        let registration = live(&handle, "b").await;
        let mut watch = handle.watch(&service()).await.unwrap();
        shown(&mut watch, "both", |s| ids(s) == ["a", "b"]).await;
        for value in 1..=5 {
            registration.load().set(value);
            registration.load().flush().await.unwrap();
            shown(&mut watch, "the load", |s| load_of(s, "b") == Some(value)).await;
        }
        first.deregister().await.unwrap();
        shown(&mut watch, "the second", |s| ids(s) == ["b"]).await;
        let before = life(&registration);
        stage.operator.delete(&identity(&stage.service, "b")).await;
        new_life(&registration, &[before]).await;
    }
}
