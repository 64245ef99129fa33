//! A balancer of one's own: everything goes to the first endpoint by id, and to the next one only
//! where that has been tried or is left out. A hot standby.
//!
//! ```text
//! cargo run --example own_balancer
//! ```

use std::error::Error;
use std::sync::Arc;

use plimsoll::{
    Balancer, Client, Endpoint, Endpoints, Instance, Outcome, PickContext, PickRequest, Picker,
    Registry, Result, registry_from_url,
};

#[derive(Debug)]
struct HotStandby;

impl Balancer for HotStandby {
    fn name(&self) -> &'static str {
        "hot_standby"
    }

    /// So the client does not follow what is published.
    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        Ok(Box::new(InOrder(Arc::clone(endpoints))))
    }
}

/// Endpoints come sorted by id.
#[derive(Debug)]
struct InOrder(Endpoints);

impl Picker for InOrder {
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        self.0.iter().find(|endpoint| !context.excludes(endpoint))
    }
}

#[tokio::main]
pub(crate) async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let registry = registry_from_url("memory://own-balancer")?;
    let mut registered = Vec::new();
    for (id, host) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
        let instance = Instance::builder("orders", host, 8080)
            .with_id(id)
            .build()?;
        registered.push(registry.register(instance).await?);
        registered[registered.len() - 1].ready().await?;
    }

    let client = Client::builder(registry, "orders")
        .with_balancer(HotStandby)
        .build()
        .await?;
    client.ready().await;
    let first = client.pick(&PickRequest::new())?;
    assert_eq!(first.endpoint().id().as_str(), "a");

    // A retry leaves out what it has tried.
    let tried = [Arc::clone(first.endpoint())];
    first.finish(Outcome::Failure);
    let second = client.pick(&PickRequest::new().with_excluded(&tried))?;
    assert_eq!(second.endpoint().id().as_str(), "b");
    Ok(())
}
