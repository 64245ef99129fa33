//! Networks that cut, hold, delay, or let through one way.

mod support;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{ErrorKind, RegistrationState, Registry, Status};
use plimsoll_test_servers::probe::{eventually, ids, life, load_of, new_life, ready, shown, state};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::time::sleep;

use support::harness::{TTL, builder, timed};
use support::operator::{identity, load};
use support::stage::{Stage, instance, live, register, service};

fault! {
    async fn cuts_shorter_than_the_lease_keep_key_and_life(stage: Stage) {
        let registration = stage.live("a").await;
        let (before, life_before) = (stage.key("a").await.unwrap(), life(&registration));
        for value in 1..=10 {
            if value % 2 == 0 {
                stage.proxy.reset();
            } else {
                stage.proxy.cut();
            }
            registration.load().set(value);
            stage.listed("the load", |s| load_of(s, "a") == Some(value)).await;
            let kv = stage.key("a").await.unwrap();
            assert_eq!((kv.create_revision(), kv.lease()), (before.create_revision(), before.lease()));
        }
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!(life(&registration), life_before);
    }
}

fault! {
    async fn a_black_hole_longer_than_the_lease_ends_with_a_new_life_and_the_current_load(stage: Stage) {
        let registration = stage.live("a").await;
        let (life_before, lease) = (life(&registration), stage.provider.lease_id().unwrap());
        stage.proxy.set(Mode::Hold);
        let cut = Instant::now();
        eventually("the key to go", || async { stage.key("a").await.is_none().then_some(()) }).await;
        assert!(cut.elapsed() < TTL + Duration::from_secs(3), "{:?}", cut.elapsed());
        assert!(!registration.state().is_live(), "it believes in what has ended");
        registration.load().set(77);
        stage.proxy.set(Mode::Pass);
        let listed = stage.listed("a new life with its load", |s| load_of(s, "a") == Some(77)).await;
        assert_ne!(listed.get("a").map(|m| m.incarnation()), Some(life_before));
        assert_ne!(stage.provider.lease_id(), Some(lease));
        eventually("no lease to be left over", || async {
            (stage.operator.leases().await.len() == 1).then_some(())
        })
        .await;
    }
}

fault! {
    async fn a_claim_whose_reply_was_lost_is_settled_as_one_live_record(stage: Stage) {
        // With this there is a lease, so that the first request is the one that counts.
        let _other = stage.live("z").await;
        stage.proxy.set(Mode::HoldReplies);
        let registration = register(&stage.provider, "a").await;
        eventually("the key", || stage.key("a")).await;
        assert!(!registration.state().is_live(), "nobody has confirmed it");
        stage.proxy.set(Mode::Pass);
        ready(&registration).await;
        let listed = stage.listed("the record", |s| ids(s) == ["a", "z"]).await;
        assert_eq!(listed.get("a").map(|m| m.incarnation()), Some(life(&registration)));
        registration.deregister().await.unwrap();
        assert!(stage.key("a").await.is_none());
    }
}

fault! {
    async fn a_lease_whose_reply_was_lost_is_not_granted_twice(stage: Stage) {
        // The connection is there, and the first request on it asks for the lease.
        stage.provider.services().await.unwrap();
        stage.proxy.set(Mode::HoldReplies);
        let registration = register(&stage.provider, "a").await;
        eventually("a lease", || async {
            (!stage.operator.leases().await.is_empty()).then_some(())
        })
        .await;
        stage.proxy.set(Mode::Pass);
        ready(&registration).await;
        assert_eq!(stage.operator.leases().await, [stage.provider.lease_id().unwrap()]);
    }
}

fault! {
    /// Whatever was sent and given up is void once the removal is confirmed.
    async fn a_claim_that_was_given_up_is_void_after_its_removal(stage: Stage) {
        let provider = first_through(&stage).await;
        // With this there is a lease, and afterwards nothing that is written by itself.
        let last = live(&provider, "z").await;
        let streams = async |count| {
            eventually("as many streams", || async { (stage.server.streams("Watch") == count).then_some(()) }).await;
        };
        streams(1.0).await;
        last.deregister().await.unwrap();
        streams(0.0).await;
        let lease = provider.lease_id().unwrap();
        let before = stage.server.calls("Txn");
        stage.proxy.set(Mode::Delay(Duration::from_secs(10)));
        let registration = register(&provider, "a").await;
        // Time for the claim to set out; had it not, there would be no doubt about it.
        sleep(Duration::from_millis(500)).await;
        // The claim is given up, and the removal takes the other way.
        registration.deregister().await.unwrap();
        assert_eq!(stage.server.calls("Txn"), before + 2.0, "a read, and the fence");
        let late = stage.operator.claim(&identity(&stage.service, "a"), lease).await;
        assert!(!late, "it came after its removal");
        assert!(stage.key("a").await.is_none());
    }
}

fault! {
    /// Which the operator writes here, so that the first attempt is refused and tells of it.
    async fn every_claim_is_conditional_on_the_fence(stage: Stage) {
        let provider = timed(EtcdRegistry::builder([stage.server.address().to_string()]))
            .with_timings(|timings| timings.load.max_age = Duration::from_secs(3_600))
            .build()
            .unwrap();
        // With it the stream that watches own keys is there, which is opened with a read.
        let _other = live(&provider, "z").await;
        eventually("the stream", || async { (stage.server.streams("Watch") == 1.0).then_some(()) }).await;
        let lease = provider.lease_id().unwrap();
        assert!(stage.operator.claim(&identity(&stage.service, "other"), lease).await);
        stage.operator.raise_fence(lease).await;
        assert!(!stage.operator.claim(&identity(&stage.service, "another"), lease).await);
        for attempts in [2.0, 1.0] {
            let before = stage.server.calls("Txn");
            let registration = live(&provider, "a").await;
            assert_eq!(stage.server.calls("Txn"), before + attempts);
            registration.deregister().await.unwrap();
        }
    }
}

/// A handle that has the server's own address too, and is connected through the proxy; which of
/// the two is first is drawn at random.
async fn first_through(stage: &Stage) -> EtcdRegistry {
    loop {
        let hosts = [stage.proxy.address(), stage.server.address()];
        let registry = timed(EtcdRegistry::builder(hosts.map(|host| host.to_string())));
        let registry = registry.build().expect("good settings");
        registry.services().await.expect("the server is up");
        if stage.proxy.connections() > 0 {
            return registry;
        }
    }
}

fault! {
    /// And that is what it was before, so that nothing seems to be left to write.
    async fn loads_whose_replies_were_lost_end_at_the_current_one(stage: Stage) {
        // A load that is written anew because it has aged would hide one that is not.
        let provider = builder(stage.proxy.address())
            .with_timings(|timings| timings.load.max_age = Duration::from_secs(3_600))
            .build()
            .unwrap();
        let registration = live(&provider, "a").await;
        let (before, handle) = (life(&registration), registration.load());
        let key = load(&stage.service, "a");
        let written = async |value: &str| {
            let kv = stage.operator.get(&key).await.unwrap();
            kv.value() == value.as_bytes()
        };
        for _ in 0..3 {
            stage.proxy.set(Mode::HoldReplies);
            let guard = handle.acquire();
            eventually("the write to arrive", || async { written("1").await.then_some(()) }).await;
            drop(guard);
            stage.proxy.set(Mode::Pass);
            stage.listed("the load of nobody", |s| load_of(s, "a") == Some(0)).await;
        }
        for value in [5, 0] {
            stage.proxy.set(Mode::HoldReplies);
            handle.set(7);
            eventually("the write to arrive", || async { written("7").await.then_some(()) }).await;
            handle.set(value);
            stage.proxy.set(Mode::Pass);
            // Refused as long as nobody knows whether the record stands.
            eventually("a flush", || async { handle.flush().await.ok() }).await;
            assert!(written(&value.to_string()).await, "what was flushed is not there");
        }
        assert_eq!(life(&registration), before);
    }
}

fault! {
    /// Whoever watches the key finds it written by nobody that it knows of.
    async fn an_update_whose_reply_was_lost_costs_no_life_and_ends_at_the_current_one(stage: Stage) {
        let registration = stage.live("a").await;
        let (before, lease) = (life(&registration), stage.provider.lease_id());
        let created = stage.key("a").await.unwrap().create_revision();
        for status in [Status::Draining, Status::OutOfService] {
            let known = stage.key("a").await.unwrap().mod_revision();
            stage.proxy.set(Mode::HoldReplies);
            registration.set_status(status).unwrap();
            eventually("the update to arrive", || async {
                stage.key("a").await.filter(|kv| kv.mod_revision() > known)
            })
            .await;
            registration.set_status(Status::Up).unwrap();
            stage.proxy.set(Mode::Pass);
            stage.listed("what it was before", |s| {
                s.get("a").is_some_and(|m| m.instance().status() == Status::Up)
            })
            .await;
            eventually("the key to be watched again", || async {
                (stage.server.metric("etcd_debugging_mvcc_watcher_total") == 1.0).then_some(())
            })
            .await;
        }
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!((life(&registration), stage.provider.lease_id()), (before, lease));
        assert_eq!(stage.key("a").await.map(|kv| kv.create_revision()), Some(created));
    }
}

/// For pings of the connection, which would tell as well.
const RARELY: Duration = Duration::from_secs(600);

fault! {
    async fn a_watch_that_is_half_open_is_noticed_and_opened_again(stage: Stage) {
        let registration = stage.live("a").await;
        let watcher = Proxy::start(stage.server.address(), Mode::Pass);
        let consumer = builder(watcher.address()).with_keep_alive(RARELY, RARELY).build().unwrap();
        let mut watch = consumer.watch(&stage.service).await.unwrap();
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        watcher.set(Mode::HoldReplies);
        let cut = Instant::now();
        shown(&mut watch, "a stale list", |s| !s.freshness().is_live()).await;
        assert!(cut.elapsed() < Duration::from_secs(10), "{:?}", cut.elapsed());
        let _another = stage.live("b").await;
        watcher.set(Mode::Pass);
        shown(&mut watch, "both, live", |s| ids(s) == ["a", "b"] && s.freshness().is_live()).await;
        drop(registration);
    }
}

fault! {
    /// It is told of what happens, and when nothing does it cannot know that it would be.
    async fn a_watch_whose_server_hears_nothing_is_told_the_news_and_in_a_quiet_time_knows_that_it_is_stale(stage: Stage) {
        let provider = builder(stage.server.address())
            .with_timings(|timings| timings.load.max_age = Duration::from_secs(3_600))
            .build()
            .unwrap();
        let _first = live(&provider, "a").await;
        let watcher = Proxy::start(stage.server.address(), Mode::Pass);
        let consumer = builder(watcher.address()).with_keep_alive(RARELY, RARELY).build().unwrap();
        let mut watch = consumer.watch(&stage.service).await.unwrap();
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        watcher.set(Mode::HoldRequests);
        let _second = live(&provider, "b").await;
        shown(&mut watch, "both", |s| ids(s) == ["a", "b"]).await;
        let quiet = Instant::now();
        shown(&mut watch, "a stale list", |s| !s.freshness().is_live()).await;
        assert!(quiet.elapsed() < Duration::from_secs(10), "{:?}", quiet.elapsed());
        let _third = live(&provider, "c").await;
        watcher.set(Mode::Pass);
        shown(&mut watch, "all, live", |s| ids(s) == ["a", "b", "c"] && s.freshness().is_live()).await;
    }
}

/// For longer than the lease, and the other way is open all the time.
async fn a_cut_of_one_way_ends_with_a_new_life(stage: Stage, mode: Mode) {
    let registration = stage.live("a").await;
    let before = life(&registration);
    stage.proxy.set(mode);
    eventually("the key to go", || async {
        stage.key("a").await.is_none().then_some(())
    })
    .await;
    assert!(
        !registration.state().is_live(),
        "it believes in what has ended"
    );
    registration.load().set(77);
    stage.proxy.set(Mode::Pass);
    new_life(&registration, &[before]).await;
    stage
        .listed("its load", |s| load_of(s, "a") == Some(77))
        .await;
    eventually("no lease to be left over", || async {
        (stage.operator.leases().await == [stage.provider.lease_id()?]).then_some(())
    })
    .await;
}

fault! {
    async fn requests_that_arrive_no_more_end_with_a_new_life(stage: Stage) {
        a_cut_of_one_way_ends_with_a_new_life(stage, Mode::HoldRequests).await;
    }
}

fault! {
    async fn replies_that_arrive_no_more_end_with_a_new_life(stage: Stage) {
        a_cut_of_one_way_ends_with_a_new_life(stage, Mode::HoldReplies).await;
    }
}

fault! {
    /// It is slow to answer, so that what was confirmed is old by the time the answer is there.
    async fn whoever_asks_right_after_a_slow_answer_is_served_too(stage: Stage) {
        let slow = Duration::from_millis(300);
        let provider = timed(EtcdRegistry::builder([stage.proxy.address().to_string()]))
            .with_lease_ttl(Duration::from_secs(24))
            .with_connect_timeout(Duration::from_secs(5))
            .with_request_timeout(Duration::from_secs(5))
            // The keepalive by itself comes every 8 s.
            .with_timings(|timings| {
                timings.renew_interval = Duration::from_millis(200);
                timings.call_timeout = Duration::from_secs(6);
            })
            .build()
            .unwrap();
        let registration = live(&provider, "a").await;
        let lease = provider.lease_id();
        let mut states = registration.states();
        let late = tokio::spawn(async move {
            let is_late = |s: &RegistrationState| {
                s.cause().is_some_and(|cause| cause.kind() == ErrorKind::TimedOut)
            };
            states.wait_for(is_late).await
        });
        stage.proxy.set(Mode::Delay(slow));
        stage.proxy.cut();
        sleep(Duration::from_secs(9)).await;
        assert!(!late.is_finished(), "{:?}", late.await);
        late.abort();
        assert_eq!((registration.state().is_live(), provider.lease_id()), (true, lease));
    }
}

fault! {
    async fn answers_that_take_their_time_cost_no_life(stage: Stage) {
        stage.proxy.set(Mode::Delay(Duration::from_millis(150)));
        let registration = stage.live("a").await;
        let before = life(&registration);
        let until = Instant::now() + TTL + TTL;
        let mut value = 0;
        while Instant::now() < until {
            value += 1;
            registration.load().set(value);
            sleep(Duration::from_millis(250)).await;
            assert_eq!(life(&registration), before);
        }
        stage.listed("the load", |s| load_of(s, "a") == Some(value)).await;
    }
}

fault! {
    /// Within the lease, and what the server takes to notice its end.
    async fn a_provider_cut_off_for_good_is_removed_when_its_lease_ends(stage: Stage) {
        let _registration = stage.live("a").await;
        assert_eq!(stage.provider.granted_ttl(), Some(TTL));
        let bound = stage.provider.capabilities().crash_detection.unwrap();
        let cut = Instant::now();
        stage.proxy.set(Mode::End);
        stage.listed("nobody", |s| s.members().is_empty()).await;
        // Half a second for a busy machine.
        let most = bound + Duration::from_millis(500);
        assert!((TTL / 2..most).contains(&cut.elapsed()), "{:?}", cut.elapsed());
    }
}

/// However many want to register, one of them knocks, and ever less often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_registrations_knock_on_a_closed_door_as_one() {
    let door = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = door.local_addr().unwrap();
    let knocks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&knocks);
    // Ends with the process; each caller is sent away.
    std::thread::spawn(move || {
        for _closed in door.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let registry = builder(address).build().unwrap();
    let mut registrations = Vec::new();
    for number in 0..1_000 {
        let registered = registry.register(instance(&format!("m{number}"))).await;
        registrations.push(registered.unwrap());
    }
    let watch = registry.watch(&service()).await.unwrap();
    let span = Duration::from_secs(5);
    sleep(span).await;
    let knocks = knocks.load(Ordering::Relaxed);
    // Seven while the pause grows to a second, and one or two a second after that; each connects
    // at most twice, as the client library tries again by itself.
    assert!(
        (2..=40).contains(&knocks),
        "{knocks} connections in {span:?}"
    );
    assert!(watch.latest().is_none());
    let all_pending = registrations
        .iter()
        .all(|r| matches!(r.state(), RegistrationState::Pending { .. }));
    assert!(all_pending);
}
