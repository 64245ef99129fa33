//! A process that registers one instance, and publishes a load that grows by one ten times a
//! second.
//!
//! ```text
//! cargo run -p plimsoll-backend-etcd --example provider -- etcd://127.0.0.1:2379/mine orders a
//! ```
//!
//! It prints every state of its registration, and runs until it is killed.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::time::Duration;

use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{Instance, Registry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [url, service, id] = arguments.as_slice() else {
        return Err("usage: provider URL SERVICE ID".into());
    };
    let registry = EtcdRegistry::from_url(&url.parse()?)?;
    let instance = Instance::builder(service, "127.0.0.1", 8080).with_id(id);
    let registration = registry.register(instance.build()?).await?;
    let load = registration.load();
    let mut states = registration.states();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    println!("{:?}", states.current());
    loop {
        tokio::select! {
            state = states.next() => match state {
                Some(state) => println!("{state:?}"),
                None => return Ok(()),
            },
            _ = tick.tick() => load.increase(1),
        }
    }
}
