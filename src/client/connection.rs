//! A connection that counts.

use std::io::{self, IoSlice};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use plimsoll_discovery_api::{Endpoint, Outcome};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::TimedPick;

/// A TCP connection to a picked endpoint; counts as one request in flight there until it is
/// dropped.
///
/// Read and write it like the stream it holds. Dropping it reports a success, or a failure if
/// reading or writing failed on the way: what the endpoint's statistics learn is whether
/// connections to it hold. One that is dropped while its first byte is waited for counts as
/// cancelled after that time: several such in a row, while others answer, and the endpoint is
/// [left out](super::FailureAccrual).
#[derive(Debug)]
#[must_use = "the connection is closed as soon as it is dropped"]
pub struct Connection {
    stream: TcpStream,
    /// `None` only while it is being dropped.
    pick: Option<TimedPick>,
    endpoint: Arc<Endpoint>,
    failed: bool,
    /// Whether anything, be it the end, has been read.
    answered: bool,
    /// Whether anybody has had to wait for something to read.
    awaited: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, mut pick: TimedPick) -> Self {
        let endpoint = Arc::clone(pick.endpoint());
        // Whoever could not be reached, and did not fail otherwise, is back. Whoever did not answer
        // may still not: the kernel accepts connections for a process that stands still.
        let is_reached = endpoint.consecutive_failures() == endpoint.unreachable();
        if is_reached && endpoint.given_up().is_none() {
            pick.answered();
        }
        Self {
            stream,
            endpoint,
            pick: Some(pick),
            failed: false,
            answered: false,
            awaited: false,
        }
    }

    /// The endpoint it leads to.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    fn note<T>(&mut self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.failed |= matches!(done, Poll::Ready(Err(_)));
        done
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(pick) = self.pick.take() else {
            return;
        };
        if self.failed {
            pick.finish_untimed(Outcome::Failure);
        } else if self.awaited && !self.answered {
            pick.finish(Outcome::Cancelled);
        } else {
            pick.finish_untimed(Outcome::Success);
        }
    }
}

/// For what can be asked of a stream and set on it, such as its addresses and `set_nodelay`.
impl Deref for Connection {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if done.is_pending() {
            self.awaited = true;
        } else if !self.answered && matches!(done, Poll::Ready(Ok(()))) {
            self.answered = true;
            if let Some(pick) = &mut self.pick {
                pick.answered();
            }
        }
        self.note(done)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.note(done)
    }
}
