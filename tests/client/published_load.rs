//! Loads are followed for those who use them.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::balancers::{
    LeastLoad, LeastRequest, OutlierEjection, Prequal, RoundRobin, SlowStart, Sticky,
};
use plimsoll::memory::MemoryRegistry;
use plimsoll::{Balancer, Client, ClientBuilder, Instance, Registry};
use tokio::time::sleep;

fn client(registry: &MemoryRegistry, balancer: impl Balancer) -> ClientBuilder {
    // A handle of its own, as another process has: handles share what they follow.
    Client::builder(Arc::new(registry.sibling()), "s").with_balancer(balancer)
}

fn load_seen_by(client: &Client) -> Option<u64> {
    let report = client.endpoints()[0].published_load();
    report.map(|report| report.load)
}

#[tokio::test(start_paused = true)]
async fn published_load_is_followed_only_where_it_is_used() {
    let registry = MemoryRegistry::new();
    let instance = Instance::builder("s", "10.0.0.1", 80).build().unwrap();
    let registration = registry.register(instance).await.unwrap();
    registration.ready().await.unwrap();

    let with = client(&registry, LeastLoad::new()).build().await.unwrap();
    let without = client(&registry, RoundRobin::new()).build().await.unwrap();
    let asked = client(&registry, RoundRobin::new()).with_published_load();
    let asked = asked.build().await.unwrap();
    for client in [&with, &without, &asked] {
        client.ready().await;
    }
    registration.load().set(5);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(load_seen_by(&with), Some(5));
    assert_eq!(load_seen_by(&asked), Some(5));
    assert_ne!(load_seen_by(&without), Some(5));
}

#[test]
fn a_wrapper_reads_the_load_if_what_it_wraps_does() {
    assert!(LeastLoad::new().reads_load() && Prequal::new().reads_load());
    assert!(!LeastRequest::new().reads_load() && !RoundRobin::new().reads_load());
    assert!(Sticky::new(LeastLoad::new()).reads_load());
    assert!(SlowStart::new(OutlierEjection::new(LeastLoad::new())).reads_load());
    assert!(!Sticky::new(LeastRequest::new()).reads_load());
    assert!(!SlowStart::new(OutlierEjection::new(RoundRobin::new())).reads_load());
}
