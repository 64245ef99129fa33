//! Who answers: the leader, the leader for certain, or any server.

mod support;

use std::time::Duration;

use plimsoll_backend_consul::Consistency;
use plimsoll_discovery_api::{ErrorKind, Instance, Registry, ServiceName};
use plimsoll_test_servers::consul::{Cluster, available};
use plimsoll_test_servers::probe::{eventually, ids, live, load_of};
use tokio::task::block_in_place;

use support::counter::Counter;
use support::harness::builder;

const MODES: [Consistency; 3] = [
    Consistency::Default,
    Consistency::Consistent,
    Consistency::Stale,
];

/// The mode that a request line asks for.
fn asked(line: &str) -> Consistency {
    let (_, query) = line.split_once('?').unwrap_or_default();
    let mut flags = query.split('&');
    match flags.find(|flag| ["consistent", "stale"].contains(flag)) {
        Some("consistent") => Consistency::Consistent,
        Some(_) => Consistency::Stale,
        None => Consistency::Default,
    }
}

fault! {
    async fn registering_watching_and_listing_work_in_each_consistency_and_ask_for_it(bench: Memory) {
        for mode in MODES {
            let counter = Counter::start(bench.server.address());
            let registry = builder(counter.address()).with_consistency(mode).build().unwrap();
            let watch = registry.watch(&bench.service).await.unwrap();
            let registration = live(&registry, bench.instance("a")).await;
            registration.load().set(3);
            registration.load().flush().await.unwrap();
            eventually("it in the watch", || async {
                watch.latest().filter(|s| load_of(s, "a") == Some(3)).map(drop)
            })
            .await;
            let listed = eventually("its load in the list", || async {
                registry.list(&bench.service).await.ok().filter(|s| load_of(s, "a") == Some(3))
            })
            .await;
            assert_eq!(ids(&listed), ["a"]);
            assert!(registry.services().await.unwrap().contains(&bench.service));
            registration.deregister().await.unwrap();
            eventually("nobody in the watch", || async {
                watch.latest().filter(|s| s.members().is_empty()).map(drop)
            })
            .await;
            assert!(registry.list(&bench.service).await.unwrap().members().is_empty());
            drop(watch);
            let lines = counter.lines();
            let of = |part: &str, without: &str| -> Vec<_> {
                let lines = lines.iter().filter(|l| l.contains(part) && !l.contains(without));
                lines.map(|line| asked(line)).collect()
            };
            // What a registration asks about itself is the leader's to say, whoever reads lists.
            let own = of("filter=", "index=");
            assert!(!own.is_empty() && own.iter().all(|m| *m == Consistency::Default), "{lines:?}");
            for (part, without) in [
                ("/v1/health/service/orders?index=", "filter="),
                ("/v1/health/service/orders", "filter="),
                ("/v1/catalog/services", "filter="),
            ] {
                let modes = of(part, without);
                assert!(!modes.is_empty() && modes.iter().all(|m| *m == mode), "{mode:?}: {lines:?}");
            }
            // Loads that are polled are any server's; those of a list are as sure as the list.
            let loads = of("recurse", "filter=");
            assert!(loads.contains(&mode), "{mode:?}: {lines:?}");
        }
    }
}

fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

fn instance(id: &str) -> Instance {
    let builder = Instance::builder(service(), "10.0.0.7", 8080).with_id(id);
    builder.build().expect("an instance")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_stale_reader_goes_on_with_what_one_server_knows() {
    if !available() {
        return;
    }
    let mut cluster = block_in_place(Cluster::start);
    let address = cluster.servers()[0].address();
    let provider = live(&builder(address).build().unwrap(), instance("a")).await;
    let readers = MODES.map(|mode| builder(address).with_consistency(mode).build().unwrap());
    let mut watches = Vec::new();
    for reader in &readers {
        let watch = reader.watch_members(&service()).await.unwrap();
        eventually("it in each watch", || async {
            watch.latest().filter(|s| ids(s) == ["a"]).map(drop)
        })
        .await;
        watches.push(watch);
    }
    block_in_place(|| {
        cluster.servers_mut()[1..]
            .iter_mut()
            .for_each(|server| server.kill())
    });
    let [default, consistent, stale] = &readers;
    for reader in [default, consistent] {
        let refused = eventually("a refusal", || async {
            reader.list(&service()).await.err()
        })
        .await;
        assert!(
            matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut),
            "{refused}"
        );
    }
    for _ in 0..5 {
        let listed = stale.list(&service()).await.expect("any server may answer");
        assert_eq!(ids(&listed), ["a"]);
    }
    for (watch, live) in watches.iter().zip([false, false, true]) {
        let seen = eventually("the freshness that each can have", || async {
            watch.latest().filter(|s| s.freshness().is_live() == live)
        })
        .await;
        assert_eq!(ids(&seen), ["a"], "the last good set");
    }
    let followed = std::time::Instant::now();
    while followed.elapsed() < Duration::from_secs(5) {
        let seen = watches[2].latest().expect("a list");
        assert!(
            seen.freshness().is_live() && ids(&seen) == ["a"],
            "{seen:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    block_in_place(|| {
        for server in &mut cluster.servers_mut()[1..] {
            server.relaunch();
        }
        assert!(
            cluster
                .servers_mut()
                .iter_mut()
                .all(|server| server.is_ready())
        );
    });
    for (reader, watch) in readers.iter().zip(&watches) {
        eventually("all of them to agree again", || async {
            let listed = reader.list(&service()).await.ok()?;
            let seen = watch.latest().filter(|s| s.freshness().is_live())?;
            let life = provider.state().incarnation();
            let agrees = |s: &plimsoll_discovery_api::Snapshot| {
                ids(s) == ["a"] && s.get("a").map(|m| m.incarnation()) == life
            };
            (agrees(&listed) && agrees(&seen)).then_some(())
        })
        .await;
    }
}
