//! Knowing when the last handle is gone.

use std::sync::Arc;

use tokio::sync::watch;

/// Held by everything a user holds; background work that outlives its own handle (a removal that
/// the registry has not confirmed) goes on only while somebody holds one.
#[derive(Clone, Debug)]
pub(crate) struct HandleGuard(Arc<watch::Sender<()>>);

impl HandleGuard {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(())))
    }

    pub(crate) fn end(&self) -> HandlesGone {
        HandlesGone(self.0.subscribe())
    }
}

/// Sees the last [`HandleGuard`] go.
#[derive(Clone, Debug)]
pub(crate) struct HandlesGone(watch::Receiver<()>);

impl HandlesGone {
    /// Returns once the last one is gone. Cancel safe.
    pub(crate) async fn reached(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}
