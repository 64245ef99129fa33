//! Following the changes of one service.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{Change, Interest, Update, Updates};
use plimsoll_discovery_api::{Error, ErrorKind, Result, ServiceName};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::plan::{Mode, unreachable};
use crate::store::Store;

/// How often a quiet stream says where the history stands, which shows a dropped change.
const PROGRESS: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct StoreUpdates {
    store: Arc<Store>,
    service: ServiceName,
    interest: Interest,
    events: broadcast::Receiver<Update>,
    mode: watch::Receiver<Mode>,
    /// Received but not yet to be told.
    held: Option<(Instant, Update)>,
}

impl StoreUpdates {
    pub(crate) fn new(
        store: Arc<Store>,
        service: ServiceName,
        interest: Interest,
        events: broadcast::Receiver<Update>,
    ) -> Self {
        let mode = store.mode.subscribe();
        Self {
            store,
            service,
            interest,
            events,
            mode,
            held: None,
        }
    }

    async fn receive(&mut self) -> Option<Result<Update>> {
        if self.held.is_none() {
            let update = match self.events.recv().await {
                Ok(update) => update,
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(missed)) => {
                    let error = Error::new(ErrorKind::Unavailable, "fell behind the changes");
                    return Some(Err(error.with_context("missed", missed.to_string())));
                }
            };
            let delay = self.store.lock().plan.event_delay;
            self.held = Some((Instant::now() + delay, update));
        }
        let until = self.held.as_ref().map(|(at, _)| *at)?;
        if until > Instant::now() {
            sleep_until(until).await;
        }
        let (_, mut update) = self.held.take()?;
        if self.interest == Interest::Members && matches!(update.change, Change::Load { .. }) {
            // As a registry with a stream of its own for the loads: there is none.
            update.change = Change::Progress;
        }
        Some(Ok(update))
    }

    /// Where the history stands, unless there is something to tell first.
    fn progress(&self) -> Option<Update> {
        let content = self.store.lock();
        let quiet = self.events.is_empty() && self.held.is_none();
        let revision = content.revision(&self.service);
        quiet.then(|| Update::new(revision, Change::Progress).following(revision.counter()))
    }
}

#[async_trait]
impl Updates for StoreUpdates {
    async fn next(&mut self) -> Option<Result<Update>> {
        loop {
            let mode = *self.mode.borrow_and_update();
            match mode {
                Mode::Up => {}
                Mode::Down => return Some(Err(unreachable())),
                Mode::Hung => {
                    self.mode.changed().await.ok()?;
                    continue;
                }
            }
            let mut mode = self.mode.clone();
            tokio::select! {
                changed = mode.changed() => changed.ok()?,
                update = self.receive() => return update,
                () = sleep(PROGRESS) => if let Some(progress) = self.progress() {
                    return Some(Ok(progress));
                },
            }
        }
    }
}
