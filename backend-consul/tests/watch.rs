//! What watchers are told, and how often they ask.

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_consul::ConsulRegistry;
use plimsoll_discovery_api::{Incarnation, Registry, Snapshot, Status};
use plimsoll_test_servers::consul::Server;
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, life, load_of};
use tokio::task::block_in_place;
use tokio::time::sleep;

use support::counter::Counter;
use support::harness::{ROOT, builder};
use support::operator::{key, key_path, put, service_id};

/// Registers a service by the agent's API, as other programs do.
fn register_foreign(server: &Server, name: &str, id: &str, check: &str) {
    let body = format!(
        r#"{{"ID":"{id}","Name":"{name}","Address":"10.9.9.9","Port":7000,"Meta":{{"team":"a"}},
            "Weights":{{"Passing":2,"Warning":1}},"Check":{{"TTL":"60s","Status":"{check}"}}}}"#
    );
    put(server, "/v1/agent/service/register", &body);
}

fault! {
    async fn services_of_others_are_members_by_what_their_checks_say(bench: Memory) {
        let _own = bench.live("a").await;
        let watch = bench.consumer.watch(&bench.service).await.unwrap();
        let expect = |members: &'static [&'static str]| {
            let watch = watch.clone();
            async move {
                eventually(&format!("{members:?}"), || async {
                    watch.latest().filter(|s| ids(s) == members)
                })
                .await
            }
        };
        block_in_place(|| register_foreign(&bench.server, "orders", "java", "critical"));
        block_in_place(|| register_foreign(&bench.server, "Orders", "other", "passing"));
        let node = format!("n{}/java", bench.server.address().port());
        let both: &'static [&'static str] = vec!["a", node.leak()].leak();
        expect(&["a"]).await;
        for (verb, members) in [("warn", both), ("pass", both), ("fail", &["a"]), ("pass", both)] {
            block_in_place(|| put(&bench.server, &format!("/v1/agent/check/{verb}/service:java"), ""));
            let seen = expect(members).await;
            if let Some(java) = seen.get(both[1]) {
                assert_eq!(java.instance().authority(), "10.9.9.9:7000");
                assert_eq!(java.instance().weight().get(), 200);
                assert_eq!(java.instance().metadata().get("team"), Some("a"));
            }
        }
        // Maintenance is an operator's word, and no failure.
        for (enable, status) in [(true, Status::OutOfService), (false, Status::Up)] {
            let path = format!("/v1/agent/service/maintenance/java?enable={enable}");
            block_in_place(|| put(&bench.server, &path, ""));
            eventually(status.as_str(), || async {
                let seen = watch.latest()?;
                let java = seen.get(both[1])?;
                (java.instance().status() == status).then_some(())
            })
            .await;
            expect(both).await;
        }
        block_in_place(|| put(&bench.server, "/v1/agent/service/deregister/java", ""));
        expect(&["a"]).await;
        let names = bench.consumer.services().await.unwrap();
        assert!(names.iter().any(|name| name.as_str() == "Orders"), "{names:?}");
    }
}

fault! {
    async fn garbage_among_the_services_does_no_harm_to_others(bench: Memory) {
        let good = [bench.live("a").await, bench.live("b").await];
        let watch = bench.consumer.watch(&bench.service).await.unwrap();
        let bodies = [
            r#"{"ID":"no-port","Name":"orders","Address":"10.0.0.9"}"#,
            r#"{"ID":"no-host","Name":"orders","Address":"a b","Port":1}"#,
            r#"{"ID":"half","Name":"orders","Address":"10.0.0.9","Port":1,"Meta":{"plimsoll-schema":"1"}}"#,
            r#"{"ID":"bad","Name":"orders","Address":"10.0.0.9","Port":1,"Meta":{"plimsoll-schema":"1",
                "plimsoll-id":"x","plimsoll-incarnation":"00000000000000000000000000000007","plimsoll-weight":"much"}}"#,
        ];
        for body in bodies {
            block_in_place(|| put(&bench.server, "/v1/agent/service/register", body));
        }
        // Nor does garbage where loads are kept, be it in the place of one.
        for (id, value) in [("a", "much"), ("nobody", "1 2 3")] {
            let path = key_path(&key(&bench.service, id));
            block_in_place(|| put(&bench.server, &path, value));
        }
        let before = life(&good[0]);
        let expected = |s: &Snapshot| ids(s) == ["a", "b"] && s.skipped() == bodies.len();
        bench.listed("two members and the rest skipped", expected).await;
        eventually("the same in the watch", || async { watch.latest().filter(|s| expected(s)).map(drop) }).await;
        good[0].load().set(9);
        bench.listed("its load", |s| load_of(s, "a") == Some(9)).await;
        assert_eq!(life(&good[0]), before);
        for id in ["no-port", "no-host", "half", "bad"] {
            block_in_place(|| put(&bench.server, &format!("/v1/agent/service/deregister/{id}"), ""));
        }
        let clean = |s: &Snapshot| ids(s) == ["a", "b"] && s.skipped() == 0;
        eventually("none skipped", || async { watch.latest().filter(|s| clean(s)).map(drop) }).await;
    }
}

fault! {
    /// The last one leaves: gracefully, so at once; by somebody else's hand, so held as suspect
    /// until it returns.
    async fn a_departure_is_told_from_a_removal_by_somebody_else(bench: Memory) {
        let registration = bench.live("a").await;
        let watch = bench.consumer.watch(&bench.service).await.unwrap();
        eventually("it", || async { watch.latest().filter(|s| ids(s) == ["a"]) }).await;
        let before = life(&registration);
        let mut seen = watch.clone();
        let witness = tokio::spawn(async move {
            let mut fewest = usize::MAX;
            while let Some(snapshot) = seen.next().await {
                fewest = fewest.min(snapshot.members().len());
                let returned = |m: &plimsoll_discovery_api::Member| {
                    m.incarnation() != before && m.standing().is_registered()
                };
                if snapshot.get("a").is_some_and(returned) {
                    break;
                }
            }
            fewest
        });
        let id = service_id(&bench.service, "a", before);
        block_in_place(|| {
            put(
                &bench.server,
                &format!("/v1/agent/service/deregister/{id}"),
                "",
            )
        });
        plimsoll_test_servers::probe::new_life(&registration, &[before]).await;
        let fewest = tokio::time::timeout(PATIENCE, witness).await.unwrap().unwrap();
        assert_eq!(fewest, 1, "an empty list, though its owner lives");
        registration.deregister().await.unwrap();
        let gone = Instant::now();
        eventually("nobody", || async {
            watch.latest().filter(|s| s.members().is_empty())
        })
        .await;
        assert!(
            gone.elapsed() < Duration::from_secs(3),
            "{:?}",
            gone.elapsed()
        );
    }
}

/// A service of a node without an agent, which nobody repairs: what the servers say of it is all.
fn catalogue(server: &Server, node: &str, port: usize) {
    let body = format!(
        r#"{{"Node":"{node}","Address":"10.8.8.8","SkipNodeUpdate":false,
            "Service":{{"ID":"db","Service":"orders","Port":{port}}}}}"#
    );
    put(server, "/v1/catalog/register", &body);
}

fault! {
    async fn a_restored_snapshot_is_believed_though_its_index_is_lower(bench: Disk) {
        let own = bench.live("own").await;
        block_in_place(|| catalogue(&bench.server, "old", 1));
        let watch = bench.consumer.watch(&bench.service).await.unwrap();
        eventually("the node", || async { watch.latest().filter(|s| ids(s) == ["old/db", "own"]) }).await;
        let snapshot = block_in_place(|| bench.server.snapshot());
        for port in 2..=50 {
            block_in_place(|| catalogue(&bench.server, "old", port));
        }
        block_in_place(|| catalogue(&bench.server, "young", 1));
        let port = |s: &Snapshot, id: &str| s.get(id).map(|m| m.instance().port());
        let seen = eventually("the later state", || async {
            watch.latest().filter(|s| port(s, "old/db") == Some(50) && port(s, "young/db") == Some(1))
        })
        .await;
        let restored = Instant::now();
        block_in_place(|| bench.server.restore(&snapshot));
        let back = eventually("the restored state", || async {
            watch.latest().filter(|s| s.freshness().is_live() && port(s, "old/db") == Some(1))
        })
        .await;
        assert!(restored.elapsed() < Duration::from_secs(10), "{:?}", restored.elapsed());
        assert_ne!(back.revision().epoch(), seen.revision().epoch());
        assert!(back.revision().counter() < seen.revision().counter(), "the index is lower");
        let young = back.get("young/db").expect("held down, as it may only have been forgotten");
        assert!(!young.standing().is_registered());
        // And changes are followed there.
        own.deregister().await.unwrap();
        eventually("its end", || async { watch.latest().filter(|s| s.get("own").is_none()) }).await;
    }
}

fault! {
    /// The servers have forgotten what the agent has told them, and it would take minutes until it
    /// tells them again by itself.
    async fn what_a_restored_snapshot_lacks_its_owner_brings_back(bench: Disk) {
        let _kept = bench.live("kept").await;
        let snapshot = block_in_place(|| bench.server.snapshot());
        let new = bench.live("new").await;
        let before = life(&new);
        block_in_place(|| bench.server.restore(&snapshot));
        let restored = Instant::now();
        bench.listed("both", |s| ids(s) == ["kept", "new"]).await;
        eventually("the fence", || async { bench.owned("new").filter(|f| f.life() == Some(before)) }).await;
        // The load is published once a second at the least here, and finds its chain cut.
        assert!(restored.elapsed() < Duration::from_secs(5), "{:?}", restored.elapsed());
        new.load().set(4);
        bench.listed("its load", |s| load_of(s, "new") == Some(4)).await;
        assert_eq!(life(&new), before);
    }
}

fault! {
    /// In a catalog that changes 100 times a second elsewhere. Consul wakes who waits for a service
    /// that nobody has with each of these changes, and who waits for one that is there with none.
    async fn in_a_busy_catalog_a_quiet_service_costs_a_query_per_wait_and_an_absent_one_five_a_second(bench: Memory) {
        const SPAN: Duration = Duration::from_secs(7);
        /// As the harness has it, and the least that an agent waits.
        const WAIT: Duration = Duration::from_secs(3);
        let counter = Counter::start(bench.server.address());
        let consumer = builder(counter.address()).build().unwrap();
        let _quiet = bench.live("a").await;
        let mut quiet = consumer.watch_members(&bench.service).await.unwrap();
        assert_eq!(ids(&quiet.next().await.unwrap()), ["a"]);
        let mut absent = consumer.watch_members(&"absent".parse().unwrap()).await.unwrap();
        assert!(absent.next().await.unwrap().members().is_empty());
        let asked = || ["orders", "absent"].map(|name| counter.count(&format!("/v1/health/service/{name}")));
        let (before, started) = (asked(), Instant::now());
        let mut changes = 0;
        while started.elapsed() < SPAN {
            block_in_place(|| register_foreign(&bench.server, "busy", &format!("b{}", changes % 20), "passing"));
            changes += 1;
            sleep(Duration::from_millis(10)).await;
        }
        let (after, took) = (asked(), started.elapsed());
        let [of_quiet, of_absent] = [after[0] - before[0], after[1] - before[1]];
        println!("{of_quiet} and {of_absent} queries in {took:?}, of {changes} changes elsewhere");
        assert!(changes > 100, "{changes} changes are not busy");
        let most = took.div_duration_f64(WAIT) + 2.0;
        assert!(of_quiet >= 1 && of_quiet as f64 <= most, "{of_quiet} queries for the one that is there");
        // Five at once, and then five a second.
        let most = took.as_secs_f64() * 5.0 + 6.0;
        assert!(of_absent >= 2 && of_absent as f64 <= most, "{of_absent} queries for the one that is not");
        assert!(counter.lines().iter().all(|line| !line.contains("index=0")), "{:?}", counter.lines());
    }
}

fault! {
    async fn any_number_of_local_watchers_ask_as_one(bench: Memory) {
        let counter = Counter::start(bench.server.address());
        let consumer = builder(counter.address()).build().unwrap();
        let _registration = bench.live("a").await;
        let mut watches = Vec::new();
        for _ in 0..50 {
            let mut watch = consumer.watch_members(&bench.service).await.unwrap();
            assert_eq!(ids(&watch.next().await.unwrap()), ["a"]);
            watches.push(watch);
        }
        let queries = counter.count("/v1/health/service/orders");
        assert!(queries <= 4, "{queries} queries for 50 watchers");
        assert_eq!(counter.count("/v1/kv/"), 0, "nobody asked for loads");
        drop(watches);
        sleep(Duration::from_millis(500)).await;
        let after = counter.lines().len();
        sleep(Duration::from_secs(4)).await;
        assert_eq!(counter.lines().len(), after, "somebody still asks");
    }
}

fault! {
    async fn five_hundred_instances_are_listed_and_watched(bench: Memory) {
        const MANY: usize = 500;
        // As users have them: the loads of a fleet that are as old as a second would be 500 writes
        // a second.
        let handle = || {
            let builder = ConsulRegistry::builder(bench.server.address().to_string()).with_root(ROOT);
            builder.with_ttl(Duration::from_secs(10)).build().unwrap()
        };
        let (provider, consumer) = (handle(), handle());
        let watch = consumer.watch(&bench.service).await.unwrap();
        let started = Instant::now();
        let mut fleet = Vec::new();
        for index in 0..MANY {
            fleet.push(provider.register(bench.instance(&format!("i{index:03}"))).await.unwrap());
        }
        let deadline = tokio::time::Instant::now() + PATIENCE * 3;
        for registration in &fleet {
            let ready = tokio::time::timeout_at(deadline, registration.ready()).await;
            assert!(matches!(ready, Ok(Ok(()))), "{ready:?} {:?}", registration.state());
        }
        println!("registered {MANY} in {:?}", started.elapsed());
        let started = Instant::now();
        let all = consumer.list(&bench.service).await.unwrap();
        println!("listed {MANY} in {:?}", started.elapsed());
        assert_eq!(all.members().len(), MANY);
        assert_eq!(all.skipped(), 0);
        eventually("all of them in the watch", || async {
            watch.latest().filter(|s| s.members().len() == MANY).map(drop)
        })
        .await;
        // One of many is followed as if it were alone, and its load too.
        fleet[42].load().set(9);
        fleet[42].load().flush().await.unwrap();
        eventually("its load", || async { watch.latest().filter(|s| load_of(s, "i042") == Some(9)) }).await;
        fleet[42].deregister().await.unwrap();
        eventually("one less", || async { watch.latest().filter(|s| s.members().len() == MANY - 1) }).await;
        // All of it lives on, at one beat.
        sleep(Duration::from_secs(15)).await;
        let lives: Vec<Incarnation> = fleet.iter().filter_map(|r| r.state().incarnation()).collect();
        assert_eq!(lives.len(), MANY - 1);
        let seen = watch.latest().unwrap();
        assert_eq!(seen.members().len(), MANY - 1);
        assert!(seen.members().iter().all(|m| lives.contains(&m.incarnation())));
    }
}
