//! What a server promises, over real sockets on the loopback interface.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

#[path = "server/drain.rs"]
mod drain;
#[cfg(feature = "memory")]
#[path = "server/end_to_end.rs"]
mod end_to_end;
#[path = "server/serving.rs"]
mod serving;
#[path = "server/start.rs"]
mod start;

use std::net::SocketAddr;

use plimsoll::{Incoming, Server, ServerBuilder};
use support::ScriptedRegistry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn server_of(registry: &ScriptedRegistry) -> ServerBuilder {
    Server::builder(registry.arc(), "s").with_id("a")
}

/// Sends back what it receives until the other side ends.
async fn echo(mut incoming: Incoming) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = incoming.stream.read(&mut buffer).await {
        if incoming.stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// One byte there and back.
async fn ping(stream: &mut TcpStream) -> std::io::Result<u8> {
    stream.write_u8(7).await?;
    stream.read_u8().await
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}
