//! Who does not look: in a process of its own, whose memory is nobody else's.

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_consul::ConsulRegistry;
use plimsoll_discovery_api::Registry;
use plimsoll_test_servers::probe::{eventually, life, load_of, ready};
use plimsoll_test_servers::resident_bytes;
use tokio::task::block_in_place;

use support::harness::{ROOT, builder};
use support::operator::{base64, key, put};

fault! {
    /// 200,000 loads of 500 instances are written while a watch of them is held by somebody who is
    /// busy elsewhere.
    async fn a_watch_that_nobody_looks_at_keeps_the_latest_state_and_nothing_else(bench: Memory) {
        const FLEET: u64 = 500;
        const ROUNDS: u64 = 400;
        /// In these the allocator takes what it needs anyway.
        const FIRST: u64 = 20;
        // Quiet by itself, so that what is written below is all there is.
        let quiet = ConsulRegistry::builder(bench.server.address().to_string()).with_root(ROOT);
        let quiet = quiet.with_ttl(Duration::from_secs(60)).build().unwrap();
        let mut fleet = Vec::new();
        for index in 0..FLEET {
            fleet.push(quiet.register(bench.instance(&format!("i{index:03}"))).await.unwrap());
        }
        for registration in &fleet {
            ready(registration).await;
        }
        let consumer = builder(bench.server.address()).with_load_poll(Duration::from_millis(50));
        let mut watch = consumer.build().unwrap().watch(&bench.service).await.unwrap();
        let all = |s: &plimsoll_discovery_api::Snapshot| s.members().len() as u64 == FLEET;
        watch.wait_for(all).await.unwrap();
        let keys: Vec<_> = (0..FLEET).map(|index| key(&bench.service, &format!("i{index:03}"))).collect();
        let lives: Vec<_> = fleet.iter().map(life).collect();
        let started = Instant::now();
        let (mut before, mut most) = (0, 0);
        for round in 1..=ROUNDS {
            let operations: Vec<_> = keys
                .iter()
                .zip(&lives)
                .map(|(key, life)| {
                    let value = base64(&format!("{life} {} {round}", 1_000_000 + round));
                    format!(r#"{{"KV":{{"Verb":"set","Key":"{key}","Value":"{value}"}}}}"#)
                })
                .collect();
            if round == FIRST {
                before = resident_bytes();
            }
            // A transaction takes 64 at the most.
            for part in operations.chunks(50) {
                block_in_place(|| put(&bench.server, "/v1/txn", &format!("[{}]", part.join(","))));
                most = most.max(resident_bytes());
            }
        }
        let grown = most.saturating_sub(before);
        println!("{} loads in {:?}, {} kB more in memory", FLEET * ROUNDS, started.elapsed(), grown / 1024);
        // Were each answer kept that was read meanwhile, it would be twice that.
        assert!(grown < 8 << 20, "{grown} bytes more in memory");
        let last = format!("i{:03}", FLEET - 1);
        eventually("the last of all loads", || async {
            watch.latest().filter(|s| load_of(s, "i000") == Some(ROUNDS) && load_of(s, &last) == Some(ROUNDS)).map(drop)
        })
        .await;
    }
}
