//! What becomes of registrations when their agent dies, sleeps, forgets or is told to.

mod support;

use std::time::{Duration, Instant};

use plimsoll_discovery_api::{RegistrationState, Registry};
use plimsoll_test_servers::consul::Server;
use plimsoll_test_servers::probe::{eventually, ids, life, load_of, new_life, ready, state};
use tokio::task::block_in_place;
use tokio::time::sleep;

use support::harness::TTL;
use support::operator::{agent_services, get, put, service_id};

fault! {
    /// An agent keeps its services and their checks, and the servers the sessions: nobody need
    /// notice.
    async fn a_killed_agent_that_returns_with_its_data_finds_everything_as_it_was(bench: Disk) {
        let registrations = [bench.live("a").await, bench.live("b").await];
        let lives = registrations.each_ref().map(life);
        let fence = bench.owned("a").unwrap();
        block_in_place(|| bench.server.restart());
        // Past the time at which a check that nobody passes would be critical.
        let until = Instant::now() + TTL + TTL / 2;
        while Instant::now() < until {
            if let Ok(listed) = bench.consumer.list(&bench.service).await {
                assert_eq!(ids(&listed), ["a", "b"]);
            }
            sleep(Duration::from_millis(100)).await;
        }
        for (registration, life_before) in registrations.iter().zip(lives) {
            state(registration, "Live", RegistrationState::is_live).await;
            assert_eq!(life(registration), life_before);
        }
        assert_eq!(bench.owned("a").unwrap().session, fence.session);
        registrations[0].load().set(7);
        bench.listed("its load", |s| load_of(s, "a") == Some(7)).await;
    }
}

fault! {
    async fn a_killed_agent_that_returns_with_nothing_is_filled_again_in_new_lives(bench: Memory) {
        let registrations = [bench.live("a").await, bench.live("b").await];
        let watch = bench.consumer.watch(&bench.service).await.unwrap();
        registrations[0].load().set(7);
        let lives = registrations.each_ref().map(life);
        block_in_place(|| bench.server.restart_empty());
        for registration in &registrations {
            new_life(registration, &lives).await;
        }
        bench.listed("both, with the load", |s| ids(s) == ["a", "b"] && load_of(s, "a") == Some(7)).await;
        assert_eq!(bench.services(), 2, "exactly one service of each instance");
        eventually("the watch to follow the new history", || async {
            let seen = watch.latest()?;
            let lives = [life(&registrations[0]), life(&registrations[1])];
            let members: Vec<_> = seen.members().iter().map(|m| m.incarnation()).collect();
            (seen.freshness().is_live() && members == lives).then_some(())
        })
        .await;
    }
}

fault! {
    async fn an_agent_that_is_down_at_the_start_delays_a_registration_and_nothing_else(bench: Disk) {
        block_in_place(|| bench.server.kill());
        let started = Instant::now();
        let registration = bench.provider.register(bench.instance("a")).await.unwrap();
        registration.load().set(31);
        assert!(started.elapsed() < Duration::from_secs(1));
        state(&registration, "a cause", |state| state.cause().is_some_and(plimsoll_discovery_api::Error::is_retryable)).await;
        block_in_place(|| bench.server.restart());
        ready(&registration).await;
        bench.listed("it, with its load", |s| load_of(s, "a") == Some(31)).await;
    }
}

fault! {
    /// Its timers run out while it sleeps, and what it finds in its buffers when it wakes is old.
    async fn an_agent_paused_beyond_the_ttl_ends_with_one_live_service(bench: Memory) {
        let registration = bench.live("a").await;
        bench.server.pause();
        state(&registration, "not Live", |state| !state.is_live()).await;
        let changed = bench.instance("a").with_weight(plimsoll_discovery_api::Weight::new(7).unwrap());
        registration.update(changed.clone()).unwrap();
        sleep(TTL + TTL / 2).await;
        bench.server.resume();
        state(&registration, "Live", RegistrationState::is_live).await;
        bench.listed("the change", |s| s.get("a").is_some_and(|m| **m.instance() == changed)).await;
        // Nothing that was late takes it away, or changes it back.
        let until = Instant::now() + TTL;
        while Instant::now() < until {
            let listed = bench.look().await;
            assert_eq!(ids(&listed), ["a"]);
            assert_eq!(**listed.get("a").unwrap().instance(), changed);
            sleep(Duration::from_millis(100)).await;
        }
        bench.alone(&registration).await;
    }
}

fault! {
    /// A registration, an update and a removal all lie in the buffers of an agent that sleeps.
    async fn what_an_agent_finds_in_its_buffers_brings_back_nobody(bench: Memory) {
        let leaving = bench.live("a").await;
        bench.server.pause();
        let _pending = bench.provider.register(bench.instance("b")).await.unwrap();
        leaving.update(bench.instance("a").with_weight(plimsoll_discovery_api::Weight::new(7).unwrap())).unwrap();
        sleep(Duration::from_secs(4)).await;
        assert!(leaving.deregister().await.is_err(), "a removal that nobody confirmed");
        drop(_pending);
        bench.server.resume();
        eventually("the removal to be confirmed", || async {
            leaving.deregister().await.ok()
        })
        .await;
        bench.listed("nobody", |s| s.members().is_empty()).await;
        let until = Instant::now() + TTL + TTL / 2;
        while Instant::now() < until {
            let listed = bench.look().await;
            assert!(listed.members().is_empty(), "{:?}", ids(&listed));
            sleep(Duration::from_millis(50)).await;
        }
        eventually("no fence and no service", || async {
            let left = [bench.owned("a").is_some(), bench.owned("b").is_some(), bench.services() > 0];
            (!left.contains(&true)).then_some(())
        })
        .await;
    }
}

fault! {
    async fn a_service_that_an_operator_deregisters_returns_within_a_beat(bench: Memory) {
        let registration = bench.live("a").await;
        let before = life(&registration);
        let id = service_id(&bench.service, "a", before);
        block_in_place(|| put(&bench.server, &format!("/v1/agent/service/deregister/{id}"), ""));
        let removed = Instant::now();
        new_life(&registration, &[before]).await;
        assert!(removed.elapsed() < TTL, "{:?}", removed.elapsed());
        bench.alone(&registration).await;
        registration.load().set(9);
        registration.load().flush().await.unwrap();
        bench.listed("its load", |s| load_of(s, "a") == Some(9)).await;
    }
}

fault! {
    async fn a_session_that_an_operator_destroys_is_replaced_with_all_that_hung_on_it(bench: Memory) {
        let registrations = [bench.live("a").await, bench.live("b").await, bench.live("c").await];
        let lives = registrations.each_ref().map(life);
        let session = bench.owned("a").unwrap().session;
        block_in_place(|| put(&bench.server, &format!("/v1/session/destroy/{session}"), ""));
        for registration in &registrations {
            new_life(registration, &lives).await;
            let id = registration.instance().id().to_string();
            let fence = bench.owned(&id).unwrap();
            assert_ne!(fence.session, session);
            assert_eq!(fence.life(), Some(life(registration)));
        }
        bench.listed("all of them", |s| ids(s) == ["a", "b", "c"]).await;
        eventually("no service of a former life", || async {
            (bench.services() == 3).then_some(())
        })
        .await;
        // One session for all, again.
        let sessions = block_in_place(|| get(&bench.server, "/v1/session/list"));
        assert_eq!(sessions.as_array().map(Vec::len), Some(1), "{sessions}");
    }
}

fault! {
    async fn a_fence_that_an_operator_deletes_is_taken_again_by_the_next_load(bench: Memory) {
        let registration = bench.live("a").await;
        let before = life(&registration);
        let path = support::operator::key_path(&support::operator::key(&bench.service, "a"));
        block_in_place(|| bench.server.call("DELETE", &path, ""));
        registration.load().set(9);
        bench.listed("its load", |s| load_of(s, "a") == Some(9)).await;
        let fence = bench.owned("a").unwrap();
        assert_eq!((fence.life(), life(&registration)), (Some(before), before));
        assert!(!fence.session.is_empty(), "held by the session");
    }
}

fault! {
    async fn a_check_that_an_operator_fails_is_passed_again_within_a_beat(bench: Memory) {
        let registration = bench.live("a").await;
        let before = life(&registration);
        let id = service_id(&bench.service, "a", before);
        block_in_place(|| put(&bench.server, &format!("/v1/agent/check/fail/service:{id}"), ""));
        bench.listed("nobody", |s| s.members().is_empty()).await;
        bench.listed("it", |s| ids(s) == ["a"]).await;
        assert_eq!(life(&registration), before, "nothing was lost");
    }
}

fault! {
    /// In Consul's words: no service, check, session or key.
    async fn dropping_everything_leaves_nothing_in_consul(bench: Memory) {
        for round in 0..10 {
            let provider = support::harness::builder(bench.server.address()).build().unwrap();
            let registration = provider.register(bench.instance(&format!("r{round}"))).await.unwrap();
            ready(&registration).await;
            let watches = [
                provider.watch(&bench.service).await.unwrap(),
                provider.watch_members(&bench.service).await.unwrap(),
            ];
            registration.load().set(5);
            drop((registration, watches, provider));
        }
        fn left(server: &Server) -> [usize; 4] {
            let checks = get(server, "/v1/agent/checks");
            let sessions = get(server, "/v1/session/list");
            let keys = get(server, "/v1/kv/?recurse");
            [
                agent_services(server).len(),
                checks.as_object().map_or(0, serde_json::Map::len),
                sessions.as_array().map_or(0, Vec::len),
                keys.as_array().map_or(0, Vec::len),
            ]
        }
        let dropped = Instant::now();
        eventually("nothing of it", || async {
            (block_in_place(|| left(&bench.server)) == [0; 4]).then_some(())
        })
        .await;
        // Closed, not run out.
        assert!(dropped.elapsed() < TTL, "{:?}", dropped.elapsed());
    }
}

fault! {
    /// Seen by people and by programs that know nothing of plimsoll.
    async fn a_registration_has_the_liveness_of_consuls_own_and_the_bounds_that_were_set(bench: Memory) {
        let registration = bench.live("a").await;
        let checks = block_in_place(|| get(&bench.server, "/v1/agent/checks"));
        let id = format!("service:{}", service_id(&bench.service, "a", life(&registration)));
        let check = &checks[id];
        assert_eq!((&check["Type"], &check["Status"]), (&"ttl".into(), &"passing".into()));
        let services = block_in_place(|| get(&bench.server, "/v1/catalog/service/orders"));
        let service = &services[0];
        assert_eq!(service["ServiceAddress"], "10.0.0.7");
        assert_eq!(service["ServicePort"], 8080);
        assert_eq!(service["ServiceTags"], serde_json::json!(["plimsoll"]));
        assert_eq!(service["ServiceMeta"]["plimsoll-id"], "a");
        let state = block_in_place(|| get(&bench.server, "/v1/health/checks/orders"));
        assert_eq!(state[0]["Definition"], serde_json::json!({}), "what Consul 1.8 tells of a TTL check");
    }
}
