//! Following one service.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::{Error, Snapshot};

/// Follows one service: the present set first, then each later state.
///
/// Level-triggered: a reader that is slow sees the latest state and skips those between, so memory
/// stays bounded however slow it is. Each clone reads at its own pace; all of one process share
/// what the backend keeps for the service, which stops when the last one is dropped.
#[derive(Clone)]
pub struct Watch {
    states: watch::Receiver<Option<Arc<Snapshot>>>,
    errors: watch::Receiver<Option<Error>>,
    /// Dropping the last clone of this stops what feeds `states`.
    _source: Arc<dyn Any + Send + Sync>,
}

impl Watch {
    /// For backends: a watch on `states`, which is fed for as long as `source` is held.
    #[must_use]
    pub fn new(
        mut states: watch::Receiver<Option<Arc<Snapshot>>>,
        source: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        // A receiver made later than the first snapshot must still yield it.
        states.mark_changed();
        Self {
            states,
            errors: watch::channel(None).1,
            _source: source,
        }
    }

    /// For backends: the same, telling of `errors`: the error of each attempt that fails, and none
    /// once one succeeds.
    #[must_use]
    pub fn with_errors(mut self, mut errors: watch::Receiver<Option<Error>>) -> Self {
        errors.mark_changed();
        self.errors = errors;
        self
    }

    /// Waits for a state that this reader has not seen, and returns the latest.
    ///
    /// While the registry has never been reached it waits; when contact is lost it returns the
    /// last good snapshot marked [`Stale`](crate::Freshness::Stale).
    ///
    /// Returns `None` once the backend has stopped for good, or the runtime has ended in which the watch
    /// was begun; the last state before that is stale.
    ///
    /// Where a stream is wanted, as by combinators: `futures::stream::unfold(watch, |mut watch| async
    /// move { Some((watch.next().await?, watch)) })`.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Arc<Snapshot>> {
        loop {
            self.states.changed().await.ok()?;
            let state = self.states.borrow_and_update().clone();
            if state.is_some() {
                return state;
            }
        }
    }

    /// The latest state, seen or not; `None` while the registry has never been reached.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.states.borrow().clone()
    }

    /// The error of the latest attempt to reach the registry; `None` once one has succeeded, and
    /// before the first has ended.
    ///
    /// While there is no snapshot yet it says what is waited for, and while the latest one is
    /// [`Stale`](crate::Freshness::Stale), why it still is.
    #[must_use]
    pub fn last_error(&self) -> Option<Error> {
        self.errors.borrow().clone()
    }

    /// Waits until an attempt to reach the registry has failed that this reader has not seen, and
    /// returns its error. A backend that tells of no errors lets it wait.
    ///
    /// Returns `None` once the backend has stopped for good.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next_error(&mut self) -> Option<Error> {
        while self.errors.changed().await.is_ok() {
            let error = self.errors.borrow_and_update().clone();
            if error.is_some() {
                return error;
            }
        }
        // Nobody will tell of an error any more, but states may be told of yet; those end with an error.
        let mut states = self.states.clone();
        drop(states.wait_for(|_| false).await);
        None
    }

    /// Waits until the latest state satisfies `wanted`, and returns it.
    ///
    /// Returns `None` once the backend has stopped for good.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn wait_for(
        &mut self,
        mut wanted: impl FnMut(&Snapshot) -> bool + Send,
    ) -> Option<Arc<Snapshot>> {
        let matches = |state: &Option<Arc<Snapshot>>| state.as_deref().is_some_and(&mut wanted);
        self.states.wait_for(matches).await.ok()?.clone()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("latest", &self.latest())
            .field("last_error", &self.last_error())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::{ErrorKind, Revision};

    type States = watch::Sender<Option<Arc<Snapshot>>>;

    fn bare() -> (States, Watch) {
        let (states, followed) = watch::channel(None);
        (states, Watch::new(followed, Arc::new(())))
    }

    fn publish(states: &States) {
        let service = "s".parse().unwrap();
        let snapshot = Snapshot::new(service, [], Revision::default());
        states.send_replace(Some(Arc::new(snapshot)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_tells_of_no_errors_ends_with_its_states() {
        let (states, mut watch) = bare();
        let waits = std::time::Duration::from_secs(60);
        for _ in 0..2 {
            assert!(timeout(waits, watch.next_error()).await.is_err());
            publish(&states);
        }
        assert!(watch.next().await.is_some(), "waiting took no state");
        drop(states);
        assert!(watch.next_error().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_told_after_its_sender_is_gone() {
        let (states, watch) = bare();
        let (errors, told) = watch::channel(None);
        let mut watch = watch.with_errors(told);
        errors.send_replace(Some(Error::new(ErrorKind::Unavailable, "x")));
        drop((errors, states));
        let error = watch.next_error().await;
        assert_eq!(error.map(|e| e.kind()), Some(ErrorKind::Unavailable));
        assert!(watch.next_error().await.is_none());
    }
}
