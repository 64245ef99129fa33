//! Leases that are revoked, keys that are deleted or overwritten, and records of others.

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{
    Incarnation, Registration, RegistrationState, Registry, Snapshot, Status,
};
use plimsoll_test_servers::Mode;
use plimsoll_test_servers::probe::{
    eventually, ids, life, listed, load_of, new_life, shown, state,
};
use tokio::time::sleep;

use support::harness::{TTL, builder};
use support::operator::{PREFIX, identity, load};
use support::stage::{Stage, live, register};

fault! {
    async fn a_revoked_lease_is_replaced_and_every_registration_with_it(stage: Stage) {
        let registrations = stage.live_many(20).await;
        let lives: Vec<_> = registrations.iter().map(life).collect();
        let lease = stage.provider.lease_id().unwrap();
        let revoked = Instant::now();
        stage.operator.revoke(lease).await;
        for (registration, before) in registrations.iter().zip(&lives) {
            state(registration, "Live anew", |s| s.is_live() && s.incarnation() != Some(*before)).await;
        }
        // The deletion of its keys tells a process at once, and the lease is asked about then.
        assert!(revoked.elapsed() < TTL, "{:?}", revoked.elapsed());
        let present = stage.provider.lease_id().unwrap();
        assert_ne!(present, lease);
        stage.listed("all of them", |s| s.members().len() == 20).await;
        for kv in stage.operator.records().await {
            assert_eq!(kv.lease(), present, "{:?}", kv.key_str());
        }
        assert_eq!(stage.operator.leases().await, [present]);
    }
}

fault! {
    /// Whoever kept the former lease may not have noticed yet that it has ended.
    async fn a_lease_that_replaces_one_that_has_ended_is_given_back_too(stage: Stage) {
        const LONG: Duration = Duration::from_secs(60);
        let registry = builder(stage.server.address()).with_lease_ttl(LONG).build().unwrap();
        let registration = register(&registry, "a").await;
        state(&registration, "Live", RegistrationState::is_live).await;
        let (before, lease) = (life(&registration), registry.lease_id().unwrap());
        stage.operator.revoke(lease).await;
        let anew = |s: &RegistrationState| s.is_live() && s.incarnation() != Some(before);
        state(&registration, "Live anew", anew).await;
        assert_ne!(registry.lease_id(), Some(lease));
        // With the handle ends what keeps it, long before the lease itself would.
        drop((registration, registry));
        eventually("no lease", || async {
            stage.operator.leases().await.is_empty().then_some(())
        })
        .await;
    }
}

fault! {
    async fn a_key_deleted_by_an_operator_returns_at_once_under_the_same_lease(stage: Stage) {
        let registration = stage.live("a").await;
        let before = stage.key("a").await.unwrap();
        let deleted = Instant::now();
        stage.operator.delete(&identity(&stage.service, "a")).await;
        let after = eventually("the key", || stage.key("a")).await;
        assert!(deleted.elapsed() < Duration::from_secs(1), "{:?}", deleted.elapsed());
        assert_eq!(after.lease(), before.lease());
        assert_ne!(after.create_revision(), before.create_revision());
        state(&registration, "Live", RegistrationState::is_live).await;
        registration.load().set(9);
        registration.load().flush().await.unwrap();
        stage.listed("its load", |s| load_of(s, "a") == Some(9)).await;
    }
}

fault! {
    async fn keys_deleted_one_after_another_all_return(stage: Stage) {
        let registrations = stage.live_many(30).await;
        for round in 0..3 {
            for number in (round..30).step_by(3) {
                stage.operator.delete(&identity(&stage.service, &format!("m{number}"))).await;
            }
            stage.proxy.cut();
        }
        stage.listed("all of them", |s| s.members().len() == 30).await;
        for registration in &registrations {
            state(registration, "Live", RegistrationState::is_live).await;
        }
    }
}

fault! {
    async fn a_deleted_load_returns_with_the_next_publication(stage: Stage) {
        let registration = stage.live("a").await;
        let before = life(&registration);
        stage.operator.delete(&load(&stage.service, "a")).await;
        registration.load().set(9);
        stage.listed("its load", |s| load_of(s, "a") == Some(9)).await;
        assert_eq!(life(&registration), before);
        let kv = stage.operator.get(&load(&stage.service, "a")).await.unwrap();
        assert_eq!(Some(kv.lease()), stage.provider.lease_id());
    }
}

fault! {
    /// A plain write takes the key from its lease, and would leave it there for ever.
    async fn a_record_overwritten_without_its_lease_is_put_back_under_it(stage: Stage) {
        let registration = stage.live("a").await;
        let before = stage.key("a").await.unwrap();
        stage.operator.put(&identity(&stage.service, "a"), before.value()).await;
        let restored = eventually("the key under its lease", || async {
            stage.key("a").await.filter(|kv| kv.lease() == before.lease())
        })
        .await;
        assert!(restored.mod_revision() > before.mod_revision());
        state(&registration, "Live", RegistrationState::is_live).await;
    }
}

/// Waits until `registration` lives anew, and its record stands for that life under the one lease.
async fn put_back(stage: &Stage, registration: &Registration, before: Incarnation) {
    let life = new_life(registration, &[before]).await;
    let listed = stage
        .listed("the new life", |s| {
            s.get("a").is_some_and(|m| m.incarnation() == life)
        })
        .await;
    assert_eq!((ids(&listed), listed.skipped()), (vec!["a"], 0));
}

fault! {
    async fn a_record_overwritten_under_its_own_lease_is_put_back(stage: Stage) {
        let registration = stage.live("a").await;
        let key = identity(&stage.service, "a");
        let naming = br#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}"#;
        for value in [&b"garbage"[..], b"", naming] {
            let before = life(&registration);
            stage.operator.overwrite(&key, value).await;
            put_back(&stage, &registration, before).await;
        }
        // What its owner itself would have made of it as it left.
        let own = String::from_utf8(stage.key("a").await.unwrap().value().to_vec()).unwrap();
        let before = life(&registration);
        let departed = own.replacen(r#""Op":0"#, r#""Op":1"#, 1);
        stage.operator.overwrite(&key, departed.as_bytes()).await;
        put_back(&stage, &registration, before).await;
        assert_eq!(stage.key("a").await.map(|kv| kv.lease()), stage.provider.lease_id());
    }
}

fault! {
    /// And its owner did not look: it finds out as soon as it does.
    async fn a_record_overwritten_under_its_own_lease_in_an_outage_is_put_back(stage: Stage) {
        // Its own questions would tell too, in time.
        let provider = builder(stage.proxy.address()).with_timings(|timings| {
            timings.renew_interval = Duration::from_secs(3_600);
            timings.lease = None;
        });
        let provider = provider.build().unwrap();
        let [registration, other] = [live(&provider, "a").await, live(&provider, "b").await];
        eventually("the keys to be watched", || async {
            (stage.server.metric("etcd_debugging_mvcc_watcher_total") == 2.0).then_some(())
        })
        .await;
        let lives = [life(&registration), life(&other)];
        stage.proxy.set(Mode::Refuse);
        stage.operator.overwrite(&identity(&stage.service, "a"), b"garbage").await;
        stage.proxy.set(Mode::Pass);
        new_life(&registration, &lives).await;
        stage.listed("both", |s| ids(s) == ["a", "b"] && s.skipped() == 0).await;
        assert_eq!(life(&other), lives[1]);
    }
}

fault! {
    async fn whoever_leaves_takes_along_what_was_made_of_the_record(stage: Stage) {
        let registration = stage.live("a").await;
        stage.proxy.set(Mode::Refuse);
        stage.operator.overwrite(&identity(&stage.service, "a"), b"garbage").await;
        let _not_yet = registration.deregister().await;
        stage.proxy.set(Mode::Pass);
        eventually("the removal", || async { registration.deregister().await.ok() }).await;
        assert!(stage.operator.records().await.is_empty());
    }
}

fault! {
    /// One of whom does not escape it.
    async fn two_programs_under_one_id_are_one_instance_until_both_are_gone(stage: Stage) {
        const ID: &str = "10.9.9.9:7001";
        let raw = format!("{PREFIX}/services/orders/{ID}");
        let other = br#"{"Op":0,"Addr":"10.8.8.8:1","Metadata":null}"#;
        let is_at = |authority: &'static str| {
            move |s: &Snapshot| {
                ids(s) == [ID] && s.get(ID).is_some_and(|m| {
                    m.instance().authority() == authority && m.standing().is_registered()
                })
            }
        };
        let mut watch = stage.watch().await;
        let registration = stage.live(ID).await;
        stage.operator.put(&raw, other).await;
        // What comes after it tells that it has been seen.
        let last = stage.live("z").await;
        shown(&mut watch, "both programs", |s| s.get("z").is_some()).await;
        last.deregister().await.unwrap();
        shown(&mut watch, "ours", is_at("10.0.0.7:8080")).await;
        stage.listed("ours", is_at("10.0.0.7:8080")).await;
        stage.operator.delete(&raw).await;
        let last = stage.live("z").await;
        shown(&mut watch, "ours, still", |s| ids(s) == [ID, "z"]).await;
        last.deregister().await.unwrap();
        stage.operator.put(&raw, other).await;
        registration.deregister().await.unwrap();
        shown(&mut watch, "the other", is_at("10.8.8.8:1")).await;
        stage.listed("the other", is_at("10.8.8.8:1")).await;
    }
}

fault! {
    async fn no_key_is_ever_without_the_lease_whatever_is_written(stage: Stage) {
        let registration = stage.live("a").await;
        for value in 0..20 {
            registration.load().set(value);
            registration.load().flush().await.unwrap();
            let status = if value % 2 == 0 { Status::OutOfService } else { Status::Up };
            registration.set_status(status).unwrap();
            for kv in stage.operator.records().await {
                assert_eq!(Some(kv.lease()), stage.provider.lease_id(), "{:?}", kv.key_str());
            }
        }
        stage.listed("the last status", |s| {
            s.get("a").is_some_and(|m| m.instance().status() == Status::Up)
        })
        .await;
    }
}

fault! {
    /// A process that was killed and starts again with the same id waits for its former lease.
    async fn a_second_owner_of_an_id_never_takes_it_from_a_live_one(stage: Stage) {
        let first = stage.live("a").await;
        let before = stage.key("a").await.unwrap();
        let second = register(&stage.consumer, "a").await;
        state(&second, "Conflict", |s| matches!(s, RegistrationState::Conflict { .. })).await;
        sleep(TTL).await;
        let kv = stage.key("a").await.unwrap();
        assert_eq!((kv.create_revision(), kv.mod_revision()), (before.create_revision(), before.mod_revision()));
        assert!(first.state().is_live());
        first.deregister().await.unwrap();
        state(&second, "Live", RegistrationState::is_live).await;
    }
}

fault! {
    async fn a_departure_is_told_and_leaves_no_key(stage: Stage) {
        let leaving = stage.live_many(10).await;
        let mut watch = stage.watch().await;
        shown(&mut watch, "all", |s| s.members().len() == 10).await;
        for registration in leaving {
            registration.deregister().await.unwrap();
        }
        // A loss that nobody announced would be held down.
        shown(&mut watch, "nobody", |s| s.members().is_empty()).await;
        let records = stage.operator.records().await;
        assert!(records.is_empty(), "{:?}", records.first().map(|kv| kv.key_str()));
    }
}

fault! {
    async fn garbage_empty_huge_and_foreign_values_do_no_harm_to_others(stage: Stage) {
        let _good = [stage.live("a").await, stage.live("b").await];
        let huge = vec![b'x'; 1024 * 1024];
        let naming = br#"{"Op":0,"Addr":"10.9.9.9:7000","Metadata":{"team":"a"}}"#;
        let values: [(&str, &[u8]); 5] =
            [("garbage", b"\xff\x00{"), ("empty", b""), ("huge", &huge), ("null", b"null"), ("go", naming)];
        let mut watch = stage.watch().await;
        for (id, value) in values {
            stage.operator.put(&identity(&stage.service, id), value).await;
        }
        // As etcd's own naming endpoints write it, not escaped.
        let raw = format!("{PREFIX}/services/orders/10.9.9.9:7001");
        stage.operator.put(&raw, br#"{"Op":0,"Addr":"10.9.9.9:7001","Metadata":null}"#).await;
        let sound = |s: &Snapshot| {
            ids(s) == ["10.9.9.9:7001", "a", "b", "go"] && s.skipped() == 4
        };
        let listed = stage.listed("the sound ones", sound).await;
        let foreign = listed.get("go").unwrap();
        assert_eq!(foreign.instance().authority(), "10.9.9.9:7000");
        assert_eq!(foreign.instance().metadata().get("team"), Some("a"));
        shown(&mut watch, "the sound ones", sound).await;
        stage.operator.delete(&raw).await;
        shown(&mut watch, "one less", |s| ids(s) == ["a", "b", "go"]).await;
    }
}

fault! {
    async fn what_others_write_beyond_our_limits_is_left_out_of_the_metadata_and_counted(stage: Stage) {
        let _good = stage.live("a").await;
        let long = "v".repeat(600);
        let many: Vec<_> = (0..60).map(|number| format!(r#""k{number}":"v""#)).collect();
        let cases = [
            (r#""a.dotted/key":"x""#, 1),
            (&*format!(r#""long":"{long}""#), 1),
            (r#""lines":"a\nb""#, 1),
            (r#""nested":{"x":1}"#, 1),
            (r#""":"x""#, 1),
            (&many.join(","), 12),
        ];
        for (number, (pairs, _)) in cases.iter().enumerate() {
            let value = format!(r#"{{"Op":0,"Addr":"10.9.9.9:{}","Metadata":{{{pairs}}}}}"#, number + 1);
            let key = identity(&stage.service, &format!("other-{number}"));
            stage.operator.put(&key, value.as_bytes()).await;
        }
        let left_out: usize = cases.iter().map(|(_, left_out)| left_out).sum();
        let whole = |s: &Snapshot| {
            (s.members().len(), s.skipped(), s.left_out()) == (7, 0, left_out)
        };
        let mut watch = stage.watch().await;
        shown(&mut watch, "all, and what was left out", whole).await;
        stage.listed("all, and what was left out", whole).await;
        stage.operator.delete(&identity(&stage.service, "other-5")).await;
        let rest = left_out - 12;
        // Of what no lease keeps alive a deletion is meant.
        shown(&mut watch, "the others", |s| s.members().len() == 6 && s.left_out() == rest).await;
    }
}

fault! {
    /// A server may take more in one request than somebody here receives.
    async fn a_value_too_large_to_be_received_hides_nobody(stage: Stage, "--max-request-bytes=8388608") {
        let _good = [stage.live("a").await, stage.live("z").await];
        let registry = builder(stage.server.address()).with_max_message_bytes(4 << 20);
        let registry = registry.build().unwrap();
        let mut watch = registry.watch(&stage.service).await.unwrap();
        shown(&mut watch, "both", |s| ids(s) == ["a", "z"]).await;
        let huge = vec![b'x'; 5 << 20];
        stage.operator.put(&identity(&stage.service, "m"), &huge).await;
        let counted = |s: &Snapshot| ids(s) == ["a", "z"] && s.skipped() == 1;
        shown(&mut watch, "both, and one skipped", |s| counted(s) && s.freshness().is_live()).await;
        listed(&registry, &stage.service, "both, and one skipped", counted).await;
        let _later = stage.live("n").await;
        shown(&mut watch, "who came later", |s| ids(s) == ["a", "n", "z"]).await;
    }
}

fault! {
    /// Leases that a server grants no shorter: of one and a half election timeouts.
    async fn a_lease_below_the_servers_minimum_is_granted_longer_and_says_so(stage: Stage, "--election-timeout=3000", "--heartbeat-interval=300") {
        let registry = EtcdRegistry::builder([stage.server.address().to_string()])
            .with_lease_ttl(Duration::from_secs(2))
            .build()
            .unwrap();
        assert_eq!(registry.granted_ttl(), None);
        let _registration = live(&registry, "a").await;
        let granted = Duration::from_secs(5);
        assert_eq!(registry.granted_ttl(), Some(granted));
        // Whoever crashes is there for as long.
        assert!(registry.capabilities().crash_detection > Some(granted));
    }
}

fault! {
    async fn one_lease_and_one_keepalive_stream_serve_all_registrations(stage: Stage) {
        let registrations = stage.live_many(50).await;
        assert_eq!(stage.operator.leases().await.len(), 1);
        // Streams that were opened and have not ended, by what the server counts.
        let streams = stage.server.streams("LeaseKeepAlive");
        assert_eq!(streams, 1.0);
        assert!(stage.server.streams("Watch") <= 1.0);
        drop(registrations);
    }
}
