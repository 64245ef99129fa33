//! What a watch shows through what goes wrong, and what it costs the server, one claim each.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::cell::Cell;
use std::time::{Duration, Instant};

use plimsoll_discovery_api::{Registry, Rng, Snapshot};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, load_of, ready, shown};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::time::timeout;
use zookeeper_client::{Acls, CreateMode};

use support::bench::{Bench, fault, monitored};
use support::harness::{builder, identity, load};

fault! {
    async fn any_number_of_local_watchers_cost_one_set_of_watches(bench: Bench) {
        let mut first = bench.consumer.watch(&bench.service).await.unwrap();
        timeout(PATIENCE, first.next()).await.unwrap();
        let one = monitored(&bench.server, "zk_watch_count");
        assert!(one > 0, "{one}");
        let mut watches = vec![first];
        for _ in 0..50 {
            let mut next = bench.consumer.watch(&bench.service).await.unwrap();
            timeout(PATIENCE, next.next()).await.unwrap();
            watches.push(next);
        }
        assert_eq!(monitored(&bench.server, "zk_watch_count"), one);
        drop(watches);
        eventually("no watch", || async {
            (monitored(&bench.server, "zk_watch_count") == 0).then_some(())
        })
        .await;
    }
}

fault! {
    /// The server has kept in mind who has deregistered.
    async fn who_left_while_the_watcher_was_cut_off_is_gone_at_once(bench: Bench) {
        let watched = Proxy::start(bench.server.address(), Mode::Pass);
        let consumer = builder(watched.address()).build().unwrap();
        let _stays = bench.live("a").await;
        let leaves = [bench.live("b").await, bench.live("c").await, bench.live("d").await];
        let mut watch = consumer.watch(&bench.service).await.unwrap();
        let all = |s: &Snapshot| s.members().len() == 4;
        timeout(PATIENCE, watch.wait_for(all)).await.unwrap().unwrap();
        watched.set(Mode::Refuse);
        for registration in leaves {
            registration.deregister().await.unwrap();
        }
        watched.set(Mode::Pass);
        let live = |s: &Snapshot| s.freshness().is_live();
        let seen = timeout(PATIENCE, watch.wait_for(live)).await.unwrap().unwrap();
        // Three of four lost together would be held down as suspects.
        assert_eq!(ids(&seen), ["a"]);
    }
}

fault! {
    /// The node has the same name and version as before, and is another.
    async fn who_was_replaced_while_the_watcher_was_cut_off_is_seen_as_replaced(bench: Bench) {
        let watched = Proxy::start(bench.server.address(), Mode::Pass);
        let consumer = builder(watched.address()).build().unwrap();
        let first = bench.live("a").await;
        let mut watch = consumer.watch(&bench.service).await.unwrap();
        let seen = timeout(PATIENCE, watch.wait_for(|s| ids(s) == ["a"])).await.unwrap().unwrap();
        let before = seen.get("a").map(|m| m.incarnation());
        watched.set(Mode::Refuse);
        first.deregister().await.unwrap();
        let second = bench.consumer.register(bench.instance("a")).await.unwrap();
        ready(&second).await;
        watched.set(Mode::Pass);
        let renewed = |s: &Snapshot| s.get("a").is_some_and(|m| Some(m.incarnation()) != before);
        let seen = timeout(PATIENCE, watch.wait_for(renewed)).await.unwrap().unwrap();
        assert_eq!(seen.get("a").map(|m| m.incarnation()), second.state().incarnation());
    }
}

fault! {
    /// Nodes that vanish between the list of names and the reading of them fail neither.
    async fn lists_and_watches_converge_through_churn(bench: Bench) {
        let _stays = bench.live("stays").await;
        let watch = bench.consumer.watch(&bench.service).await.unwrap();
        let (service, operator) = (bench.service.clone(), bench.operator.clone());
        let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        // Each goes on until both have done enough to have met.
        let (rounds, lists) = (Cell::new(0_u32), Cell::new(0_u32));
        let unmet = || rounds.get() < 500 || lists.get() < 50;
        let churn = async {
            while unmet() {
                let round = rounds.replace(rounds.get() + 1);
                let id = format!("i{}", round % 50);
                let path = identity(&service, &id);
                let node = format!(r#"{{"name":"orders","id":"{id}","address":"10.0.0.1","port":80}}"#);
                operator.create(&path, node.as_bytes(), &options).await.unwrap();
                if round % 50 > 10 {
                    let before = identity(&service, &format!("i{}", round % 50 - 10));
                    operator.delete(&before, None).await.unwrap();
                }
                if round % 50 == 49 {
                    for id in (0..=1).chain(40..50) {
                        let _gone_already = operator.delete(&identity(&service, &format!("i{id}")), None).await;
                    }
                }
            }
        };
        let listing = async {
            while unmet() {
                let list = bench.consumer.list(&bench.service).await.expect("a list in the churn");
                assert!(list.get("stays").is_some());
                lists.set(lists.get() + 1);
            }
        };
        let met = async { tokio::join!(churn, listing) };
        timeout(2 * PATIENCE, met).await.expect("lists in the churn to come to an end");
        let parent = identity(&bench.service, "x");
        let parent = parent.rsplit_once('/').unwrap().0;
        let mut truth = bench.operator.list_children(parent).await.unwrap();
        truth.sort();
        eventually("the truth", || async {
            let registered = |s: &std::sync::Arc<Snapshot>| {
                let members = s.members().iter().filter(|m| m.standing().is_registered());
                members.map(|m| m.id().to_string()).eq(truth.iter().cloned())
            };
            watch.latest().filter(registered).map(drop)
        })
        .await;
    }
}

fault! {
    /// The first services of a root were none when it was first looked at.
    async fn a_watch_older_than_all_services_takes_them_for_no_new_history(bench: Bench) {
        let watched = Proxy::start(bench.server.address(), Mode::Pass);
        let consumer = builder(watched.address()).build().unwrap();
        let mut watch = consumer.watch(&bench.service).await.unwrap();
        timeout(PATIENCE, watch.next()).await.unwrap();
        let _registration = bench.live("a").await;
        let epoch = |watch: &plimsoll_discovery_api::Watch| {
            let latest = watch.latest().unwrap();
            latest.revision().epoch()
        };
        shown(&mut watch, "who came", |s| ids(s) == ["a"]).await;
        let before = epoch(&watch);
        assert_ne!(before, 0);
        watched.cut();
        let _second = bench.live("b").await;
        shown(&mut watch, "who came after a cut", |s| ids(s) == ["a", "b"] && s.freshness().is_live()).await;
        assert_eq!(epoch(&watch), before);
        assert_eq!(bench.consumer.list(&bench.service).await.unwrap().revision().epoch(), before);
    }
}

/// Without loads, as other programs write them, or with.
async fn write_foreign(bench: &Bench, count: usize, loads: bool) -> Vec<String> {
    let lasting = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for path in [identity(&bench.service, ""), load(&bench.service, "")] {
        let parent = path.trim_end_matches('/');
        bench.operator.mkdir(parent, &lasting).await.unwrap();
    }
    let open = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    let ids: Vec<_> = (0..count).map(|index| format!("i{index:04}")).collect();
    for batch in ids.chunks(500) {
        let mut writer = bench.operator.new_multi_writer();
        for id in batch {
            let node = format!(r#"{{"name":"orders","id":"{id}","address":"10.0.0.1","port":80}}"#);
            writer
                .add_create(&identity(&bench.service, id), node.as_bytes(), &open)
                .unwrap();
            if loads {
                writer
                    .add_create(&load(&bench.service, id), b"1", &open)
                    .unwrap();
            }
        }
        writer.commit().await.unwrap();
    }
    ids
}

fault! {
    /// A list may take longer than a call, as long as answers come.
    async fn a_list_that_takes_longer_than_a_call_comes_to_an_end(bench: Bench) {
        const MANY: usize = 1_000;
        let _written = write_foreign(&bench, MANY, true).await;
        let slow = Proxy::start(bench.server.address(), Mode::Pass);
        let limit = Duration::from_secs(2);
        let consumer = builder(slow.address())
            .with_timings(move |timings| timings.call_timeout = limit)
            .build()
            .unwrap();
        assert_eq!(consumer.services().await.unwrap().len(), 1);
        slow.set(Mode::Delay(Duration::from_millis(300)));
        let began = Instant::now();
        let list = consumer.list(&bench.service).await.unwrap();
        let took = began.elapsed();
        assert!(list.members().len() >= MANY);
        assert!(took > limit, "too fast to tell: {took:?}");
        slow.set(Mode::Hold);
        let began = Instant::now();
        let error = consumer.list(&bench.service).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(began.elapsed() < limit + Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

fault! {
    /// Wherever they have got to: asked for, set, read, or followed for a while.
    async fn watches_that_come_and_go_leave_none_behind(bench: Bench) {
        const SEED: u64 = 44;
        let _members = [bench.live("a").await, bench.live("b").await];
        // Their owners'.
        let before = 2;
        let watches = || monitored(&bench.server, "zk_watch_count");
        eventually("those of the members", || async { (watches() == before).then_some(()) }).await;
        let mut rng = Rng::from_seed(SEED);
        for _ in 0..1_000 {
            let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
            match rng.below(3) {
                0 => {}
                1 => {
                    let moment = Duration::from_micros(rng.next_u64() % 3_000);
                    let _dropped_in_the_middle = timeout(moment, watch.next()).await;
                }
                _ => drop(timeout(PATIENCE, watch.next()).await.unwrap()),
            }
        }
        eventually("as few watches as before", || async { (watches() == before).then_some(()) }).await;
    }
}

fault! {
    /// What an event of the identity has read may be older than the load that it comes with.
    async fn a_load_among_changes_of_its_identity_is_never_missed(bench: Bench) {
        const SEED: u64 = 27;
        let id = write_foreign(&bench, 1, true).await.remove(0);
        let (identity, load) = (identity(&bench.service, &id), load(&bench.service, &id));
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        shown(&mut watch, "it", |s| load_of(s, &id) == Some(1)).await;
        let (operator, mut rng) = (&bench.operator, Rng::from_seed(SEED));
        for value in 2..300 {
            let node = |port: u64| format!(r#"{{"name":"orders","id":"{id}","address":"10.0.0.1","port":{port}}}"#);
            let (first, second) = (node(value), node(value + 1_000));
            // All under way at once, so that some are read while others come.
            let mut writes = Vec::new();
            for node in [&first, &second].into_iter().cycle().take(2 + rng.below(6)) {
                writes.push(operator.set_data(&identity, node.as_bytes(), None));
            }
            writes.push(operator.set_data(&load, value.to_string().as_bytes(), None));
            for write in writes {
                write.await.unwrap();
            }
            shown(&mut watch, "its load", |s| load_of(s, &id) == Some(value)).await;
        }
    }
}
