//! Loads: how often they are written, and what they must not keep waiting.

mod support;

use std::time::{Duration, Instant};

use plimsoll_discovery_api::{LoadUpdater, Registry};
use tokio::time::sleep;

use support::bench::{eventually, ids, life, load};
use support::counter::Counter;
use support::harness::{TTL, builder};

fault! {
    /// 1,000 connections a second that come and go: no more writes than the interval of 50 ms
    /// allows, none that lost a race, and in the end the exact count.
    async fn a_storm_of_connections_writes_no_more_than_the_interval_allows(bench: Memory) {
        let counter = Counter::start(bench.server.address());
        let provider = builder(counter.address()).build().unwrap();
        let registration = support::bench::live(&provider, bench.instance("a")).await;
        let (before, started) = (counter.count("/v1/txn"), Instant::now());
        let reads = counter.count("/v1/kv/");
        let handle = registration.load();
        let mut open = Vec::new();
        while started.elapsed() < Duration::from_secs(5) {
            for _ in 0..10 {
                open.push(handle.acquire());
            }
            sleep(Duration::from_millis(10)).await;
            open.drain(..open.len().saturating_sub(3));
        }
        bench.listed("the exact count", |s| load(s, "a") == Some(3)).await;
        let writes = counter.count("/v1/txn") - before;
        let most = started.elapsed().as_millis() / 50 + 2;
        assert!(writes > 5 && writes as u128 <= most, "{writes} writes, {most} allowed");
        assert_eq!(counter.count("/v1/kv/"), reads, "a write of the only writer lost a race");
    }
}

fault! {
    /// 40 registrations of one handle whose loads are written as fast as the agent takes them, for
    /// two TTLs: no check lapses, and no life ends.
    async fn a_flood_of_loads_keeps_no_beat_waiting(bench: Memory) {
        const FLEET: usize = 40;
        let mut fleet = Vec::new();
        for index in 0..FLEET {
            fleet.push(bench.live(&format!("i{index:02}")).await);
        }
        let lives: Vec<_> = fleet.iter().map(life).collect();
        let until = Instant::now() + TTL * 2;
        let floods: Vec<_> = fleet
            .iter()
            .map(|registration| {
                let load = registration.load();
                tokio::spawn(async move {
                    let mut writes = 0_u64;
                    while Instant::now() < until {
                        writes += 1;
                        load.set(writes);
                        let _slow_at_worst = load.flush().await;
                    }
                    writes
                })
            })
            .collect();
        while Instant::now() < until {
            let listed = bench.consumer.list(&bench.service).await.unwrap();
            assert_eq!(listed.members().len(), FLEET, "{:?}", ids(&listed));
            sleep(Duration::from_millis(100)).await;
        }
        let mut writes = 0;
        for flood in floods {
            writes += flood.await.unwrap();
        }
        println!("{writes} loads written in {:?}", TTL * 2);
        assert!(writes > 1_000, "{writes} are no flood");
        assert_eq!(fleet.iter().map(life).collect::<Vec<_>>(), lives);
    }
}

fault! {
    async fn watches_that_come_and_go_leave_no_connection_and_no_query(bench: Memory) {
        let counter = Counter::start(bench.server.address());
        let consumer = builder(counter.address()).build().unwrap();
        for round in 0..500 {
            let service = format!("s{}", round % 7).parse().unwrap();
            let mut watch = consumer.watch(&service).await.unwrap();
            if round % 3 == 0 {
                watch.next().await.unwrap();
            }
        }
        let last = consumer.watch(&bench.service).await.unwrap();
        eventually("the last one's list", || async { last.latest().map(drop) }).await;
        drop(last);
        eventually("no request within a second", || async {
            let before = counter.lines().len();
            sleep(Duration::from_secs(1)).await;
            (counter.lines().len() == before).then_some(())
        })
        .await;
        // What is kept for the next request.
        eventually("eight connections at the most", || async { (counter.open() <= 8).then_some(()) }).await;
    }
}
