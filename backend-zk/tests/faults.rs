//! What goes wrong with real servers and networks, one claim each.

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plimsoll_discovery_api::{
    ErrorKind, LoadUpdater, Registration, RegistrationState, Registry, Snapshot,
};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, ready, state};
use plimsoll_test_servers::zk::Server;
use plimsoll_test_servers::{Mode, Proxy};
use tokio::time::{sleep, timeout};
use zookeeper_client::{Acls, CreateMode};

use support::bench::{Bench, fault, monitored};
use support::harness::{SESSION, builder, identity, load, operator, tickets};
use support::raw::end_session;

fault! {
    /// Servers remember sessions over a restart; so must we, or the node goes with the old one.
    async fn a_killed_server_that_returns_with_its_data_finds_the_session_resumed(bench: Bench) {
        let registration = bench.live("a").await;
        let before = bench.stat("a").await.unwrap();
        tokio::task::block_in_place(|| bench.server.restart());
        let again = operator(bench.server.address()).await;
        // Past the time at which a session that nobody resumed would be gone.
        let until = Instant::now() + SESSION + SESSION;
        while Instant::now() < until {
            let stat = again.check_stat(&identity(&bench.service, "a")).await.unwrap();
            let stat = stat.expect("the node never goes");
            assert_eq!((stat.czxid, stat.ephemeral_owner), (before.czxid, before.ephemeral_owner));
            sleep(Duration::from_millis(100)).await;
        }
        state(&registration, "Live", RegistrationState::is_live).await;
    }
}

fault! {
    /// The client has given the session up by its own clock; the server, which did not run
    /// meanwhile, has not.
    async fn a_server_down_for_longer_than_the_session_finds_it_resumed(bench: Bench) {
        let registration = bench.live("a").await;
        let (before, life) = (bench.stat("a").await.unwrap(), registration.state().incarnation());
        tokio::task::block_in_place(|| bench.server.kill());
        state(&registration, "Lost", |state| matches!(state, RegistrationState::Lost { .. })).await;
        sleep(SESSION).await;
        tokio::task::block_in_place(|| bench.server.restart());
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!(registration.state().incarnation(), life);
        let again = operator(bench.server.address()).await;
        let until = Instant::now() + SESSION + SESSION;
        while Instant::now() < until {
            let stat = again.check_stat(&identity(&bench.service, "a")).await.unwrap();
            let stat = stat.expect("the node never goes");
            assert_eq!((stat.czxid, stat.ephemeral_owner), (before.czxid, before.ephemeral_owner));
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fault! {
    async fn a_paused_server_outlasting_the_session_ends_with_one_live_record(bench: Bench) {
        let registration = bench.live("a").await;
        bench.server.pause();
        state(&registration, "not Live", |state| !state.is_live()).await;
        sleep(SESSION + SESSION / 2).await;
        bench.server.resume();
        state(&registration, "Live", RegistrationState::is_live).await;
        bench.listed("one record", |s| ids(s) == ["a"]).await;
        // Nothing of an old session takes it away later.
        sleep(SESSION).await;
        let RegistrationState::Live { incarnation } = registration.state() else {
            panic!("{:?}", registration.state())
        };
        let lasting = |s: &Snapshot| s.get("a").is_some_and(|m| m.incarnation() == incarnation);
        bench.listed("the same record", lasting).await;
    }
}

fault! {
    async fn a_cut_shorter_than_the_session_keeps_node_and_life(bench: Bench) {
        let registration = bench.live("a").await;
        let (before, life) = (bench.stat("a").await.unwrap(), registration.state().incarnation());
        for value in 1..=6 {
            if value % 2 == 0 {
                bench.proxy.reset();
            } else {
                bench.proxy.cut();
            }
            registration.load().set(value);
            bench.listed("the load", |s| s.get("a").and_then(|m| m.load().get()) == Some(value)).await;
            assert_eq!(bench.stat("a").await.map(|s| s.czxid), Some(before.czxid));
        }
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!(registration.state().incarnation(), life);
    }
}

fault! {
    async fn a_cut_longer_than_the_session_ends_with_a_new_life_and_the_current_load(bench: Bench) {
        let registration = bench.live("a").await;
        let life = registration.state().incarnation();
        bench.proxy.set(Mode::Hold);
        eventually("the node to go", || async { bench.stat("a").await.is_none().then_some(()) }).await;
        registration.load().set(77);
        bench.proxy.set(Mode::Pass);
        let back = |s: &Snapshot| s.get("a").and_then(|m| m.load().get()) == Some(77);
        let listed = bench.listed("a new life with its load", back).await;
        assert_ne!(listed.get("a").map(|m| m.incarnation()), life);
    }
}

fault! {
    async fn a_create_whose_reply_was_lost_is_settled_as_one_live_record(bench: Bench) {
        // With this the parents are there, so that the first request is the one that counts.
        let _other = bench.live("z").await;
        bench.proxy.set(Mode::HoldReplies);
        let registration = bench.provider.register(bench.instance("a")).await.unwrap();
        eventually("the node", || bench.stat("a")).await;
        assert!(!registration.state().is_live(), "nobody has confirmed it");
        bench.proxy.set(Mode::Pass);
        ready(&registration).await;
        let listed = bench.listed("the record", |s| ids(s) == ["a", "z"]).await;
        assert_eq!(listed.get("a").map(|m| m.incarnation()), registration.state().incarnation());
        registration.deregister().await.unwrap();
        assert!(bench.stat("a").await.is_none());
    }
}

fault! {
    async fn a_session_ended_by_the_server_is_replaced_and_every_registration_with_it(bench: Bench) {
        let registrations = [bench.live("a").await, bench.live("b").await, bench.live("c").await];
        let ticket = tickets(&bench.proxy).pop().unwrap();
        let address = bench.server.address();
        tokio::task::block_in_place(|| end_session(address, &ticket));
        for registration in &registrations {
            let id = registration.instance().id().to_string();
            let renewed = eventually("the node of another session", || async {
                bench.stat(&id).await.filter(|stat| stat.ephemeral_owner != ticket.id)
            });
            assert_ne!(renewed.await.ephemeral_owner, 0, "ephemeral");
            state(registration, "Live", RegistrationState::is_live).await;
        }
    }
}

fault! {
    async fn a_node_deleted_by_an_operator_returns_at_once_on_the_same_session(bench: Bench) {
        let registration = bench.live("a").await;
        let before = bench.stat("a").await.unwrap();
        bench.operator.delete(&identity(&bench.service, "a"), None).await.unwrap();
        let after = eventually("the node", || bench.stat("a")).await;
        assert_eq!(after.ephemeral_owner, before.ephemeral_owner);
        assert_ne!(after.czxid, before.czxid);
        state(&registration, "Live", RegistrationState::is_live).await;
        registration.load().set(9);
        registration.load().flush().await.unwrap();
        bench.listed("its load", |s| s.get("a").and_then(|m| m.load().get()) == Some(9)).await;
    }
}

fault! {
    async fn a_deleted_load_node_returns_with_the_next_publication(bench: Bench) {
        let registration = bench.live("a").await;
        bench.operator.delete(&load(&bench.service, "a"), None).await.unwrap();
        registration.load().set(9);
        bench.listed("its load", |s| s.get("a").and_then(|m| m.load().get()) == Some(9)).await;
        assert!(registration.state().is_live());
    }
}

fault! {
    async fn a_deleted_parent_is_made_again_and_watches_live_on(bench: Bench) {
        let registration = bench.live("a").await;
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        timeout(PATIENCE, watch.next()).await.unwrap();
        // The owner may put its node back before its parent is gone, so: until that succeeds.
        let branches = [identity(&bench.service, "a"), load(&bench.service, "a")];
        eventually("the parents to be gone", || async {
            for path in &branches {
                let _gone_already = bench.operator.delete(path, None).await;
            }
            let parent = branches[0].rsplit_once('/').unwrap().0;
            bench.operator.delete(parent, None).await.ok()
        })
        .await;
        eventually("the node", || bench.stat("a")).await;
        state(&registration, "Live", RegistrationState::is_live).await;
        registration.deregister().await.unwrap();
        // An empty container is removed by the server; a later registration makes it again.
        let parent = branches[0].rsplit_once('/').unwrap().0;
        eventually("the container to be reaped", || async {
            bench.operator.check_stat(parent).await.unwrap().is_none().then_some(())
        })
        .await;
        let _again = bench.live("b").await;
        eventually("the watch to show it", || async {
            watch.latest().filter(|snapshot| ids(snapshot) == ["b"]).map(drop)
        })
        .await;
    }
}

fault! {
    /// Within the session's timeout and one tick of the server, whatever else takes its time.
    async fn a_provider_cut_off_for_good_is_removed_when_its_session_ends(bench: Bench) {
        let _registration = bench.live("a").await;
        assert_eq!(bench.provider.session_timeout(), Some(SESSION));
        let cut = Instant::now();
        bench.proxy.set(Mode::End);
        bench.listed("nobody", |s| s.members().is_empty()).await;
        let took = cut.elapsed();
        let (least, most) = (SESSION / 2, SESSION + Duration::from_secs(3));
        assert!((least..most).contains(&took), "{took:?}");
    }
}

fault! {
    async fn garbage_empty_huge_and_foreign_nodes_do_no_harm_to_others(bench: Bench) {
        let _good = [bench.live("a").await, bench.live("b").await];
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let huge = vec![b'x'; 900 * 1024];
        let curator = br#"{"name":"orders","id":"java","address":"10.9.9.9","port":7000,"sslPort":null,
            "payload":{"team":"a"},"registrationTimeUTC":1700000000123,"serviceType":"DYNAMIC","uriSpec":null}"#;
        let nodes: [(&str, &[u8]); 5] = [
            ("garbage", b"\xff\x00{"), ("empty", b""), ("huge", &huge), ("null", b"null"), ("java", curator),
        ];
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        for (id, bytes) in nodes {
            bench.operator.create(&identity(&bench.service, id), bytes, &options).await.unwrap();
        }
        let expected = |s: &Snapshot| ids(s) == ["a", "b", "java"] && s.skipped() == 4;
        bench.listed("three members and four skipped", expected).await;
        eventually("the same in the watch", || async {
            watch.latest().filter(|snapshot| expected(snapshot)).map(drop)
        })
        .await;
        let _next = watch.next().await;
    }
}

fault! {
    async fn the_wrong_user_is_told_so_and_does_not_hot_loop(bench: Bench) {
        let owner = builder(bench.server.address()).with_digest("alice", "secret").build().unwrap();
        let first = owner.register(bench.instance("a")).await.unwrap();
        ready(&first).await;
        let stranger = builder(bench.server.address()).with_digest("alice", "wrong").build().unwrap();
        let second = stranger.register(bench.instance("b")).await.unwrap();
        let refused = timeout(PATIENCE, second.ready()).await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
        assert!(!format!("{refused:?} {stranger:?}").contains("wrong"));
        let before = monitored(&bench.server, "zk_packets_received");
        sleep(Duration::from_secs(3)).await;
        let packets = monitored(&bench.server, "zk_packets_received") - before;
        // Pings and renewals of four sessions, and a try a second.
        assert!(before > 0 && packets < 150, "{packets} packets in 3 s");
    }
}

fault! {
    async fn dropping_everything_leaves_nothing_on_the_server(bench: Bench) {
        let idle = |name| monitored(&bench.server, name);
        eventually("the operator alone", || async { (idle("zk_num_alive_connections") <= 2).then_some(()) }).await;
        for _ in 0..20 {
            let provider = builder(bench.server.address()).build().unwrap();
            let registration = provider.register(bench.instance("a")).await.unwrap();
            state(&registration, "Live", RegistrationState::is_live).await;
            let watches = [
                provider.watch(&bench.service).await.unwrap(),
                provider.watch(&bench.service).await.unwrap(),
            ];
            drop((registration, watches, provider));
        }
        eventually("no node, watch or connection", || async {
            let left = [idle("zk_ephemerals_count"), idle("zk_watch_count")];
            // The operator's, and the one that asks.
            (left == [0, 0] && idle("zk_num_alive_connections") <= 2).then_some(())
        })
        .await;
    }
}

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
    async fn a_watch_misses_nothing_over_many_cuts(bench: Bench) {
        let watched = Proxy::start(bench.server.address(), Mode::Pass);
        let consumer = builder(watched.address()).build().unwrap();
        let watch = consumer.watch(&bench.service).await.unwrap();
        let mut present: BTreeMap<String, Registration> = BTreeMap::new();
        for round in 0..100_usize {
            if round % 2 == 0 {
                watched.reset();
            } else {
                watched.cut();
            }
            let id = format!("i{}", round % 7);
            match present.remove(&id) {
                Some(registration) => registration.deregister().await.unwrap(),
                None => drop(present.insert(id.clone(), bench.live(&id).await)),
            }
            if round % 5 == 4 {
                eventually("the truth, live", || async {
                    watch.latest().filter(|snapshot| {
                        let registered = snapshot.members().iter().filter(|m| m.standing().is_registered());
                        snapshot.freshness().is_live()
                            && registered.map(|m| m.id().to_string()).eq(present.keys().cloned())
                    }).map(drop)
                })
                .await;
            }
        }
    }
}

fault! {
    async fn the_session_timeout_is_what_the_server_grants(bench: Bench) {
        let eager = builder(bench.server.address())
            .with_session_timeout(Duration::from_millis(100))
            .build()
            .unwrap();
        assert_eq!(eager.session_timeout(), None);
        eager.services().await.unwrap();
        assert_eq!(eager.session_timeout(), Some(Duration::from_millis(400)));
    }
}

fault! {
    async fn a_record_of_a_dead_process_with_the_same_id_is_waited_for_and_replaced(bench: Bench) {
        let first = bench.live("a").await;
        bench.proxy.set(Mode::End);
        let second = bench.consumer.register(bench.instance("a")).await.unwrap();
        let verdict = timeout(PATIENCE, second.ready()).await.unwrap();
        assert_eq!(verdict.map_err(|error| error.kind()), Err(ErrorKind::Conflict));
        state(&second, "Live", RegistrationState::is_live).await;
        // It holds, though the first lives on beyond the cut and wants its id back.
        sleep(SESSION).await;
        let life = second.state().incarnation();
        bench.listed("the second", |s| s.get("a").map(|m| m.incarnation()) == life).await;
        drop(first);
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
    /// Whether a write that nobody confirmed was carried out does not matter: it was of the whole.
    async fn a_load_is_exact_after_any_number_of_lost_replies(bench: Bench) {
        let registration = bench.live("a").await;
        let life = registration.state().incarnation();
        let connections: Vec<_> = (0..40).map(|_| registration.load().acquire()).collect();
        for (round, connection) in connections.into_iter().enumerate() {
            bench.proxy.set(Mode::HoldReplies);
            drop(connection);
            sleep(Duration::from_millis(60)).await;
            bench.proxy.set(Mode::Pass);
            if round % 10 == 9 {
                let open = Some(registration.load().current());
                bench.listed("the true count", |s| s.get("a").and_then(|m| m.load().get()) == open).await;
            }
        }
        bench.listed("nobody", |s| s.get("a").and_then(|m| m.load().get()) == Some(0)).await;
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!(registration.state().incarnation(), life);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_granted_shorter_is_believed_no_longer() {
    if !plimsoll_test_servers::zk::available() {
        return;
    }
    let granted = Duration::from_secs(2);
    let server = Server::start_with("maxSessionTimeout=2000\n", &[]);
    let bench = Bench::on(server).await;
    let provider = builder(bench.proxy.address())
        .with_session_timeout(Duration::from_secs(40))
        .build()
        .unwrap();
    let asked = provider.capabilities().crash_detection;
    let registration = provider.register(bench.instance("a")).await.unwrap();
    ready(&registration).await;
    assert_eq!(provider.session_timeout(), Some(granted));
    assert!(provider.capabilities().crash_detection < asked);
    let cut = Instant::now();
    bench.proxy.set(Mode::Hold);
    state(&registration, "Lost", |state| {
        matches!(state, RegistrationState::Lost { .. })
    })
    .await;
    let took = cut.elapsed();
    assert!(took < granted + Duration::from_secs(3), "{took:?}");
}
