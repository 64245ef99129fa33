//! What a process holds: in a test binary of its own, as memory is counted by process.

mod support;

use std::time::{Duration, Instant};

use plimsoll_discovery_api::{Registry, Snapshot};
use plimsoll_test_servers::probe::{PATIENCE, eventually};
use plimsoll_test_servers::resident_bytes;
use tokio::time::timeout;
use zookeeper_client::{Acls, CreateMode};

use support::bench::{Bench, fault};
use support::harness::{identity, load};

const INSTANCES: usize = 10;
const UPDATES: usize = 100_000;
/// As many as a transaction takes without being large.
const BATCH: usize = 100;
/// So many seconds of writing are enough, on however slow a machine.
const ENOUGH: Duration = Duration::from_secs(20);

fault! {
    /// A watch whose user does nothing holds the latest state and not its history.
    async fn a_slow_consumer_costs_bounded_memory_and_sees_the_last_state(bench: Bench) {
        let _first = bench.live("first").await;
        let instances: Vec<_> = (0..INSTANCES).map(|index| format!("i{index}")).collect();
        let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        let node = |id: &str| format!(r#"{{"name":"orders","id":"{id}","address":"10.0.0.1","port":80}}"#);
        for id in &instances {
            let (identity, load) = (identity(&bench.service, id), load(&bench.service, id));
            bench.operator.create(&identity, node(id).as_bytes(), &ephemeral).await.unwrap();
            bench.operator.create(&load, b"0", &ephemeral).await.unwrap();
        }
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        let whole = |s: &Snapshot| s.members().len() == INSTANCES + 1;
        timeout(PATIENCE, watch.wait_for(whole)).await.unwrap().unwrap();
        let (before, started) = (resident_bytes(), Instant::now());
        let (mut updates, mut most) = (0, before);
        while updates < UPDATES && started.elapsed() < ENOUGH {
            let mut writer = bench.operator.new_multi_writer();
            for id in instances.iter().cycle().take(BATCH) {
                updates += 1;
                let path = load(&bench.service, id);
                writer.add_set_data(&path, updates.to_string().as_bytes(), None).unwrap();
            }
            writer.commit().await.unwrap();
            most = most.max(resident_bytes());
        }
        let took = started.elapsed();
        let last = |s: &Snapshot| {
            let loads = s.members().iter().filter_map(|m| m.load().get());
            loads.max() == Some(updates as u64)
        };
        eventually("the last state", || async { watch.latest().filter(|s| last(s)).map(drop) }).await;
        let grown = most.max(resident_bytes()) - before;
        println!("{updates} updates in {took:?}, all seen after {:?}: {grown} bytes", started.elapsed());
        assert!(updates >= 10_000, "{updates} updates in {took:?}");
        assert!(grown < 50 << 20, "{grown} bytes more after {updates} updates nobody looked at");
    }
}
