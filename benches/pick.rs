//! What one pick costs, by algorithm and number of endpoints: picked, counted in flight and
//! reported as a success.
//!
//! `pick/<balancer>/<endpoints>/shared` is `Client::pick`, `…/local` is `LocalClient::pick`.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use plimsoll::balancers::{
    BoundedLoadHash, LeastConnections, LeastLoad, LeastRequest, Maglev, PeakEwma, Random,
    Rendezvous, RingHash, RoundRobin, WeightedRandom, WeightedResponseTime, WeightedRoundRobin,
};
use plimsoll::{Balancer, Client, Outcome, PickRequest, Timestamp};
use support::{ScriptedRegistry, named};
use tokio::runtime::Runtime;

const SIZES: [usize; 5] = [3, 10, 100, 1_000, 10_000];

fn pick(c: &mut Criterion) {
    bench(c, "round_robin", RoundRobin::new);
    bench(c, "weighted_round_robin", WeightedRoundRobin::new);
    bench(c, "random", Random::new);
    bench(c, "weighted_random", WeightedRandom::new);
    bench(c, "least_request", LeastRequest::new);
    bench(c, "least_connections", LeastConnections::new);
    bench(c, "least_load", LeastLoad::new);
    bench(c, "peak_ewma", PeakEwma::new);
    bench(c, "weighted_response_time", WeightedResponseTime::new);
    bench(c, "ring_hash", RingHash::new);
    bench(c, "maglev", Maglev::new);
    bench(c, "rendezvous", Rendezvous::new);
    bench(c, "bounded_load_hash", BoundedLoadHash::new);
    let over_ring = || BoundedLoadHash::over(RingHash::new());
    bench(c, "bounded_load_hash_over_ring", over_ring);
    let over_rendezvous = || BoundedLoadHash::over(Rendezvous::new());
    bench(c, "bounded_load_hash_over_rendezvous", over_rendezvous);
}

fn bench<B: Balancer>(c: &mut Criterion, name: &str, balancer: impl Fn() -> B) {
    let runtime = Runtime::new().unwrap();
    for size in SIZES {
        let client = runtime.block_on(client(balancer(), size));
        let mut group = c.benchmark_group(format!("pick/{name}/{size}"));
        let mut key = 0_u64;
        // Keys as they come: every pick is another user's.
        let mut request = move || {
            key = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
            PickRequest::new().with_key(key)
        };
        group.bench_function("shared", |b| {
            b.iter_custom(|iterations| {
                checked(&client, iterations, || {
                    client
                        .pick(black_box(&request()))
                        .unwrap()
                        .finish(Outcome::Success);
                })
            });
        });
        let mut local = client.local();
        group.bench_function("local", |b| {
            b.iter_custom(|iterations| {
                checked(&client, iterations, || {
                    local
                        .pick(black_box(&request()))
                        .unwrap()
                        .finish(Outcome::Success);
                })
            });
        });
    }
}

/// A client of `size` members that have published loads.
async fn client(balancer: impl Balancer, size: usize) -> Client {
    let members = named(size);
    for (load, member) in (0_u64..).zip(&members) {
        member.load().store(load % 7, Timestamp::from_nanos(load));
    }
    let registry = ScriptedRegistry::with(&members);
    let builder = Client::builder(registry.arc(), "s").with_balancer(balancer);
    let client = builder.build().await.unwrap();
    assert_eq!(client.stats().eligible, size);
    client
}

/// Times `iterations` of `pick` and asserts that each was counted once and none is left over.
fn checked(client: &Client, iterations: u64, mut pick: impl FnMut()) -> Duration {
    let endpoints = client.endpoints();
    let served = || endpoints.iter().map(|e| e.successes()).sum::<u64>();
    let before = served();
    let start = Instant::now();
    for _ in 0..iterations {
        pick();
    }
    let elapsed = start.elapsed();
    assert_eq!(served() - before, iterations);
    assert!(endpoints.iter().all(|e| e.in_flight() == 0));
    elapsed
}

fn quick() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
}

criterion_group! { name = benches; config = quick(); targets = pick }
criterion_main!(benches);
