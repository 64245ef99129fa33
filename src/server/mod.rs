//! Serving connections, and saying so.

mod acceptor;
mod bind;
mod builder;
mod drain;
mod incoming;
mod pace;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use plimsoll_discovery_api::{Instance, LoadHandle, Registration, Registry, Result};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use self::bind::BindAddress;
pub use self::builder::ServerBuilder;
pub use self::drain::DrainReport;
pub use self::incoming::{DrainSignal, Incoming};

use crate::task::OwnedTask;

/// A TCP server that is registered at the address it is bound to, with the number of its open
/// connections as its load.
///
/// [`drain`](Self::drain) ends it without failing a request. Dropping it is abrupt: the listener
/// and every connection's task end at once, and the instance leaves the registry in the
/// background. None of its tasks outlives it.
#[derive(Debug)]
#[must_use = "dropping a server ends it"]
pub struct Server {
    /// One at least.
    registrations: Vec<Registration>,
    local_addr: SocketAddr,
    acceptor: OwnedTask<JoinSet<()>>,
    stop: oneshot::Sender<()>,
    draining: watch::Sender<bool>,
    timing: DrainTiming,
}

/// How long each step of a drain may take.
#[derive(Clone, Copy, Debug)]
struct DrainTiming {
    propagation_wait: Duration,
    timeout: Duration,
}

impl Server {
    /// Starts a server of `service`. Everything is checked in [`start`](ServerBuilder::start).
    ///
    /// The registry is one of its own, or an `Arc` of one that others use too.
    pub fn builder(registry: impl Registry, service: impl AsRef<str>) -> ServerBuilder {
        ServerBuilder::new(Arc::new(registry), service.as_ref())
    }

    /// The address it listens on; never port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What it says of itself in the registry; of several services, in the first.
    #[must_use]
    pub fn instance(&self) -> Arc<Instance> {
        self.registration().instance()
    }

    /// Its load: the number of open connections, and whatever else the program adds; of several
    /// services, that of the first.
    #[must_use]
    pub fn load(&self) -> LoadHandle {
        self.registration().load()
    }

    /// Its place in the registry: how it stands, and the way to change what it says of itself; of
    /// several services, in the first.
    pub fn registration(&self) -> &Registration {
        &self.registrations[0]
    }

    /// Its places in the registry, one for each service, in the order in which they were given.
    pub fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// Waits until it is in the registry with every service that it serves.
    ///
    /// # Cancel safety
    /// As [`Registration::ready`].
    ///
    /// # Errors
    /// As [`Registration::ready`], of whichever service has one first, whatever becomes of the others.
    pub async fn ready(&self) -> Result<()> {
        let mut under_way: Vec<_> = self
            .registrations
            .iter()
            .map(|registration| Box::pin(registration.ready()))
            .collect();
        poll_fn(|cx| {
            let mut failed = None;
            under_way.retain_mut(|ready| match ready.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(error)) => {
                    failed.get_or_insert(error);
                    false
                }
            });
            match failed {
                Some(error) => Poll::Ready(Err(error)),
                None if under_way.is_empty() => Poll::Ready(Ok(())),
                None => Poll::Pending,
            }
        })
        .await
    }
}
