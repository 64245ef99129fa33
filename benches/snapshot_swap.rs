//! How long a change of membership takes from the registry's word to the picks: the endpoints
//! brought up to date, the picker built, the view exchanged.
//!
//! `snapshot_swap/<endpoints>/<threads>` with so many threads picking meanwhile.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use plimsoll::{Client, Member, PickRequest};
use support::{ScriptedRegistry, named};
use tokio::runtime::Runtime;

fn snapshot_swap(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("snapshot_swap");
    for size in [10, 100, 1_000] {
        for threads in [0, 1] {
            let all = named(size);
            let registry = ScriptedRegistry::with(&all);
            let builder = Client::builder(registry.arc(), "s");
            let client = runtime.block_on(builder.build()).unwrap();
            let pickers: Vec<_> = (0..threads).map(|_| Pickers::start(&client)).collect();
            group.bench_function(BenchmarkId::new(size.to_string(), threads), |b| {
                b.iter_custom(|iterations| swaps(&registry, &client, &all, iterations));
            });
            let picks: Vec<u64> = pickers.into_iter().map(Pickers::stop).collect();
            assert!(picks.iter().all(|picks| *picks > 0), "{picks:?}");
            assert!(client.endpoints().iter().all(|e| e.in_flight() == 0));
        }
    }
}

/// One member leaves and comes back in turns; each change is waited for.
fn swaps(registry: &ScriptedRegistry, client: &Client, all: &[Member], count: u64) -> Duration {
    let start = Instant::now();
    for swap in 0..count {
        let members = &all[usize::from(swap % 2 == 0)..];
        registry.publish(members);
        while client.stats().eligible != members.len() {
            std::thread::yield_now();
        }
    }
    let elapsed = start.elapsed();
    assert_eq!(
        client.view().snapshot().unwrap().members().len(),
        client.stats().members
    );
    registry.publish(all);
    while client.stats().eligible != all.len() {
        std::thread::yield_now();
    }
    elapsed
}

/// A thread that picks until it is stopped.
struct Pickers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Pickers {
    fn start(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, client) = (Arc::clone(&stop), client.clone());
        let thread = std::thread::spawn(move || {
            let mut picks = 0;
            while picks == 0 || !stopped.load(Ordering::Relaxed) {
                drop(client.pick(&PickRequest::new()).unwrap());
                picks += 1;
            }
            picks
        });
        Self { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

criterion_group!(benches, snapshot_swap);
criterion_main!(benches);
