//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use plimsoll_discovery_api::{LoadGuard, LoadHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};

use super::pace::{Pace, is_peers_fault};
use super::{DrainSignal, Incoming};

/// Hands connections to the handler, each counted and in a task of its own.
#[derive(Debug)]
pub(super) struct Reception<H> {
    pub(super) handler: Arc<H>,
    /// Of every service that is served.
    pub(super) loads: Vec<LoadHandle>,
    pub(super) drain: DrainSignal,
}

impl<H, Fut> Reception<H>
where
    H: Fn(Incoming) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    /// Accepts until `stop` says so, and returns the handlers that are still running. Dropping
    /// it closes the listener and ends every handler.
    pub(super) async fn run(
        self,
        listener: TcpListener,
        mut stop: oneshot::Receiver<()>,
    ) -> JoinSet<()> {
        let mut handlers = JoinSet::new();
        let mut pace = Pace::default();
        loop {
            tokio::select! {
                (stream, peer) = pace.accept(|| listener.accept()) => {
                    self.receive(&mut handlers, stream, peer);
                }
                Some(ended) = handlers.join_next() => log_panic(ended),
                _ = &mut stop => break,
            }
        }
        let queued = take_queue(listener, |stream, peer| {
            self.receive(&mut handlers, stream, peer)
        });
        if let Err(error) = queued {
            tracing::error!(%error, "connections in the listener's queue may have been reset");
        }
        handlers
    }

    fn receive(&self, handlers: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        let guards = self.loads.iter().map(LoadHandle::acquire);
        let Some(guard) = guards.reduce(LoadGuard::and) else {
            // A server has a service.
            return;
        };
        let (guard, drain) = (Arc::new(guard), self.drain.clone());
        let counted = Arc::clone(&guard);
        let incoming = Incoming {
            stream,
            peer,
            guard,
            drain,
        };
        let handler = Arc::clone(&self.handler);
        handlers.spawn(async move {
            handler(incoming).await;
            drop(counted);
        });
    }
}

/// Closes `listener` after taking in whom the kernel has already let in, who would be reset.
///
/// The runtime is not asked: it learns of a connection later than the kernel has it.
fn take_queue(
    listener: TcpListener,
    mut take: impl FnMut(TcpStream, SocketAddr),
) -> io::Result<()> {
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                take(TcpStream::from_std(stream)?, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's handler panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use plimsoll_discovery_api::{Flush, LoadGauge, Result};
    use tokio::sync::watch;

    use super::*;

    #[derive(Debug)]
    struct Nowhere;

    #[async_trait::async_trait]
    impl Flush for Nowhere {
        async fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn whoever_is_in_the_queue_when_accepting_ends_is_served() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let load = LoadHandle::new(Arc::new(LoadGauge::new()), Arc::new(Nowhere));
        let (_sender, drain) = watch::channel(false);
        let handler = Arc::new(async |incoming: Incoming| {
            std::future::pending::<()>().await;
            drop(incoming);
        });
        let (stop, stopped) = oneshot::channel();
        let drain = DrainSignal(drain);
        let reception = Reception {
            handler,
            loads: vec![load.clone()],
            drain,
        };
        // No more than the queue holds where the kernel bounds it to 128.
        let connect = |_| std::net::TcpStream::connect(address).unwrap();
        let clients: Vec<_> = (0..100).map(connect).collect();
        stop.send(()).unwrap();
        let handlers = reception.run(listener, stopped).await;
        assert_eq!((handlers.len(), load.current()), (clients.len(), 100));
        drop(handlers);
        while load.current() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
