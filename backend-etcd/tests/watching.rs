//! Watches that fall behind, are cancelled, or have much to read.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::time::{Duration, Instant};

use etcd_client::{PutOptions, Txn, TxnOp};
use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{Registry, Snapshot};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, life, load_of, shown};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::time::{sleep, timeout};

use support::harness::builder;
use support::operator::{identity, load, record};
use support::stage::{Stage, live};

/// What a consumer behind a proxy of its own needs to miss something.
struct Watcher {
    proxy: Proxy,
    registry: EtcdRegistry,
}

impl Watcher {
    fn new(stage: &Stage) -> Self {
        let proxy = Proxy::start(stage.server.address(), Mode::Pass);
        let registry = builder(proxy.address()).build().unwrap();
        Self { proxy, registry }
    }
}

fault! {
    async fn a_watch_that_missed_what_was_compacted_lists_anew_and_follows_on(stage: Stage) {
        let first = stage.live("a").await;
        let watcher = Watcher::new(&stage);
        let mut watch = watcher.registry.watch(&stage.service).await.unwrap();
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        for mode in [Mode::Refuse, Mode::Hold] {
            watcher.proxy.set(mode);
            shown(&mut watch, "a stale list", |s| !s.freshness().is_live()).await;
            let _second = stage.live("b").await;
            for value in 1..=20 {
                first.load().set(value);
                first.load().flush().await.unwrap();
            }
            stage.operator.compact().await;
            watcher.proxy.set(Mode::Pass);
            shown(&mut watch, "both, and the load", |s| {
                s.freshness().is_live() && ids(s) == ["a", "b"] && load_of(s, "a") == Some(20)
            })
            .await;
            let _third = stage.live("c").await;
            shown(&mut watch, "all three", |s| ids(s) == ["a", "b", "c"]).await;
            drop((_second, _third));
            shown(&mut watch, "the first alone", |s| ids(s) == ["a"]).await;
        }
    }
}

fault! {
    async fn compaction_while_connected_disturbs_nobody(stage: Stage) {
        let registration = stage.live("a").await;
        let mut watch = stage.watch().await;
        let before = life(&registration);
        for value in 1..=10 {
            registration.load().set(value);
            registration.load().flush().await.unwrap();
            stage.operator.compact().await;
        }
        shown(&mut watch, "the load", |s| load_of(s, "a") == Some(10)).await;
        stage.operator.delete(&identity(&stage.service, "a")).await;
        shown(&mut watch, "another life", |s| {
            s.get("a").is_some_and(|m| m.incarnation() != before)
        })
        .await;
    }
}

fault! {
    /// A key that was deleted and created again has the version it had before.
    async fn a_record_replaced_while_nobody_looked_is_seen_as_another(stage: Stage) {
        let first = stage.live("a").await;
        let watcher = Watcher::new(&stage);
        let mut watch = watcher.registry.watch(&stage.service).await.unwrap();
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        let before = life(&first);
        watcher.proxy.set(Mode::Refuse);
        shown(&mut watch, "a stale list", |s| !s.freshness().is_live()).await;
        first.deregister().await.unwrap();
        let second = stage.live("a").await;
        watcher.proxy.set(Mode::Pass);
        shown(&mut watch, "the other life", |s| {
            s.get("a").is_some_and(|m| m.incarnation() == life(&second))
        })
        .await;
        assert_ne!(before, life(&second));
    }
}

fault! {
    /// A directory restored from a copy is an older state under a name that was known.
    async fn a_restored_server_is_followed_from_where_it_was_restored_to(stage: Stage) {
        let _old = stage.live("a").await;
        let watcher = Watcher::new(&stage);
        let mut watch = watcher.registry.watch(&stage.service).await.unwrap();
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        let copy = stage.blocking(|server| server.copy_data());
        let newer = stage.live("b").await;
        for value in 0..50 {
            newer.load().set(value);
            newer.load().flush().await.unwrap();
        }
        shown(&mut watch, "both", |s| ids(s) == ["a", "b"]).await;
        let before = watch.latest().unwrap().revision();
        watcher.proxy.set(Mode::Refuse);
        stage.blocking(|server| server.restart_from(&copy));
        // So that only what the copy held, and what has been registered since, can be seen.
        watcher.proxy.set(Mode::Pass);
        shown(&mut watch, "both again, of another history", |s| {
            s.freshness().is_live() && ids(s) == ["a", "b"] && s.revision().epoch() != before.epoch()
                && s.members().iter().all(|m| m.standing().is_registered())
        })
        .await;
    }
}

const MANY: usize = 20_000;

/// Writes `MANY` records of some 400 bytes as other processes would, under leases of their own.
async fn fill(stage: &Stage) {
    let mut client = stage.operator.0.clone();
    for chunk in 0..MANY / 50 {
        let lease = client.lease_grant(300, None).await.unwrap().id();
        let put = |key: String, value: String| {
            TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
        };
        let mut ops = Vec::new();
        for number in chunk * 50..chunk * 50 + 50 {
            let id = format!("m{number:05}");
            ops.push(put(identity(&stage.service, &id), record(&id, number)));
            ops.push(put(load(&stage.service, &id), number.to_string()));
        }
        client.txn(Txn::new().and_then(ops)).await.unwrap();
    }
}

fault! {
    async fn twenty_thousand_instances_are_listed_and_watched(stage: Stage) {
        assert!((380..450).contains(&record("m00000", 0).len()), "{}", record("m00000", 0).len());
        fill(&stage).await;
        let listing = Instant::now();
        let all = stage.consumer.list(&stage.service).await.unwrap();
        eprintln!("{MANY} instances listed in {:?}", listing.elapsed());
        assert_eq!(all.members().len(), MANY);
        for number in [0, 7, MANY - 1] {
            let id = format!("m{number:05}");
            assert_eq!(load_of(&all, &id), Some(number as u64));
        }
        let mut watch = stage.watch().await;
        shown(&mut watch, "all", |s| s.members().len() == MANY).await;
        // What comes afterwards is as fast as ever.
        let joined = Instant::now();
        let _one = stage.live("one-more").await;
        shown(&mut watch, "one more", |s| s.members().len() == MANY + 1).await;
        assert!(joined.elapsed() < Duration::from_secs(5), "{:?}", joined.elapsed());
        assert_eq!(stage.consumer.services().await.unwrap(), [stage.service.clone()]);
        // Half of all that there is goes in one transaction each.
        let gone = Instant::now();
        let half = etcd_client::DeleteOptions::new().with_range(identity(&stage.service, "m10000"));
        let mut client = stage.operator.0.clone();
        client.delete(identity(&stage.service, "m00000"), Some(half)).await.unwrap();
        stage.listed("half", |s| s.members().len() == MANY / 2 + 1).await;
        shown(&mut watch, "half, the others held down", |s| {
            s.members().iter().filter(|m| m.standing().is_registered()).count() == MANY / 2 + 1
        })
        .await;
        eprintln!("{} removals seen after {:?}", MANY / 2, gone.elapsed());
    }
}

fault! {
    /// As etcd itself counts them.
    async fn dropping_everything_leaves_no_key_lease_watcher_or_stream(stage: Stage) {
        // The operator's own connection is there from here on.
        assert!(stage.operator.records().await.is_empty());
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let tasks_before = tasks();
        for _ in 0..3 {
            let registry = builder(stage.proxy.address()).build().unwrap();
            let registrations = support::stage::live_many(&registry, 20).await;
            let mut watches = Vec::new();
            for name in ["orders", "users", "stock"] {
                let service = name.parse().unwrap();
                watches.push(registry.watch(&service).await.unwrap());
                watches.push(registry.watch(&service).await.unwrap());
            }
            for watch in &mut watches {
                timeout(PATIENCE, watch.next()).await.unwrap();
            }
            assert!(stage.server.metric("etcd_debugging_mvcc_watcher_total") > 0.0);
            drop((registry, registrations, watches));
            eventually("no key and no lease", || async {
                let nothing = stage.operator.records().await.is_empty()
                    && stage.operator.leases().await.is_empty();
                nothing.then_some(())
            })
            .await;
        }
        eventually("no watcher, no stream and no connection", || async {
            let watchers = stage.server.metric("etcd_debugging_mvcc_watcher_total");
            let streams = stage.server.streams("Watch") + stage.server.streams("LeaseKeepAlive");
            (watchers == 0.0 && streams == 0.0 && stage.proxy.connections() == 0).then_some(())
        })
        .await;
        eventually("no task", || async { (tasks() <= tasks_before).then_some(()) }).await;
    }
}

fault! {
    async fn watches_that_come_and_go_leave_nothing_behind(stage: Stage) {
        let _registration = live(&stage.consumer, "a").await;
        // The connection is there, and stays: with another one, what was left of this would go.
        stage.provider.services().await.unwrap();
        let connections = stage.proxy.openings().len();
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        for round in 0..1_000 {
            let mut watch = stage.provider.watch(&stage.service).await.unwrap();
            if round % 4 == 0 {
                timeout(PATIENCE, watch.next()).await.unwrap();
            } else {
                // Wherever it has got to by then.
                sleep(Duration::from_micros(round % 100 * 50)).await;
            }
        }
        eventually("no task", || async { (tasks() <= before).then_some(()) }).await;
        eventually("no watcher but the owner's", || async {
            (stage.server.metric("etcd_debugging_mvcc_watcher_total") <= 1.0).then_some(())
        })
        .await;
        stage.provider.services().await.unwrap();
        assert_eq!(stage.proxy.openings().len(), connections);
    }
}

fault! {
    async fn loads_are_not_followed_for_those_who_do_not_read_them(stage: Stage) {
        let registration = stage.live("a").await;
        let mut members = stage.consumer.watch_members(&stage.service).await.unwrap();
        shown(&mut members, "the member", |s| ids(s) == ["a"]).await;
        let watchers = || stage.server.metric("etcd_debugging_mvcc_watcher_total");
        // One of the owner's, and one on the identities.
        eventually("two watchers", || async { (watchers() == 2.0).then_some(()) }).await;
        let mut loads = stage.watch().await;
        registration.load().set(7);
        shown(&mut loads, "the load", |s: &Snapshot| load_of(s, "a") == Some(7)).await;
        eventually("three watchers", || async { (watchers() == 3.0).then_some(()) }).await;
    }
}
