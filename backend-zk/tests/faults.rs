//! What goes wrong with servers, connections and sessions, one claim each.

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::{ErrorKind, Registration, RegistrationState, Registry, Snapshot};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, life, live, load_of, ready, state};
use plimsoll_test_servers::zk::Server;
use plimsoll_test_servers::{Mode, Proxy};
use tokio::time::{sleep, timeout};
use zookeeper_client::Stat;

use support::bench::{Bench, fault, monitored, sessions};
use support::harness::{SESSION, builder, builder_for, identity, load, operator, tickets};
use support::raw::end_session;

/// A server on a busy machine may take longer to start than the usual one lasts, and counts from its
/// own start.
const LASTING_SESSION: Duration = Duration::from_secs(10);

/// A handle with such a session, and its registration.
async fn lasting(bench: &Bench) -> (ZkRegistry, Registration) {
    let provider = builder(bench.proxy.address()).with_session_timeout(LASTING_SESSION);
    let provider = provider.build().expect("good settings");
    let registration = live(&provider, bench.instance("a")).await;
    (provider, registration)
}

/// Watches the node, past the time at which a session that nobody resumed would be gone.
async fn stays(bench: &Bench, before: Stat) {
    let again = operator(bench.server.address()).await;
    let until = Instant::now() + LASTING_SESSION.mul_f64(1.5);
    while Instant::now() < until {
        let stat = again.check_stat(&identity(&bench.service, "a")).await;
        let stat = stat
            .expect("the server is up")
            .expect("the node never goes");
        assert_eq!(
            (stat.czxid, stat.ephemeral_owner),
            (before.czxid, before.ephemeral_owner)
        );
        sleep(Duration::from_millis(100)).await;
    }
}

fault! {
    /// Servers remember sessions over a restart; so must we, or the node goes with the old one.
    async fn a_killed_server_that_returns_with_its_data_finds_the_session_resumed(bench: Bench) {
        let (_provider, registration) = lasting(&bench).await;
        let before = bench.stat("a").await.unwrap();
        tokio::task::block_in_place(|| bench.server.restart());
        stays(&bench, before).await;
        state(&registration, "Live", RegistrationState::is_live).await;
    }
}

fault! {
    /// The client has given the session up by its own clock; the server, which did not run
    /// meanwhile, has not.
    async fn a_server_down_for_longer_than_the_session_finds_it_resumed(bench: Bench) {
        let (_provider, registration) = lasting(&bench).await;
        let (before, born) = (bench.stat("a").await.unwrap(), life(&registration));
        tokio::task::block_in_place(|| bench.server.kill());
        let killed = Instant::now();
        state(&registration, "Lost", |state| matches!(state, RegistrationState::Lost { .. })).await;
        // So long the client library keeps it.
        let given_up = LASTING_SESSION * 7 / 5 + Duration::from_secs(1);
        sleep(given_up.saturating_sub(killed.elapsed())).await;
        tokio::task::block_in_place(|| bench.server.restart());
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!(life(&registration), born);
        stays(&bench, before).await;
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
    /// Within the session's timeout and one tick of the server, whatever else takes its time; with its
    /// load, however often that was written, or written anew.
    async fn a_provider_cut_off_for_good_is_removed_when_its_session_ends(bench: Bench) {
        let registration = bench.live("a").await;
        assert_eq!(bench.provider.session_timeout(), Some(SESSION));
        let path = load(&bench.service, "a");
        for value in [5, 6, 7] {
            registration.load().set(value);
            bench.listed("the load", |s| load_of(s, "a") == Some(value)).await;
            if value == 5 {
                bench.operator.delete(&path, None).await.unwrap();
            }
        }
        let cut = Instant::now();
        bench.proxy.set(Mode::End);
        bench.listed("nobody", |s| s.members().is_empty()).await;
        let took = cut.elapsed();
        assert!(bench.operator.check_stat(&path).await.unwrap().is_none());
        let (least, most) = (SESSION / 2, SESSION + Duration::from_secs(3));
        assert!((least..most).contains(&took), "{took:?}");
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
        assert!(refused.to_string().contains(&identity(&bench.service, "b")), "{refused}");
        assert!(!format!("{refused:?} {stranger:?}").contains("wrong"));
        let before = monitored(&bench.server, "zk_packets_received");
        sleep(Duration::from_secs(3)).await;
        let packets = monitored(&bench.server, "zk_packets_received") - before;
        // Pings and renewals of four sessions, and a try a second.
        assert!(before > 0 && packets < 150, "{packets} packets in 3 s");
    }
}

fault! {
    /// The sessions are closed: left alone, they would last for longer than is waited here.
    async fn dropping_everything_leaves_nothing_on_the_server(bench: Bench) {
        let idle = |name| monitored(&bench.server, name);
        // The operator's.
        eventually("the operator alone", || async { (sessions(&bench.server) == 1).then_some(()) }).await;
        for _ in 0..20 {
            let provider = builder(bench.server.address())
                .with_session_timeout(2 * PATIENCE)
                .build()
                .unwrap();
            let registration = provider.register(bench.instance("a")).await.unwrap();
            state(&registration, "Live", RegistrationState::is_live).await;
            assert_eq!(provider.session_timeout(), Some(2 * PATIENCE));
            let watches = [
                provider.watch(&bench.service).await.unwrap(),
                provider.watch(&bench.service).await.unwrap(),
            ];
            drop((registration, watches, provider));
        }
        eventually("no node, watch, session or connection", || async {
            let left = [idle("zk_ephemerals_count"), idle("zk_watch_count")];
            // The operator's, and the one that asks.
            let connections = idle("zk_num_alive_connections");
            (left == [0, 0] && connections <= 2 && sessions(&bench.server) == 1).then_some(())
        })
        .await;
    }
}

fault! {
    /// Two of three hosts take connections and say nothing; which of them comes first is up to chance.
    async fn a_host_that_swallows_everything_costs_its_own_time_and_not_the_round(bench: Bench) {
        const HANDLES: usize = 40;
        let silent = [(); 2].map(|()| Proxy::start(bench.server.address(), Mode::Hold));
        let hosts = [silent[0].address(), bench.server.address(), silent[1].address()];
        let limit = Duration::from_secs(2);
        let began = Instant::now();
        let handles: Vec<_> = (0..HANDLES).map(|_| {
            let hosts = hosts.map(|address| address.to_string());
            // With which the client library would give each host 8 s.
            let registry = builder_for(hosts).with_session_timeout(Duration::from_secs(20));
            let registry = registry.with_connect_timeout(limit).build().unwrap();
            tokio::spawn(async move {
                eventually("a connection", || async { registry.services().await.ok() }).await;
                began.elapsed()
            })
        }).collect();
        for handle in handles {
            // Both of them in vain, an eighth late each, and what a busy machine may add.
            let took = handle.await.unwrap();
            assert!(took < 2 * limit.mul_f64(1.125) + Duration::from_secs(4), "{took:?}");
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
        // A busy machine may take several attempts.
        eventually("a connection", || async { eager.services().await.ok() }).await;
        assert_eq!(eager.session_timeout(), Some(Duration::from_millis(400)));
        tokio::task::block_in_place(|| bench.server.kill());
        eventually("the end of the connection", || async { eager.services().await.err() }).await;
        // Longer than the client library keeps a session of which it hears nothing.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            assert_eq!(eager.session_timeout(), Some(Duration::from_millis(400)), "it may be resumed");
            sleep(Duration::from_millis(50)).await;
        }
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

fault! {
    /// The server that it is resumed at grants less than the one before did.
    async fn a_session_that_was_resumed_for_shorter_is_believed_no_longer(bench: Bench) {
        let (before, after) = (Duration::from_secs(12), Duration::from_secs(2));
        let provider = builder(bench.proxy.address()).with_session_timeout(before).build().unwrap();
        let registration = live(&provider, bench.instance("a")).await;
        let born = life(&registration);
        assert_eq!(provider.session_timeout(), Some(before));
        tokio::task::block_in_place(|| bench.server.kill());
        // So long the client library keeps the session by itself.
        sleep(before * 7 / 5 + Duration::from_secs(1)).await;
        tokio::task::block_in_place(|| bench.server.restart_with("maxSessionTimeout=2000\n"));
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!((life(&registration), provider.session_timeout()), (born, Some(after)));
        let cut = Instant::now();
        bench.proxy.set(Mode::Hold);
        state(&registration, "Lost", |state| matches!(state, RegistrationState::Lost { .. })).await;
        let took = cut.elapsed();
        assert!(took < after + Duration::from_secs(3), "{took:?}");
    }
}
