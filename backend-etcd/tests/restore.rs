//! Servers that are set back to what they were before.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{
    Instance, Registration, RegistrationState, Registry, ServiceName, Snapshot, Status,
};
use plimsoll_test_servers::etcd::{DEFAULT_TOKEN, Server, available};
use plimsoll_test_servers::probe::{eventually, ids, life, load_of, ready, shown, state};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::task::block_in_place;
use tokio::time::sleep;

use support::harness::{TTL, builder, timed};
use support::operator::{Operator, identity};
use support::stage::{Stage, live, service};

/// A service beside the usual one.
fn other_service() -> ServiceName {
    "users".parse().unwrap()
}

async fn live_there(registry: &EtcdRegistry, id: &str) -> Registration {
    let instance = Instance::builder(other_service(), "10.0.0.8", 80).with_id(id);
    let registration = registry.register(instance.build().unwrap()).await.unwrap();
    ready(&registration).await;
    registration
}

/// Whoever registered, changed, published or left between a snapshot and its restoration.
async fn desired_states_prevail_over_a_snapshot(mut stage: Stage, token: &str) {
    let [unchanged, changed, leaving, busy] = [
        stage.live("unchanged").await,
        stage.live("changed").await,
        stage.live("leaving").await,
        stage.live("busy").await,
    ];
    let elsewhere = live_there(&stage.provider, "u").await;
    busy.load().set(5);
    busy.load().flush().await.unwrap();
    let mut orders = stage.watch().await;
    let mut users = stage.consumer.watch(&other_service()).await.unwrap();
    shown(&mut users, "the one", |s| ids(s) == ["u"]).await;
    shown(&mut orders, "all", |s| {
        s.members().len() == 4 && load_of(s, "busy") == Some(5)
    })
    .await;
    let (epoch, lease) = (
        orders.latest().unwrap().revision().epoch(),
        stage.provider.lease_id(),
    );
    let lives = [&unchanged, &busy, &elsewhere].map(life);

    let snapshot = stage.blocking(|server| server.snapshot());
    changed.set_status(Status::Draining).unwrap();
    leaving.deregister().await.unwrap();
    let late = stage.live("late").await;
    busy.load().set(50);
    busy.load().flush().await.unwrap();
    let is_draining = |s: &Snapshot| {
        s.get("changed")
            .is_some_and(|m| m.instance().status() == Status::Draining)
    };
    let whole = |s: &Snapshot| {
        ids(s) == ["busy", "changed", "late", "unchanged"]
            && is_draining(s)
            && load_of(s, "busy") == Some(50)
            && s.freshness().is_live()
            && s.members().iter().all(|m| m.standing().is_registered())
    };
    shown(&mut orders, "what is wanted", whole).await;

    stage.blocking(|server| server.restore(&snapshot, token));
    stage.operator = Operator::new(stage.server.address()).await;
    for watch in [&mut orders, &mut users] {
        shown(watch, "another history", |s| {
            s.freshness().is_live() && s.revision().epoch() != epoch
        })
        .await;
    }
    shown(&mut orders, "what is wanted, again", whole).await;
    eventually("nothing of who has left", || async {
        stage.key("leaving").await.is_none().then_some(())
    })
    .await;
    let keys = stage.operator.records().await;
    assert_eq!(keys.len(), 2 * 5, "{keys:?}");
    // It lasts: this is not how it happened to be for a moment.
    let until = Instant::now() + TTL + TTL;
    while Instant::now() < until {
        let now = orders.latest().unwrap();
        assert!(whole(&now), "{now:?}");
        sleep(Duration::from_millis(50)).await;
    }
    for registration in [&unchanged, &changed, &late, &busy, &elsewhere] {
        state(registration, "Live", RegistrationState::is_live).await;
    }
    // What the snapshot holds as it is stands as it stood.
    assert_eq!([&unchanged, &busy, &elsewhere].map(life), lives);
    assert_eq!(stage.provider.lease_id(), lease);
    let epochs = [orders, users].map(|watch| watch.latest().unwrap().revision().epoch());
    assert_eq!(epochs[0], epochs[1], "two watches of one handle");
}

fault! {
    async fn desired_states_prevail_over_a_snapshot_restored_as_the_same_cluster(stage: Stage) {
        // Its first restoration gives it the identity that the second one keeps.
        let empty = stage.blocking(|server| server.snapshot());
        stage.blocking(|server| server.restore(&empty, DEFAULT_TOKEN));
        stage.operator = Operator::new(stage.server.address()).await;
        desired_states_prevail_over_a_snapshot(stage, DEFAULT_TOKEN).await;
    }
}

fault! {
    async fn desired_states_prevail_over_a_snapshot_restored_as_another_cluster(stage: Stage) {
        desired_states_prevail_over_a_snapshot(stage, "another").await;
    }
}

fault! {
    /// Nor what others keep under a lease that they may know.
    async fn a_break_without_a_restore_removes_nothing_that_anybody_wants(stage: Stage) {
        let registrations = stage.live_many(20).await;
        let lives: Vec<_> = registrations.iter().map(life).collect();
        let lease = etcd_client::PutOptions::new().with_lease(stage.provider.lease_id().unwrap());
        // A stray, so that its removal tells when that of anything else would have come.
        let stray = identity(&stage.service, "stray");
        for key in ["own", stray.as_str()] {
            let mut kv = stage.operator.0.kv_client();
            kv.put(key, "of somebody else", Some(lease.clone())).await.unwrap();
        }
        let before = stage.operator.records().await;
        stage.proxy.cut();
        eventually("the stray to go", || async { stage.key("stray").await.is_none().then_some(()) }).await;
        assert!(stage.operator.get("own").await.is_some(), "it was none of its keys");
        let newcomer = stage.live("z").await;
        let after = stage.operator.records().await;
        assert_eq!(after.len(), before.len() - 1 + 2);
        assert!(registrations.iter().map(life).eq(lives));
        ready(&newcomer).await;
    }
}

/// Requests go to one cluster because the other is slow for a moment, while a stream to that one
/// stays as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_watches_of_a_handle_never_follow_two_clusters() {
    if !available() {
        return;
    }
    let [old, mut new] = block_in_place(|| [Server::start(), Server::start()]);
    let proxy = Proxy::start(old.address(), Mode::Pass);
    let (there, here) = (
        builder(old.address()).build().unwrap(),
        builder(new.address()).build().unwrap(),
    );
    let _old = live(&there, "old").await;
    let _new = live(&here, "new").await;
    block_in_place(|| new.kill());
    let hosts = [proxy.address(), new.address()].map(|host| host.to_string());
    let handle = timed(EtcdRegistry::builder(hosts));
    let handle = handle
        .with_watch_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let mut first = handle.watch(&service()).await.unwrap();
    shown(&mut first, "the old one", |s| ids(s) == ["old"]).await;
    proxy.set(Mode::Delay(Duration::from_secs(2)));
    assert!(handle.services().await.is_err(), "in time");
    block_in_place(|| new.restart());
    handle.services().await.unwrap();
    proxy.set(Mode::Pass);
    let streams = old.streams("Watch");
    let mut second = handle.watch(&other_service()).await.unwrap();
    shown(&mut second, "nobody", |s| {
        s.members().is_empty() && s.freshness().is_live()
    })
    .await;
    let epoch = second.latest().unwrap().revision().epoch();
    // The one that is not there is held down.
    shown(&mut first, "the other cluster", |s| {
        s.revision().epoch() == epoch
            && s.freshness().is_live()
            && s.get("new").is_some()
            && s.get("old").is_none_or(|m| !m.standing().is_registered())
    })
    .await;
    eventually("the stream to end", || async {
        (old.streams("Watch") < streams).then_some(())
    })
    .await;
    drop(handle);
}
