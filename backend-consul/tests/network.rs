//! What becomes of registrations and watches when the network between them and their agent fails.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plimsoll_discovery_api::{Registration, RegistrationState, Registry};
use plimsoll_test_servers::probe::{eventually, ids, life, load_of, new_life, ready, state};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::time::sleep;

use support::harness::{TTL, builder};

fault! {
    async fn cuts_shorter_than_the_ttl_cost_nobody_its_life(bench: Memory) {
        let registration = bench.live("a").await;
        let before = life(&registration);
        for value in 1..=6 {
            if value % 2 == 0 {
                bench.proxy.reset();
            } else {
                bench.proxy.cut();
            }
            registration.load().set(value);
            bench.listed("the load", |s| load_of(s, "a") == Some(value)).await;
        }
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!(life(&registration), before);
    }
}

fault! {
    async fn a_black_hole_longer_than_the_session_ends_with_a_new_life_and_the_current_load(bench: Memory) {
        let registration = bench.live("a").await;
        let before = life(&registration);
        bench.proxy.set(Mode::Hold);
        bench.listed("nobody", |s| s.members().is_empty()).await;
        eventually("the session to end", || async { bench.owned("a").is_none().then_some(()) }).await;
        assert!(!registration.state().is_live());
        registration.load().set(77);
        bench.proxy.set(Mode::Pass);
        new_life(&registration, &[before]).await;
        bench.listed("its load", |s| load_of(s, "a") == Some(77)).await;
        bench.alone(&registration).await;
        eventually("no service of its former life", || async { (bench.services() == 1).then_some(()) }).await;
    }
}

fault! {
    /// Everything that is asked for is done, and nobody is told.
    async fn a_registration_whose_replies_are_lost_is_settled_as_one_live_service(bench: Memory) {
        let _other = bench.live("z").await;
        bench.proxy.set(Mode::HoldReplies);
        let registration = bench.provider.register(bench.instance("a")).await.unwrap();
        eventually("the fence", || async { bench.owned("a") }).await;
        sleep(Duration::from_secs(3)).await;
        assert!(!registration.state().is_live(), "nobody has confirmed it");
        bench.proxy.set(Mode::Pass);
        ready(&registration).await;
        let both = bench.listed("it and the other", |s| ids(s) == ["a", "z"]).await;
        assert_eq!(both.get("a").map(|m| m.incarnation()), Some(life(&registration)));
        assert_eq!(bench.services(), 2);
        registration.deregister().await.unwrap();
        assert!(bench.owned("a").is_none());
        bench.listed("the other", |s| ids(s) == ["z"]).await;
    }
}

fault! {
    /// The removal has been carried out; only its confirmation is late.
    async fn a_removal_whose_reply_is_lost_is_confirmed_by_its_repetition(bench: Memory) {
        let registration = bench.live("a").await;
        bench.proxy.set(Mode::HoldReplies);
        let started = Instant::now();
        assert!(registration.deregister().await.is_err());
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        bench.proxy.set(Mode::Pass);
        eventually("the confirmation", || async { registration.deregister().await.ok() }).await;
        assert!(bench.owned("a").is_none());
        bench.listed("nobody", |s| s.members().is_empty()).await;
    }
}

fault! {
    /// It is seen by nobody once its TTL is over, and its id is free once its session has ended: at
    /// most twice its TTL after it was last heard.
    async fn an_id_whose_owner_is_cut_off_is_waited_for_and_taken_over(bench: Memory) {
        let first = bench.live("a").await;
        let cut = Instant::now();
        bench.proxy.set(Mode::Hold);
        let second = bench.consumer.register(bench.instance("a")).await.unwrap();
        state(&second, "Conflict", |state| matches!(state, RegistrationState::Conflict { .. })).await;
        bench.listed("nobody", |s| s.members().is_empty()).await;
        let lapsed = cut.elapsed();
        assert!(lapsed < TTL + Duration::from_secs(3), "{lapsed:?}");
        state(&second, "Live", RegistrationState::is_live).await;
        let taken = cut.elapsed();
        assert!(taken < TTL * 2 + Duration::from_secs(5), "{taken:?}");
        // It holds, though the first comes back and wants its id.
        bench.proxy.set(Mode::Pass);
        state(&first, "Conflict", |state| matches!(state, RegistrationState::Conflict { .. })).await;
        let owner = life(&second);
        let until = Instant::now() + TTL;
        while Instant::now() < until {
            let listed = bench.look().await;
            assert_eq!(listed.get("a").map(|m| m.incarnation()), Some(owner));
            sleep(Duration::from_millis(100)).await;
        }
        second.deregister().await.unwrap();
        state(&first, "Live", RegistrationState::is_live).await;
        bench.alone(&first).await;
    }
}

fault! {
    async fn a_watch_misses_nothing_over_many_cuts(bench: Memory) {
        let watched = Proxy::start(bench.server.address(), Mode::Pass);
        let consumer = builder(watched.address()).build().unwrap();
        let watch = consumer.watch(&bench.service).await.unwrap();
        let mut present: BTreeMap<String, Registration> = BTreeMap::new();
        for round in 0..25_usize {
            watched.cut();
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
    /// The wait of 3 s and its sixteenth, and 2 s for a request.
    async fn a_watch_whose_connection_died_without_a_word_knows_it_after_its_wait(bench: Memory) {
        let watched = Proxy::start(bench.server.address(), Mode::Pass);
        let consumer = builder(watched.address()).build().unwrap();
        // Of members alone: whoever reads loads as well notices at the next of those.
        let watch = consumer.watch_members(&bench.service).await.unwrap();
        let fresh = |live| {
            let watch = watch.clone();
            move || {
                let watch = watch.clone();
                async move { watch.latest().filter(|s| s.freshness().is_live() == live).map(drop) }
            }
        };
        eventually("a live list", fresh(true)).await;
        watched.set(Mode::Hold);
        let cut = Instant::now();
        eventually("a stale list", fresh(false)).await;
        let took = cut.elapsed();
        assert!(took < Duration::from_secs(3 + 1 + 2 + 3), "{took:?}");
        watched.set(Mode::Pass);
        eventually("a live list", fresh(true)).await;
    }
}
