//! The actor: obtaining a record, and removing it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, RegistrationState, Result, Rng};
use tokio::sync::watch;
use tokio::time::Instant;

use super::hold::{Holding, HoldingEnd};
use super::parts::{Claimed, Parts, Removal};
use crate::admission::Permit;
use crate::backoff::{Attempts, PERMANENT_RETRY};
use crate::handle_guard::HandlesGone;
use crate::log::StateLog;
use crate::operation::named;
use crate::sleep_until_some;
use crate::unfinished::{WeakUnfinished, abandoned};
use crate::{Admission, Class, Driver, Record, Release, Timings};

/// Lives are minutes apart or paced by the backoff, and a call that is still on its way after this
/// many of them is beyond belief.
const FORMER_LIVES: usize = 8;

pub(super) struct Actor<D: Driver> {
    pub(super) parts: Parts<D>,
    attempts: Attempts,
    /// The life that is being claimed: kept over failed attempts, as any may have been applied.
    claiming: Option<Incarnation>,
    /// Whether an attempt to claim it ended without an answer.
    in_doubt: bool,
    /// The latest lives that have ended, of which the registry may still hold the record, or may
    /// come to hold it when a call that was given up arrives after all.
    former: Vec<Incarnation>,
    /// The life that is held now.
    held: Option<Incarnation>,
    was_live: bool,
    /// Since when another owner holds the id.
    contested: Option<Instant>,
    /// All that is left to be done is the removal, which is seen to.
    ended: bool,
}

impl<D: Driver> Actor<D> {
    pub(super) fn new(parts: Parts<D>) -> Self {
        let attempts = Attempts::new(parts.timings.backoff);
        Self {
            parts,
            attempts,
            claiming: None,
            in_doubt: false,
            former: Vec::new(),
            held: None,
            was_live: false,
            contested: None,
            ended: false,
        }
    }

    pub(super) async fn run(mut self) {
        let mut not_before = Instant::now();
        let claim = loop {
            let Some(claimed) = self.obtain(not_before).await else {
                break None;
            };
            self.was_live = true;
            let (claim, incarnation) = (Arc::clone(&claimed.claim), claimed.record.incarnation);
            self.held = Some(incarnation);
            let in_doubt = std::mem::take(&mut self.in_doubt);
            let end = Holding::new(&mut self.parts, claimed, in_doubt).run().await;
            self.held = None;
            self.former.push(incarnation);
            if self.former.len() > FORMER_LIVES {
                self.former.remove(0);
            }
            match end {
                HoldingEnd::GivenUp => break Some(claim),
                HoldingEnd::Lost(cause) => {
                    self.show(RegistrationState::Lost { cause });
                    not_before = Instant::now() + self.attempts.failed(&mut self.parts.rng);
                }
            }
        };
        self.show(RegistrationState::Deregistered);
        self.parts.flushes.close();
        while let Ok(reply) = self.parts.flushes.try_recv() {
            // Whoever waits finds out why there is no answer.
            drop(reply);
        }
        self.ended = true;
        self.removing().run(claim.as_deref()).await;
    }

    /// Claims until it succeeds; `None` if the registration is given up before.
    async fn obtain(&mut self, mut not_before: Instant) -> Option<Claimed<D>> {
        loop {
            self.parts.idle(sleep_until_some(Some(not_before))).await?;
            let left = self.parts.await_leave().await?;
            let started = Instant::now();
            let cause = match left {
                Ok(permit) => match self.claim(permit).await {
                    Ok(claimed) => return Some(claimed),
                    Err(cause) => cause,
                },
                Err(cause) => cause,
            };
            let cause = named(&*self.parts.driver, "register", cause);
            let delay = self.delay_after(&cause);
            tracing::debug!(id = %self.parts.desired.borrow().instance.id(), %cause, ?delay, "claim failed");
            not_before = Instant::now() + delay;
            if cause.kind() != ErrorKind::Conflict {
                // Whoever was dead may have been given another lease meanwhile.
                self.contested = None;
            }
            let state = match cause.kind() {
                ErrorKind::Conflict => {
                    let lasting = self.is_lasting(started);
                    RegistrationState::Conflict { cause, lasting }
                }
                _ if self.was_live => RegistrationState::Lost { cause },
                _ => RegistrationState::Pending { cause: Some(cause) },
            };
            self.show(state);
        }
    }

    /// Whether the other owner lives: what it had left otherwise would have been gone when the claim
    /// that `started` was refused.
    fn is_lasting(&mut self, started: Instant) -> bool {
        let parts = &self.parts;
        let release = parts.driver.capabilities().id_release.unwrap_or_default();
        // The one for the registry, the other for noticing.
        let patience = release + parts.timings.conflict_retry;
        started >= *self.contested.get_or_insert_with(Instant::now) + patience
    }

    /// One attempt, which begins here, however long its turn was waited for.
    async fn claim(&mut self, permit: Permit) -> Result<Claimed<D>> {
        let incarnation = *self.claiming.get_or_insert_with(Incarnation::random);
        let instance = Arc::clone(&self.parts.desired.borrow_and_update().instance);
        let load = self.parts.gauge.get();
        let record = Record::new(instance, incarnation, SystemTime::now(), load);
        let started = Instant::now();
        let driver = Arc::clone(&self.parts.driver);
        let limit = self
            .parts
            .admission
            .patience(self.parts.timings.call_timeout);
        // Not cut short when given up: the reply tells what there is to remove.
        let call = permit.run(limit, driver.claim(&record, &self.former));
        match self.parts.attend(call).await {
            Ok(claim) => {
                self.claiming = None;
                self.contested = None;
                self.attempts.succeeded();
                Ok(Claimed {
                    claim: Arc::new(claim),
                    record,
                    started,
                })
            }
            Err(cause) => {
                self.in_doubt |= cause.is_retryable();
                Err(cause)
            }
        }
    }

    fn delay_after(&mut self, cause: &Error) -> Duration {
        let rng = &mut self.parts.rng;
        if cause.kind() == ErrorKind::Conflict {
            // Half to one and a half times: several who wait for one id must not keep in step.
            return self
                .parts
                .timings
                .conflict_retry
                .mul_f64(0.5 + rng.next_f64());
        }
        let delay = self.attempts.failed(rng);
        if cause.is_retryable() {
            delay
        } else {
            delay.max(PERMANENT_RETRY)
        }
    }

    /// The removal of every life that may have been left.
    fn removing(&self) -> Removing<D> {
        let parts = &self.parts;
        let instance = Arc::clone(&parts.desired.borrow().instance);
        let lives = self.former.iter().copied();
        let release = Release {
            service: instance.service().clone(),
            id: instance.id().clone(),
            incarnations: lives.chain(self.held).chain(self.claiming).collect(),
        };
        Removing {
            timings: parts.timings,
            driver: Arc::clone(&parts.driver),
            admission: parts.admission.clone(),
            release,
            removal: parts.removal.clone(),
            log: parts.log.clone(),
            handle_guard: parts.handle_guard.clone(),
            unfinished: parts.unfinished.downgrade(),
            rng: parts.rng.clone(),
            ended: false,
        }
    }

    fn show(&mut self, state: RegistrationState) {
        self.parts.show(state);
    }
}

/// The runtime has ended, or a driver has panicked: nobody keeps the registration any more.
impl<D: Driver> Drop for Actor<D> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let parts = &self.parts;
        // No line on the log: a program that ends would say one for each.
        parts.state.send_if_modified(|state| {
            let is_final = matches!(state, RegistrationState::Deregistered);
            if !is_final {
                let cause = named(&*parts.driver, "hold", abandoned("the registration"));
                *state = RegistrationState::Lost { cause };
            }
            !is_final
        });
        // Left to others by being dropped.
        drop(self.removing());
    }
}

/// Removes every life that may have been left.
struct Removing<D: Driver> {
    timings: Timings,
    driver: Arc<D>,
    admission: Admission,
    release: Release,
    removal: watch::Sender<Removal>,
    log: StateLog,
    handle_guard: HandlesGone,
    unfinished: WeakUnfinished,
    rng: Rng,
    /// It is confirmed, or given up.
    ended: bool,
}

/// Whoever comes next goes on with it.
impl<D: Driver> Drop for Removing<D> {
    fn drop(&mut self) {
        // A driver that panics would do so again and again.
        if std::mem::replace(&mut self.ended, true) || std::thread::panicking() {
            return;
        }
        let Some(unfinished) = self.unfinished.upgrade() else {
            return;
        };
        let again = Self {
            timings: self.timings,
            driver: Arc::clone(&self.driver),
            admission: self.admission.clone(),
            release: self.release.clone(),
            removal: self.removal.clone(),
            log: self.log.clone(),
            handle_guard: self.handle_guard.clone(),
            unfinished: self.unfinished.clone(),
            rng: self.rng.clone(),
            ended: false,
        };
        let task = async move { again.run(None).await };
        unfinished.leave(&*self.driver, Box::pin(task));
    }
}

impl<D: Driver> Removing<D> {
    /// Returns once it is confirmed. Ends earlier only when nobody holds anything of the registry
    /// any more, after one last attempt.
    async fn run(mut self, claim: Option<&D::Claim>) {
        let mut attempts = Attempts::new(self.timings.backoff);
        let limit = self.timings.call_timeout;
        let mut last = false;
        while !self.release.incarnations.is_empty() {
            let release = self.driver.release(&self.release, claim);
            let removal = self.admission.call(Class::Removal, limit, release);
            let Err(cause) = removal.await else {
                break;
            };
            let cause = named(&*self.driver, "deregister", cause);
            self.log.failed("deregistration", &cause);
            let mut delay = attempts.failed(&mut self.rng);
            if !cause.is_retryable() {
                delay = delay.max(PERMANENT_RETRY);
            }
            self.removal.send_replace(Removal::Failing(cause));
            if last {
                self.ended = true;
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.handle_guard.reached() => last = true,
            }
        }
        self.ended = true;
        self.removal.send_replace(Removal::Done);
    }
}
