//! A stream of changes that its reader keeps going.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use plimsoll_discovery_api::{Error, Result};
use tokio::sync::mpsc;

use crate::{Update, Updates};

type Following = Pin<Box<dyn Future<Output = Error> + Send>>;

/// What `follow` tells, and then why it has ended.
///
/// It runs within the task that reads the stream and nowhere else, so a change takes no way from
/// one thread to another, and dropping the stream ends all of it. Whoever follows holds no more than
/// the channel does: further changes are gathered where they come from.
pub struct DrivenUpdates {
    changes: mpsc::Receiver<Update>,
    follow: Option<Following>,
    cause: Option<Error>,
}

impl DrivenUpdates {
    /// `follow` tells of changes through the sender of `changes`, which it owns.
    #[must_use]
    pub fn new(
        changes: mpsc::Receiver<Update>,
        follow: impl Future<Output = Error> + Send + 'static,
    ) -> Self {
        Self {
            changes,
            follow: Some(Box::pin(follow)),
            cause: None,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update>>> {
        if let Poll::Ready(Some(update)) = self.changes.poll_recv(cx) {
            return Poll::Ready(Some(Ok(update)));
        }
        if let Some(follow) = &mut self.follow
            && let Poll::Ready(cause) = follow.as_mut().poll(cx)
        {
            self.follow = None;
            self.cause = Some(cause);
        }
        // What it has told, and the sender is dropped with it.
        match self.changes.poll_recv(cx) {
            Poll::Ready(Some(update)) => Poll::Ready(Some(Ok(update))),
            Poll::Ready(None) => Poll::Ready(self.cause.take().map(Err)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl fmt::Debug for DrivenUpdates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrivenUpdates")
            .field("waiting", &self.changes.len())
            .field("ended", &self.follow.is_none())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Updates for DrivenUpdates {
    async fn next(&mut self) -> Option<Result<Update>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use plimsoll_discovery_api::{ErrorKind, Revision};
    use tokio::task::yield_now;

    use super::*;
    use crate::Change;

    fn update(counter: u64) -> Update {
        Update::new(Revision::new(1, counter), Change::Progress)
    }

    async fn counters(stream: &mut DrivenUpdates) -> (Vec<u64>, Option<ErrorKind>) {
        let mut counters = Vec::new();
        loop {
            match stream.next().await {
                Some(Ok(update)) => counters.push(update.revision.counter()),
                Some(Err(cause)) => return (counters, Some(cause.kind())),
                None => return (counters, None),
            }
        }
    }

    #[tokio::test]
    async fn everything_is_told_in_order_and_then_the_cause_of_the_end() {
        let (sender, changes) = mpsc::channel(2);
        let mut stream = DrivenUpdates::new(changes, async move {
            for counter in 1..=20 {
                if counter % 3 == 0 {
                    yield_now().await;
                }
                sender.send(update(counter)).await.unwrap();
            }
            Error::new(ErrorKind::Unavailable, "over")
        });
        let (told, cause) = counters(&mut stream).await;
        assert_eq!(told, (1..=20).collect::<Vec<_>>());
        assert_eq!(cause, Some(ErrorKind::Unavailable));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn giving_up_a_read_loses_nothing() {
        let (sender, changes) = mpsc::channel(2);
        let mut stream = DrivenUpdates::new(changes, async move {
            for counter in 1..=20 {
                yield_now().await;
                sender.send(update(counter)).await.unwrap();
                yield_now().await;
            }
            Error::new(ErrorKind::Unavailable, "over")
        });
        let mut told = Vec::new();
        loop {
            let next = tokio::select! {
                biased;
                next = stream.next() => next,
                () = yield_now() => continue,
            };
            match next {
                Some(Ok(update)) => told.push(update.revision.counter()),
                _ => break,
            }
        }
        assert_eq!(told, (1..=20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_is_not_read_is_not_made_and_dropping_ends_it() {
        let (sender, changes) = mpsc::channel(2);
        let made = Arc::new(AtomicU64::new(0));
        let making = Arc::clone(&made);
        let mut stream = DrivenUpdates::new(changes, async move {
            loop {
                let counter = making.fetch_add(1, Ordering::Relaxed) + 1;
                if sender.send(update(counter)).await.is_err() {
                    return Error::new(ErrorKind::Closed, "nobody reads");
                }
            }
        });
        assert_eq!(stream.next().await.unwrap().unwrap().revision.counter(), 1);
        yield_now().await;
        assert!(made.load(Ordering::Relaxed) <= 4);
        drop(stream);
        assert_eq!(Arc::strong_count(&made), 1);
    }
}
