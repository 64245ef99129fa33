//! What counting one connection costs the server: a guard acquired and dropped.
//!
//! `load_guard/<threads>` is the time of one, while so many threads count on one gauge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use criterion::{Criterion, criterion_group, criterion_main};
use plimsoll::{LoadHandle, Result};
use plimsoll_discovery_api::{Flush, LoadGauge};

#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Flush for Nowhere {
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

fn load_guard(c: &mut Criterion) {
    let mut group = c.benchmark_group("load_guard");
    for threads in [1, 2] {
        group.bench_function(threads.to_string(), |b| {
            b.iter_custom(|iterations| acquire_and_drop(iterations, threads));
        });
    }
}

/// Times `iterations` on this thread while `threads - 1` others do the same.
fn acquire_and_drop(iterations: u64, threads: usize) -> Duration {
    let load = LoadHandle::new(Arc::new(LoadGauge::new()), Arc::new(Nowhere));
    let (done, ready) = (AtomicBool::new(false), Barrier::new(threads));
    let elapsed = std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| {
                ready.wait();
                while !done.load(Ordering::Relaxed) {
                    drop(load.acquire());
                }
            });
        }
        ready.wait();
        let held = load.acquire();
        let start = Instant::now();
        for _ in 0..iterations {
            drop(load.acquire());
        }
        let elapsed = start.elapsed();
        assert!(load.current() >= 1, "the guard that is held is counted");
        drop(held);
        done.store(true, Ordering::Relaxed);
        elapsed
    });
    assert_eq!((load.current(), load.underflows()), (0, 0));
    elapsed
}

criterion_group!(benches, load_guard);
criterion_main!(benches);
