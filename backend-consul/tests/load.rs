//! Loads: how often they are written, and what they must not keep waiting.

mod support;

use std::time::{Duration, Instant};

use plimsoll_discovery_api::Registry;
use plimsoll_test_servers::Mode;
use plimsoll_test_servers::probe::{eventually, ids, life, load_of};
use tokio::task::block_in_place;
use tokio::time::sleep;

use support::counter::Counter;
use support::harness::{TTL, builder};

fault! {
    /// 1,000 connections a second that come and go: no more writes than the interval of 50 ms
    /// allows, none that lost a race, and in the end the exact count.
    async fn a_storm_of_connections_writes_no_more_than_the_interval_allows(bench: Memory) {
        let counter = Counter::start(bench.server.address());
        let provider = builder(counter.address()).build().unwrap();
        let registration = plimsoll_test_servers::probe::live(&provider, bench.instance("a")).await;
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
        bench.listed("the exact count", |s| load_of(s, "a") == Some(3)).await;
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
            let listed = bench.look().await;
            assert_eq!(listed.members().len(), FLEET, "{:?}", ids(&listed));
            sleep(Duration::from_millis(100)).await;
        }
        let mut writes = 0;
        for flood in floods {
            writes += flood.await.unwrap();
        }
        println!("{writes} loads written in {:?}", TTL * 2);
        assert!(writes > 10 * FLEET as u64, "{writes} are no flood");
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

fault! {
    /// A write whose reply was lost may have been carried out or not; it says the whole count, so
    /// that it does no harm to write it again.
    async fn the_load_is_exact_after_hundreds_of_cuts_in_the_middle_of_writes(bench: Memory) {
        let registration = bench.live("a").await;
        let before = life(&registration);
        let (handle, mut open) = (registration.load(), Vec::new());
        let mut rng = plimsoll_discovery_api::Rng::from_seed(7);
        for round in 0..300_u64 {
            for _ in 0..rng.below(4) {
                open.push(handle.acquire());
            }
            open.truncate(open.len().saturating_sub(usize::from(round % 3 == 0)));
            if round % 4 == 0 {
                bench.proxy.reset();
            } else if round % 2 == 0 {
                bench.proxy.cut();
            } else {
                bench.proxy.set(Mode::HoldReplies);
                sleep(Duration::from_millis(20).mul_f64(rng.next_f64())).await;
                bench.proxy.set(Mode::Pass);
            }
            sleep(Duration::from_millis(20).mul_f64(rng.next_f64())).await;
        }
        let count = open.len() as u64;
        bench.listed("the exact count", |s| load_of(s, "a") == Some(count)).await;
        drop(open);
        bench.listed("nobody", |s| load_of(s, "a") == Some(0)).await;
        println!("{count} at the end of the cuts");
        assert_eq!(life(&registration), before, "cuts shorter than its check cost it its life");
    }
}

fault! {
    /// In tasks of this process, and in what the agent has under way for it.
    async fn watches_that_come_and_go_by_the_thousand_leave_no_task_here_and_none_in_the_agent(bench: Memory) {
        let under_way = || block_in_place(|| {
            let (status, profile) = bench.server.call("GET", "/debug/pprof/goroutine?debug=1", "");
            assert_eq!(status, 200, "{profile}");
            let total = profile.lines().find_map(|line| line.strip_prefix("goroutine profile: total "));
            total.and_then(|total| total.trim().parse::<usize>().ok()).expect("a number")
        });
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let consumer = builder(bench.server.address()).build().unwrap();
        let (first, agents) = (tasks(), under_way());
        let mut most = 0;
        for round in 0..3_000 {
            let service = format!("s{}", round % 40).parse().unwrap();
            // Of those with loads the next poll would find that nobody listens.
            let mut watch = match round % 2 {
                0 => consumer.watch_members(&service).await.unwrap(),
                _ => consumer.watch(&service).await.unwrap(),
            };
            if round % 5 == 0 {
                watch.next().await.unwrap();
                most = most.max(tasks());
            }
        }
        println!("{first} tasks and {agents} in the agent before, {most} tasks at the most");
        // What is kept for the next request.
        eventually("eight connections at the most", || async { (tasks() <= first + 8).then_some(()) }).await;
        drop(consumer);
        eventually("as few tasks as before", || async { (tasks() <= first).then_some(()) }).await;
        // What the runtime of the agent does by itself goes up and down a little.
        eventually("as little in the agent", || async { (under_way() <= agents + 10).then_some(()) }).await;
    }
}
