//! What a handler is given.

use std::net::SocketAddr;
use std::sync::Arc;

use plimsoll_discovery_api::LoadGuard;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// An accepted connection, counted in the server's load.
///
/// It counts until the handler has ended, a panic included, and nobody holds `guard` any more: a
/// closure of which only the stream is used (`async move` takes no more than that) is counted all
/// the same, and whoever moves the stream elsewhere moves the guard along.
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The connection.
    pub stream: TcpStream,
    /// Who opened it.
    pub peer: SocketAddr,
    /// Its part of the server's load, in every service that it serves.
    pub guard: Arc<LoadGuard>,
    /// Tells when the server wants its connections to end.
    pub drain: DrainSignal,
}

/// Tells a handler that the server [is draining](crate::Server::drain) and has stopped accepting:
/// it is time to finish the request under way, and to close a connection that is kept open for
/// further ones.
#[derive(Clone, Debug)]
pub struct DrainSignal(pub(super) watch::Receiver<bool>);

impl DrainSignal {
    /// Whether it is time.
    #[must_use]
    pub fn is_given(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is time.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn given(&mut self) {
        // A server that is gone without draining has ended its handlers; what they have moved
        // elsewhere is told as well.
        let _gone = self.0.wait_for(|given| *given).await;
    }
}
