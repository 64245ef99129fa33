//! Connecting by name: no address of a name waits behind one that is silent.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// From the start of one attempt to that of the next, as
/// [RFC 8305 section 5](https://www.rfc-editor.org/rfc/rfc8305#section-5) recommends.
const DELAY: Duration = Duration::from_millis(250);
/// Section 5 forbids less.
const SHORTEST_DELAY: Duration = Duration::from_millis(10);

/// The addresses of `authority`, which is `host:port` or `[v6]:port`, in the order in which to try
/// them: the system's, with the families taking turns from the first one on
/// ([RFC 8305 section 4](https://www.rfc-editor.org/rfc/rfc8305#section-4)), each once.
///
/// # Cancel safety
/// If the future is dropped, the system's look-up runs to its end on a thread of the runtime, and
/// its answer is dropped.
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) with the system's error as its source, or if the name
/// has no address.
pub async fn addresses(authority: &str) -> Result<Vec<SocketAddr>> {
    resolved(&System, authority).await
}

/// Opens a TCP connection to `authority`, which is `host:port` or `[v6]:port`, within `limit`, the
/// resolution of its name included.
///
/// The addresses of a name are tried as RFC 8305 (Happy Eyeballs) has it: the next one as soon as
/// the one before has failed, or 250 ms after it was begun, beside it; the first to answer is
/// taken and the others are given up. Where `limit` leaves no room for that, attempts follow each
/// other faster, down to one in 10 ms, so that all have begun by half of it.
///
/// # Cancel safety
/// If the future is dropped, so are all attempts.
///
/// # Errors
/// [`TimedOut`](ErrorKind::TimedOut) if the time was up, or the last attempt to fail timed out by
/// itself; else [`Unavailable`](ErrorKind::Unavailable). The source is the error of the last
/// attempt to fail; `tried` tells, of several addresses, how each ended.
pub async fn dial(authority: &str, limit: Duration) -> Result<TcpStream> {
    dial_by(&System, authority, limit).await
}

/// The [`addresses`] of `authority`, with the first to answer first: for client libraries that
/// connect by themselves, and would spend their time on one that is silent.
///
/// A single address is not connected to. Of several, a connection is made as [`dial`] makes it,
/// and closed again.
///
/// # Cancel safety
/// As [`dial`].
///
/// # Errors
/// As [`dial`].
pub async fn reachable(authority: &str, limit: Duration) -> Result<Vec<SocketAddr>> {
    reachable_by(&System, authority, limit).await
}

/// What connecting takes of the world outside.
trait Network: Sync {
    type Stream: Send;

    fn resolve(&self, authority: &str) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    fn connect(&self, address: SocketAddr)
    -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// The operating system's.
struct System;

impl Network for System {
    type Stream = TcpStream;

    async fn resolve(&self, authority: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host(authority).await?.collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// One limit for all that is done.
struct Time {
    limit: Duration,
    /// `None` where the limit is beyond what can be told.
    end: Option<Instant>,
}

impl Time {
    fn within(limit: Duration) -> Self {
        let end = Instant::now().checked_add(limit);
        Self { limit, end }
    }

    /// Between the starts of two of `count` attempts.
    fn delay(&self, count: usize) -> Duration {
        let Some(end) = self.end else {
            return DELAY;
        };
        let half = end.saturating_duration_since(Instant::now()) / 2;
        let share = half / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        share.clamp(SHORTEST_DELAY, DELAY)
    }

    /// Waits for the end.
    async fn up(&self) {
        match self.end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    }

    fn late(&self) -> Error {
        Error::new(ErrorKind::TimedOut, "the connection was not made in time")
            .with_context("limit", format!("{:?}", self.limit))
    }
}

async fn dial_by<N: Network>(network: &N, authority: &str, limit: Duration) -> Result<N::Stream> {
    let time = Time::within(limit);
    let addresses = resolved_in(&time, network, authority).await?;
    let raced = race(network, &addresses, &time).await;
    raced
        .map(|(_, stream)| stream)
        .map_err(|e| named(e, authority))
}

async fn reachable_by<N: Network>(
    network: &N,
    authority: &str,
    limit: Duration,
) -> Result<Vec<SocketAddr>> {
    let time = Time::within(limit);
    let mut addresses = resolved_in(&time, network, authority).await?;
    if addresses.len() > 1 {
        let raced = race(network, &addresses, &time).await;
        let (first, _closed) = raced.map_err(|e| named(e, authority))?;
        // Stable: the others keep their order.
        addresses.sort_by_key(|address| *address != first);
    }
    Ok(addresses)
}

fn named(error: Error, authority: &str) -> Error {
    error
        .with_operation("connect")
        .with_context("to", authority)
}

async fn resolved_in<N: Network>(
    time: &Time,
    network: &N,
    authority: &str,
) -> Result<Vec<SocketAddr>> {
    tokio::select! {
        biased;
        found = resolved(network, authority) => found,
        () = time.up() => Err(time.late().with_context("phase", "resolving the name")),
    }
    .map_err(|e| named(e, authority))
}

async fn resolved<N: Network>(network: &N, authority: &str) -> Result<Vec<SocketAddr>> {
    let unknown = |why| Error::new(ErrorKind::Unavailable, why);
    let found = network
        .resolve(authority)
        .await
        .map_err(|error| unknown("the name was not resolved").with_source(error))?;
    if found.is_empty() {
        return Err(unknown("the name has no address"));
    }
    Ok(interleaved(found))
}

/// The families take turns, each in the order in which its addresses came.
fn interleaved(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut distinct: Vec<SocketAddr> = Vec::with_capacity(found.len());
    for address in found {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    let Some(first) = distinct.first().copied() else {
        return distinct;
    };
    let (preferred, other): (Vec<_>, Vec<_>) = distinct
        .into_iter()
        .partition(|address| address.is_ipv4() == first.is_ipv4());
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut order = Vec::with_capacity(preferred.len() + other.len());
    while preferred.len() + other.len() > 0 {
        order.extend(preferred.next());
        order.extend(other.next());
    }
    order
}

type Attempt<'a, S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send + 'a>>;

/// Attempts under way, and how the others ended.
struct Race<'a, S> {
    under_way: Vec<(SocketAddr, Attempt<'a, S>)>,
    failed: Vec<(SocketAddr, io::Error)>,
}

async fn race<N: Network>(
    network: &N,
    addresses: &[SocketAddr],
    time: &Time,
) -> Result<(SocketAddr, N::Stream)> {
    let delay = time.delay(addresses.len());
    let mut waiting = addresses.iter().copied();
    let mut race = Race {
        under_way: Vec::new(),
        failed: Vec::new(),
    };
    let mut next = Instant::now();
    loop {
        let (is_idle, is_more) = (race.under_way.is_empty(), waiting.len() > 0);
        if is_idle && !is_more {
            return Err(race.lost());
        }
        tokio::select! {
            biased;
            ended = race.next(), if !is_idle => match ended {
                (address, Ok(stream)) => return Ok((address, stream)),
                (address, Err(error)) => {
                    race.failed.push((address, error));
                    next = Instant::now();
                }
            },
            () = time.up() => return Err(race.late(time)),
            () = sleep_until(next), if is_more => {
                if let Some(address) = waiting.next() {
                    race.under_way.push((address, Box::pin(network.connect(address))));
                }
                next = Instant::now() + delay;
            }
        }
    }
}

impl<S> Race<'_, S> {
    /// The attempt that ends next, which is then no longer under way.
    async fn next(&mut self) -> (SocketAddr, io::Result<S>) {
        poll_fn(|cx| {
            for (index, (address, attempt)) in self.under_way.iter_mut().enumerate() {
                if let Poll::Ready(result) = attempt.as_mut().poll(cx) {
                    let address = *address;
                    drop(self.under_way.remove(index));
                    return Poll::Ready((address, result));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Every attempt has failed.
    fn lost(mut self) -> Error {
        let tried = self.tried();
        let Some((_, last)) = self.failed.pop() else {
            return Error::new(ErrorKind::Unavailable, "there is no address to connect to");
        };
        let kind = match last.kind() {
            io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Unavailable,
        };
        let error = Error::new(kind, "the connection was not made").with_source(last);
        with_tried(error, tried)
    }

    /// The time is up.
    fn late(mut self, time: &Time) -> Error {
        let error = with_tried(time.late(), self.tried());
        match self.failed.pop() {
            Some((_, last)) => error.with_source(last),
            None => error,
        }
    }

    /// How each attempt ended, where there was more than one.
    fn tried(&self) -> Option<String> {
        if self.failed.len() + self.under_way.len() < 2 {
            return None;
        }
        let failed = self.failed.iter().map(|(address, error)| {
            let how: &dyn fmt::Display = error;
            format!("{address} ({how})")
        });
        let silent = self.under_way.iter();
        let silent = silent.map(|(address, _)| format!("{address} (no answer)"));
        Some(failed.chain(silent).collect::<Vec<_>>().join(", "))
    }
}

fn with_tried(error: Error, tried: Option<String>) -> Error {
    match tried {
        Some(tried) => error.with_context("tried", tried),
        None => error,
    }
}

#[cfg(test)]
mod tests;
