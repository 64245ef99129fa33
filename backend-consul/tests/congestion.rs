//! A thousand registrations at once.

mod support;

use std::time::Duration;

use plimsoll_backend_consul::ConsulRegistry;
use plimsoll_discovery_api::Registry;
use plimsoll_test_servers::Burst;
use plimsoll_test_servers::probe::{PATIENCE, eventually};

use support::bench::Bench;
use support::harness::ROOT;

/// A handle as users have it.
fn handle(bench: &Bench) -> ConsulRegistry {
    let builder = ConsulRegistry::builder(bench.server.address().to_string()).with_root(ROOT);
    builder.build().expect("good settings")
}

async fn burst(bench: &Bench, registry: &ConsulRegistry, count: usize) -> Burst {
    let instances = (0..count).map(|n| bench.instance(&format!("m{n}")));
    Burst::of(registry, instances).await
}

fault! {
    async fn five_hundred_registrations_at_once_are_live_and_none_is_lost(bench: Memory) {
        let registry = handle(&bench);
        let mut burst = burst(&bench, &registry, 500).await;
        let live = burst.until_live(PATIENCE).await;
        burst.during(Duration::from_secs(4)).await;
        println!("{burst}");
        assert!(live.is_some() && burst.losses() == 0, "{burst}");
    }
}

fault! {
    /// Readings of loads wait for their turn like all else, and none is asked for twice.
    async fn an_agent_slowed_to_a_twentieth_takes_claims_while_loads_are_read_and_loses_none(bench: Memory) {
        let registry = handle(&bench);
        let watcher = ConsulRegistry::builder(bench.server.address().to_string())
            .with_root(ROOT)
            .with_load_poll(Duration::from_millis(50));
        let watcher = watcher.build().expect("good settings");
        let mut watches = Vec::new();
        for number in 0..20 {
            let service = format!("other{number}").parse().expect("a name");
            watches.push(watcher.watch(&service).await.expect("a watch"));
        }
        let watch = watcher.watch(&bench.service).await.expect("a watch");
        let slowed = bench.server.slowed();
        let mut burst = burst(&bench, &registry, 40).await;
        let live = burst.until_live(PATIENCE * 4).await;
        burst.during(Duration::from_secs(4)).await;
        drop(slowed);
        println!("{burst}");
        assert!(live.is_some() && burst.losses() == 0, "{burst}");
        eventually("all of them in a watch", || async {
            let shown = watch.latest()?;
            (shown.members().len() == 40 && shown.freshness().is_live()).then_some(())
        })
        .await;
    }
}

fault! {
    #[ignore = "measures, for minutes; see TESTING.md"]
    async fn measure_bursts(bench: Memory) {
        for count in [500, 1_000] {
            for _ in 0..2 {
                let registry = handle(&bench);
                let mut burst = burst(&bench, &registry, count).await;
                burst.until_live(Duration::from_secs(60)).await;
                println!("{count}: {burst}");
                for registration in &burst.registrations {
                    let _left = registration.deregister().await;
                }
            }
        }
    }
}
