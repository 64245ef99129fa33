//! A program that accepts by itself: it registers the address that it listens on, and counts what it
//! serves by a guard for each connection.
//!
//! ```text
//! cargo run --example own_listener
//! ```

use std::error::Error;

use plimsoll::{Client, Instance, Registry, registry_from_url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let registry = registry_from_url("memory://own-listener")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    // What is registered stays so, whatever the registry goes through, until it is deregistered.
    let instance =
        Instance::builder("greeter", address.ip().to_string(), address.port()).build()?;
    let registration = registry.register(instance).await?;
    let load = registration.load();
    let accepting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Counted until it is dropped, however the connection ends.
            let guard = load.acquire();
            tokio::spawn(async move {
                let _ = stream.write_all(b"hello").await;
                drop(guard);
            });
        }
    });
    registration.ready().await?;

    let client = Client::builder(registry, "greeter").build().await?;
    client.ready().await;
    let mut greeting = String::new();
    client
        .connect()
        .await?
        .read_to_string(&mut greeting)
        .await?;
    assert_eq!(greeting, "hello");

    // Clients are told at once. Then nobody new comes, and the listener may be closed.
    registration.deregister().await?;
    accepting.abort();
    Ok(())
}
