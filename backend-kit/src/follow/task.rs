//! The task: list, follow, and start again.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{
    Error, ErrorKind, Freshness, Result, Rng, ServiceName, Snapshot, Timestamp,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::members::{Applied, Members};
use crate::backoff::{Attempts, PERMANENT_RETRY};
use crate::log::{Standing, StateLog};
use crate::operation::named;
use crate::sleep_until_some;
use crate::unfinished::abandoned;
use crate::{Admission, Class, Driver, Interest, Timings, Updates};

/// A registry that keeps answering with an older state of the same history was itself set back, and
/// is believed after so many answers, over so long a time. Replicas that lag, or one that is asked
/// again at once, are not.
const OLDER_LISTINGS_BELIEVED: u32 = 3;
const OLDER_LISTINGS_LAST: Duration = Duration::from_secs(2);

/// What those who watch are shown.
pub(super) struct View {
    pub(super) state: watch::Sender<Option<Arc<Snapshot>>>,
    /// The registry's last error; none since its last answer.
    pub(super) error: watch::Sender<Option<Error>>,
    pub(super) log: StateLog,
}

pub(super) struct Task<D> {
    driver: Arc<D>,
    admission: Admission,
    timings: Timings,
    service: ServiceName,
    interest: watch::Receiver<Interest>,
    view: View,
    members: Members,
    rng: Rng,
    attempts: Attempts,
    /// When the registry was last heard.
    heard: Instant,
    published: Option<Instant>,
    /// When what has changed since is to be shown, whichever stream told of it.
    to_show: Option<Instant>,
    /// The answers in a row that were out of date, and when the first of them came.
    older_listings: Option<(u32, Instant)>,
}

impl<D: Driver> Task<D> {
    pub(super) fn new(
        driver: Arc<D>,
        admission: Admission,
        service: ServiceName,
        interest: watch::Receiver<Interest>,
        view: View,
        rng: Rng,
    ) -> Self {
        let timings = driver.timings();
        Self {
            driver,
            admission,
            timings,
            members: Members::new(service.clone(), timings.hold_down),
            service,
            interest,
            view,
            rng,
            attempts: Attempts::new(timings.backoff),
            heard: Instant::now(),
            published: None,
            to_show: None,
            older_listings: None,
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
            self.failed(named(&*self.driver, "watch", cause));
            sleep(delay).await;
        }
    }

    async fn subscribe(&mut self) -> Result<Box<dyn Updates>> {
        let interest = *self.interest.borrow_and_update();
        let call = self.driver.subscribe(&self.service, interest);
        let limit = self.timings.list_timeout;
        let subscription = self.admission.call(Class::Other, limit, call).await?;
        let listing = subscription.listing;
        if listing.revision.is_before(self.members.revision()) {
            let (before, since) = self.older_listings.unwrap_or_else(|| (0, Instant::now()));
            self.older_listings = Some((before + 1, since));
            if before + 1 < OLDER_LISTINGS_BELIEVED || since.elapsed() < OLDER_LISTINGS_LAST {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the registry's answer is out of date",
                )
                .with_context("revision", listing.revision.to_string())
                .with_context("seen", self.members.revision().to_string()));
            }
        }
        self.older_listings = None;
        let now = Instant::now();
        self.members
            .returned_after(now.duration_since(self.heard), now);
        self.heard = now;
        self.view.log.stands(Freshness::Live, None);
        let was_failing = |error: &mut Option<Error>| error.take().is_some();
        self.view.error.send_if_modified(was_failing);
        if self.members.list(listing, now) || !self.shows_live() {
            self.show(Freshness::Live);
        }
        Ok(subscription.updates)
    }

    /// Follows until the stream ends or is not enough any more.
    async fn follow(&mut self, mut updates: Box<dyn Updates>) -> End {
        loop {
            let idle = self.timings.idle.map(|idle| self.heard + idle);
            let deadline = self.members.next_deadline();
            tokio::select! {
                biased;
                () = sleep_until_some(self.to_show) => self.show(Freshness::Live),
                () = sleep_until_some(deadline) => if self.members.meet_deadline(Instant::now()) {
                    self.to_show.get_or_insert_with(Instant::now);
                },
                Ok(()) = self.interest.changed() => return End::Outgrown,
                update = next(updates.as_mut(), idle) => {
                    let update = match update {
                        Ok(update) => update,
                        Err(cause) => return End::Failed(cause),
                    };
                    self.heard = Instant::now();
                    match self.members.apply(update, self.heard) {
                        Applied::Unchanged => {}
                        Applied::Changed => {
                            let at = self.show_at();
                            self.to_show.get_or_insert(at);
                        }
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
        self.to_show = None;
        let snapshot = self.members.snapshot(freshness);
        self.view.state.send_replace(Some(Arc::new(snapshot)));
    }

    fn failed(&mut self, cause: Error) {
        let is_known = self.view.state.borrow().is_some();
        let standing = if is_known {
            self.stale().into()
        } else {
            Standing::UNKNOWN
        };
        self.view.log.stands(standing, Some(&cause));
        self.show_stale(cause);
    }
}

impl<D> Task<D> {
    fn stale(&self) -> Freshness {
        Freshness::Stale {
            since: Timestamp::from(self.heard.into_std()),
        }
    }

    /// Keeps the last good set, once there is one, and says that it is no longer followed and why.
    fn show_stale(&mut self, cause: Error) {
        // Before the state, so that whoever is told of that finds the cause.
        self.view.error.send_replace(Some(cause.clone()));
        if self.shows_live() {
            self.published = Some(Instant::now());
            self.to_show = None;
            let stale = self.members.snapshot(self.stale()).with_cause(cause);
            self.view.state.send_replace(Some(Arc::new(stale)));
        }
    }

    fn shows_live(&self) -> bool {
        let state = self.view.state.borrow();
        state
            .as_deref()
            .is_some_and(|snapshot| snapshot.freshness().is_live())
    }
}

/// Nobody watches any more, or the runtime has ended, which those who watch are told.
impl<D> Drop for Task<D> {
    fn drop(&mut self) {
        self.show_stale(abandoned("the watch"));
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
