//! One handle on the registry for all that a program does: two servers and two clients share its
//! connection, its lease, and what it follows.
//!
//! ```text
//! cargo run --example shared_registry
//! cargo run --example shared_registry --features etcd -- etcd://127.0.0.1:2379/mine
//! ```

use std::error::Error;
use std::sync::Arc;

use plimsoll::{Client, Incoming, Registry, Server, registry_from_url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1);
    run(url.as_deref().unwrap_or("memory://shared")).await
}

pub(crate) async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    // `Server` and `Client` take a registry by value, or an `Arc` of one that others use too. One that
    // is built by hand, such as an `EtcdRegistry`, is cloned instead: clones are one handle.
    let registry: Arc<dyn Registry> = registry_from_url(url)?;
    let mut servers = Vec::new();
    for service in ["orders", "users"] {
        let answer = move |mut incoming: Incoming| async move {
            let _ = incoming.stream.write_all(service.as_bytes()).await;
        };
        servers.push(
            Server::builder(Arc::clone(&registry), service)
                .start(answer)
                .await?,
        );
    }
    for (server, service) in servers.iter().zip(["orders", "users"]) {
        server.ready().await?;
        let client = Client::builder(Arc::clone(&registry), service)
            .build()
            .await?;
        client.ready().await;
        let mut answer = String::new();
        client.connect().await?.read_to_string(&mut answer).await?;
        assert_eq!(answer, service);
    }
    let mut services = registry.services().await?;
    services.sort();
    assert_eq!(services.len(), 2);

    // The connection ends with the last handle; what was registered is gone before.
    for server in servers {
        server.drain().await;
    }
    Ok(())
}
