//! Thousands of registrations at once.

mod support;

use std::time::Duration;

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_test_servers::Burst;
use plimsoll_test_servers::probe::PATIENCE;

use support::bench::{Bench, fault};
use support::harness::ROOT;

/// A handle as users have it.
fn handle(bench: &Bench) -> ZkRegistry {
    let hosts = [bench.server.address().to_string()];
    ZkRegistry::builder(hosts)
        .with_root(ROOT)
        .build()
        .expect("good settings")
}

async fn burst(bench: &Bench, registry: &ZkRegistry, count: usize) -> Burst {
    let instances = (0..count).map(|n| bench.instance(&format!("m{n}")));
    Burst::of(registry, instances).await
}

fault! {
    async fn ten_thousand_registrations_at_once_are_live_and_none_is_lost(bench: Bench) {
        let registry = handle(&bench);
        let mut burst = burst(&bench, &registry, 10_000).await;
        let live = burst.until_live(PATIENCE).await;
        burst.during(Duration::from_secs(4)).await;
        println!("{burst}");
        assert!(live.is_some() && burst.losses() == 0, "{burst}");
    }
}

fault! {
    async fn a_server_slowed_to_a_twentieth_takes_one_after_the_other_and_loses_none(bench: Bench) {
        let registry = handle(&bench);
        let slowed = bench.server.slowed();
        let mut burst = burst(&bench, &registry, 500).await;
        let live = burst.until_live(PATIENCE * 2).await;
        burst.during(Duration::from_secs(4)).await;
        drop(slowed);
        println!("{burst}");
        assert!(live.is_some() && burst.losses() == 0, "{burst}");
    }
}

fault! {
    #[ignore = "measures, for minutes; see TESTING.md"]
    async fn measure_bursts(bench: Bench) {
        for count in [1_000, 5_000, 10_000, 20_000] {
            for _ in 0..2 {
                let registry = handle(&bench);
                let mut burst = burst(&bench, &registry, count).await;
                burst.until_live(Duration::from_secs(60)).await;
                println!("{count}: {burst}");
            }
        }
    }
}
