//! The task: list, follow, and start again.

use std::sync::Arc;

use plimsoll_discovery_api::{
    Error, ErrorKind, Freshness, Result, Rng, ServiceName, Snapshot, Timestamp,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::table::{Applied, Table};
use crate::backoff::{Attempts, PERMANENT_RETRY};
use crate::due::due;
use crate::reconciler::bounded;
use crate::{Driver, Interest, Timings, Updates};

/// A registry that keeps answering with an older state of the same history was itself set back,
/// and is believed after this many answers; a single lagging replica is not.
const OLDER_LISTINGS_BELIEVED: u32 = 3;

pub(super) struct Task<D> {
    driver: Arc<D>,
    timings: Timings,
    service: ServiceName,
    interest: watch::Receiver<Interest>,
    state: watch::Sender<Option<Arc<Snapshot>>>,
    table: Table,
    rng: Rng,
    attempts: Attempts,
    /// When the registry was last heard.
    heard: Instant,
    published: Option<Instant>,
    older_listings: u32,
}

impl<D: Driver> Task<D> {
    pub(super) fn new(
        driver: Arc<D>,
        service: ServiceName,
        interest: watch::Receiver<Interest>,
        state: watch::Sender<Option<Arc<Snapshot>>>,
        rng: Rng,
    ) -> Self {
        let timings = driver.timings();
        Self {
            driver,
            timings,
            table: Table::new(service.clone(), timings.hold_down),
            service,
            interest,
            state,
            rng,
            attempts: Attempts::new(timings.backoff),
            heard: Instant::now(),
            published: None,
            older_listings: 0,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let cause = match self.subscribe().await {
                Ok(updates) => {
                    self.attempts.succeeded();
                    match self.follow(updates).await {
                        End::Failed(cause) => cause,
                        End::Outgrown => continue,
                    }
                }
                Err(cause) => cause,
            };
            let mut delay = self.attempts.failed(&mut self.rng);
            if !cause.is_retryable() {
                delay = delay.max(PERMANENT_RETRY);
            }
            tracing::debug!(service = %self.service, %cause, ?delay, "not followed; listing again");
            self.show_stale();
            sleep(delay).await;
        }
    }

    async fn subscribe(&mut self) -> Result<Box<dyn Updates>> {
        let interest = *self.interest.borrow_and_update();
        let call = self.driver.subscribe(&self.service, interest);
        let subscription = bounded(self.timings.list_timeout, call).await?;
        let listing = subscription.listing;
        if listing.revision.is_before(self.table.revision()) {
            self.older_listings += 1;
            if self.older_listings < OLDER_LISTINGS_BELIEVED {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the registry's answer is out of date",
                )
                .with_context("revision", listing.revision.to_string())
                .with_context("seen", self.table.revision().to_string()));
            }
        }
        self.older_listings = 0;
        let now = Instant::now();
        self.table
            .returned_after(now.duration_since(self.heard), now);
        self.heard = now;
        if self.table.list(listing, now) || !self.shows_live() {
            self.show(Freshness::Live);
        }
        Ok(subscription.updates)
    }

    /// Follows until the stream ends or is not enough any more.
    async fn follow(&mut self, mut updates: Box<dyn Updates>) -> End {
        let mut to_show: Option<Instant> = None;
        loop {
            let idle = self.timings.idle.map(|idle| self.heard + idle);
            let deadline = self.table.next_deadline();
            tokio::select! {
                biased;
                () = due(to_show) => {
                    to_show = None;
                    self.show(Freshness::Live);
                }
                () = due(deadline) => if self.table.meet_deadline(Instant::now()) {
                    to_show = to_show.or_else(|| Some(Instant::now()));
                },
                Ok(()) = self.interest.changed() => return End::Outgrown,
                update = next(updates.as_mut(), idle) => {
                    let update = match update {
                        Ok(update) => update,
                        Err(cause) => return End::Failed(cause),
                    };
                    self.heard = Instant::now();
                    match self.table.apply(update, self.heard) {
                        Applied::Unchanged => {}
                        Applied::Changed => to_show = to_show.or_else(|| Some(self.show_at())),
                        Applied::Gap => {
                            let missed = Error::new(ErrorKind::Unavailable, "a change was missed");
                            return End::Failed(missed);
                        }
                    }
                }
            }
        }
    }

    /// The first change after a quiet time is shown at once; those that follow are gathered.
    fn show_at(&self) -> Instant {
        let now = Instant::now();
        self.published
            .map_or(now, |at| (at + self.timings.coalesce).max(now))
    }

    fn show(&mut self, freshness: Freshness) {
        self.published = Some(Instant::now());
        self.state
            .send_replace(Some(Arc::new(self.table.snapshot(freshness))));
    }

    /// Keeps the last good set, once there is one, and says that it is no longer followed.
    fn show_stale(&mut self) {
        if self.shows_live() {
            self.show(Freshness::Stale {
                since: Timestamp::from(self.heard.into_std()),
            });
        }
    }

    fn shows_live(&self) -> bool {
        let state = self.state.borrow();
        state
            .as_deref()
            .is_some_and(|snapshot| snapshot.freshness().is_live())
    }
}

/// Why a stream of changes is followed no more.
enum End {
    Failed(Error),
    /// More is wanted to be known than it tells.
    Outgrown,
}

/// The next update, or why there is none.
async fn next(updates: &mut dyn Updates, idle: Option<Instant>) -> Result<crate::Update> {
    let ended = || Error::new(ErrorKind::Unavailable, "the stream of changes ended");
    let update = match idle {
        None => updates.next().await,
        Some(deadline) => timeout_at(deadline, updates.next())
            .await
            .map_err(|_| Error::new(ErrorKind::TimedOut, "the stream of changes fell silent"))?,
    };
    update.unwrap_or_else(|| Err(ended()))
}
