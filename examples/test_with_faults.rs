//! A test of how a program takes an outage, on the memory backend: nothing to install, every fault at
//! a word, and no waiting, as time is paused and passes when there is nothing to do.
//!
//! In a program it is a `#[tokio::test(start_paused = true)]`.
//!
//! ```text
//! cargo run --example test_with_faults
//! ```

use std::error::Error;
use std::time::Duration;

use plimsoll::memory::MemoryRegistry;
use plimsoll::{Client, Freshness, Instance, PickRequest, Registry};
use tokio::time::sleep;

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let registry = MemoryRegistry::new();
    let instance = Instance::builder("orders", "10.0.0.7", 8080).build()?;
    let registration = registry.register(instance).await?;
    registration.ready().await?;
    // What another process would have: nothing is shared but what the registry holds.
    let client = Client::builder(registry.sibling(), "orders")
        .build()
        .await?;
    client.ready().await;

    // The registry is gone for an hour. The client goes on with what it last knew, and says so.
    registry.faults().outage();
    sleep(Duration::from_secs(3600)).await;
    let snapshot = client.snapshot().expect("it has been ready");
    assert!(matches!(snapshot.freshness(), Freshness::Stale { .. }));
    assert!(client.pick(&PickRequest::new()).is_ok());

    // It comes back with nothing. Nobody is lost: who was there registers again.
    registry.faults().restore();
    registry.faults().wipe();
    sleep(Duration::from_secs(60)).await;
    let snapshot = client.snapshot().expect("it has been ready");
    assert_eq!(snapshot.freshness(), Freshness::Live);
    assert_eq!(snapshot.members().len(), 1);

    // A departure takes effect at once.
    registration.deregister().await?;
    sleep(Duration::from_secs(1)).await;
    assert!(client.pick(&PickRequest::new()).is_err());
    Ok(())
}
