//! Holding a record: renewing, updating, publishing load, and noticing its loss.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Instance, RegistrationState, Result};
use tokio::time::{Instant, sleep_until};

use super::parts::{Claimed, FlushReply, Parts, not_live};
use crate::admission::{Permit, Turn, bounded};
use crate::backoff::{Attempts, PERMANENT_RETRY};
use crate::operation::named;
use crate::{Class, Driver, Record, Throttle};

/// Why holding ended.
pub(super) enum HoldingEnd {
    GivenUp,
    Lost(Error),
}

/// A call that was given up and arrives later than this does so in a fault that renewals notice.
const DOUBT: Duration = Duration::from_secs(30);

type Call = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A renewal or an update under way: never both, so that the registry sees one order.
struct Lifecycle {
    call: Call,
    started: Instant,
    /// What is being written, if this is an update.
    updating: Option<Arc<Instance>>,
}

/// A load under way. It runs beside the lifecycle: liveness never queues behind load.
struct Publishing {
    call: Call,
    load: u64,
    waiters: Vec<FlushReply>,
}

pub(super) struct Holding<'a, D: Driver> {
    parts: &'a mut Parts<D>,
    claim: Arc<D::Claim>,
    /// When the registry last confirmed the record, by the start of the call that did.
    confirmed: Instant,
    failing: Option<Error>,
    renewals: Attempts,
    renew_at: Instant,
    written: Record,
    /// What stands in the registry may be other than `written`: older, or of an update that was
    /// given up and applied all the same.
    in_doubt: bool,
    /// Since when this life is held, if an earlier attempt to claim it was given up: should the
    /// record be lost unseen, that attempt may still put it back as it was long ago.
    claimed_in_doubt: Option<Instant>,
    update_at: Instant,
    /// To update: a renewal waits for no turn, so neither does it wait for an update that does.
    update_turn: Turn,
    lifecycle: Option<Lifecycle>,
    throttle: Throttle,
    publish_not_before: Instant,
    publish_turn: Turn,
    publishing: Option<Publishing>,
    waiters: Vec<FlushReply>,
}

impl<'a, D: Driver> Holding<'a, D> {
    pub(super) fn new(
        parts: &'a mut Parts<D>,
        claimed: Claimed<D>,
        claimed_in_doubt: bool,
    ) -> Self {
        let now = Instant::now();
        let Claimed {
            claim,
            record: written,
            started,
        } = claimed;
        let phase = parts.rng.next_f64();
        let throttle = Throttle::new(parts.timings.load, written.load, now, phase);
        let renewals = Attempts::new(parts.timings.backoff);
        let mut holding = Self {
            claim,
            confirmed: started,
            failing: None,
            renewals,
            renew_at: now,
            written,
            in_doubt: false,
            claimed_in_doubt: claimed_in_doubt.then_some(now),
            update_at: now,
            update_turn: Turn::new(parts.admission.clone(), Class::Claim),
            lifecycle: None,
            throttle,
            publish_not_before: now,
            publish_turn: Turn::new(parts.admission.clone(), Class::Load),
            publishing: None,
            waiters: Vec::new(),
            parts,
        };
        holding.schedule_renewal();
        holding
    }

    pub(super) async fn run(mut self) -> HoldingEnd {
        if self.parts.desired.borrow().given_up {
            return HoldingEnd::GivenUp;
        }
        self.parts.show(RegistrationState::Live {
            incarnation: self.written.incarnation,
        });
        let claim = Arc::clone(&self.claim);
        let driver = Arc::clone(&self.parts.driver);
        let mut lost = driver.lost(&claim);
        loop {
            if self.parts.desired.borrow_and_update().given_up {
                return HoldingEnd::GivenUp;
            }
            self.notice_a_lapse();
            self.refuse_flushes_unless_sound();
            self.start_what_is_due();
            let wake = self.next_wake();
            let listens = self.listens_to_load();
            tokio::select! {
                biased;
                changed = self.parts.desired.changed() => if changed.is_err() {
                    return HoldingEnd::GivenUp;
                },
                cause = &mut lost => return HoldingEnd::Lost(named(&*driver, "hold", cause)),
                result = finished(self.lifecycle.as_mut().map(|l| &mut l.call)) => {
                    if let Err(cause) = self.lifecycle_ended(result) {
                        return HoldingEnd::Lost(cause);
                    }
                }
                Some(reply) = self.parts.flushes.recv() => self.flush(reply),
                result = finished(self.publishing.as_mut().map(|p| &mut p.call)) => {
                    self.publishing_ended(result);
                }
                () = self.update_turn.come() => {}
                () = self.publish_turn.come() => {}
                () = self.parts.gauge.changed(), if listens => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    fn lease(&self) -> Option<Duration> {
        let granted = self.parts.driver.granted_lease(&self.claim);
        let asked = self.parts.timings.lease;
        asked.map(|asked| granted.map_or(asked, |granted| granted.min(asked)))
    }

    fn lease_end(&self) -> Option<Instant> {
        self.lease().map(|lease| self.confirmed + lease)
    }

    fn renew_interval(&self) -> Duration {
        let asked = self.parts.timings.renew_interval;
        let granted = self.parts.driver.granted_lease(&self.claim);
        granted.map_or(asked, |granted| asked.min(granted / 3))
    }

    fn has_lapsed(&self) -> bool {
        self.lease_end().is_some_and(|end| Instant::now() >= end)
    }

    fn is_sound(&self) -> bool {
        self.failing.is_none() && !self.has_lapsed()
    }

    /// The lease may have run out because renewals fail, or because this process did not run (a
    /// stopped process, a suspended machine). Nothing is written before a renewal succeeds.
    fn notice_a_lapse(&mut self) {
        if !self.has_lapsed() {
            return;
        }
        let cause = self.failing.get_or_insert_with(|| {
            self.renew_at = Instant::now();
            Error::new(
                ErrorKind::LeaseExpired,
                "not renewed in time; this process was held up",
            )
        });
        if !matches!(*self.parts.state.borrow(), RegistrationState::Lost { .. }) {
            let cause = cause.clone();
            self.parts.show(RegistrationState::Lost { cause });
        }
    }

    fn start_what_is_due(&mut self) {
        let now = Instant::now();
        if !self.wants_update() {
            self.update_turn.give_up();
        }
        if self.lifecycle.is_none() {
            if self.renew_at <= now {
                self.start_renewal();
            } else if self.wants_update()
                && self.update_at <= now
                && let Some(permit) = self.update_turn.take()
            {
                self.start_update(permit);
            }
        }
        if self.publish_at(now).is_none_or(|at| at > now) {
            self.publish_turn.give_up();
        } else if self.publishing.is_none()
            && let Some(permit) = self.publish_turn.take()
        {
            self.start_publishing(permit);
        }
    }

    fn wants_update(&self) -> bool {
        let differs = *self.parts.desired.borrow().instance != *self.written.instance;
        self.is_sound() && (self.in_doubt || differs)
    }

    fn start_renewal(&mut self) {
        let (driver, claim) = (Arc::clone(&self.parts.driver), Arc::clone(&self.claim));
        let limit = self.parts.timings.call_timeout;
        self.parts.unfinished.take_up();
        let call = Box::pin(async move {
            let renewed = bounded(limit, driver.renew(&claim)).await;
            renewed.map_err(|e| named(&*driver, "renew", e))
        });
        self.start_lifecycle(call, None);
    }

    fn start_update(&mut self, permit: Permit) {
        let (driver, claim) = (Arc::clone(&self.parts.driver), Arc::clone(&self.claim));
        let instance = Arc::clone(&self.parts.desired.borrow().instance);
        let mut record = self.written.clone();
        record.instance = Arc::clone(&instance);
        record.load = self.parts.gauge.get();
        let limit = self.parts.timings.call_timeout;
        let call = Box::pin(async move {
            let updated = permit.run(limit, driver.update(&claim, &record)).await;
            updated.map_err(|e| named(&*driver, "update", e))
        });
        self.start_lifecycle(call, Some(instance));
    }

    fn start_lifecycle(&mut self, call: Call, updating: Option<Arc<Instance>>) {
        self.lifecycle = Some(Lifecycle {
            call,
            started: Instant::now(),
            updating,
        });
    }

    fn start_publishing(&mut self, permit: Permit) {
        let (driver, claim) = (Arc::clone(&self.parts.driver), Arc::clone(&self.claim));
        let limit = self.parts.timings.call_timeout;
        let load = self.parts.gauge.get();
        let call = Box::pin(async move {
            let published = permit.run(limit, driver.publish(&claim, load)).await;
            published.map_err(|e| named(&*driver, "publish", e))
        });
        let waiters = std::mem::take(&mut self.waiters);
        self.publishing = Some(Publishing {
            call,
            load,
            waiters,
        });
    }

    /// An error ends the holding: the record is gone.
    fn lifecycle_ended(&mut self, result: Result<()>) -> Result<()> {
        let Some(Lifecycle {
            started, updating, ..
        }) = self.lifecycle.take()
        else {
            return Ok(());
        };
        match result {
            Ok(()) => match updating {
                Some(instance) => {
                    self.written.instance = instance;
                    self.in_doubt = false;
                }
                None => self.renewed(started),
            },
            Err(cause) if is_gone(&cause) => return Err(cause),
            Err(cause) => {
                let mut delay = self.renewals.failed(&mut self.parts.rng);
                if !self.has_lapsed() {
                    // While the lease stands there is something to save.
                    delay = delay.min(self.renew_interval());
                }
                if !cause.is_retryable() {
                    delay = delay.max(PERMANENT_RETRY);
                }
                match updating {
                    Some(_) => {
                        self.parts.log.failed("update", &cause);
                        // It may have been, and what is wanted by then may be what was before.
                        self.in_doubt = true;
                        self.update_at = Instant::now() + delay;
                    }
                    None => {
                        self.renew_at = Instant::now() + delay;
                        self.renewal_failed(cause);
                    }
                }
            }
        }
        Ok(())
    }

    fn renewed(&mut self, started: Instant) {
        self.confirmed = started;
        self.renewals.succeeded();
        self.schedule_renewal();
        let recovered = self.failing.take().is_some();
        if self
            .claimed_in_doubt
            .is_some_and(|at| recovered || at.elapsed() < DOUBT)
        {
            self.in_doubt = true;
            self.throttle.doubt();
        }
        if recovered {
            self.parts.show(RegistrationState::Live {
                incarnation: self.written.incarnation,
            });
        }
    }

    fn renewal_failed(&mut self, cause: Error) {
        let state = if self.has_lapsed() {
            RegistrationState::Lost {
                cause: cause.clone(),
            }
        } else {
            RegistrationState::Suspect {
                incarnation: self.written.incarnation,
                cause: cause.clone(),
            }
        };
        self.failing = Some(cause);
        self.parts.show(state);
    }

    /// A tenth early or late, so that a fleet that started as one does not renew as one.
    fn schedule_renewal(&mut self) {
        let factor = 0.9 + 0.2 * self.parts.rng.next_f64();
        self.renew_at = Instant::now() + self.renew_interval().mul_f64(factor);
    }

    fn flush(&mut self, reply: FlushReply) {
        let settled =
            self.publishing.is_none() && self.throttle.written() == Some(self.parts.gauge.get());
        if !self.is_sound() {
            let _gone = reply.send(Err(not_live()));
        } else if settled {
            let _gone = reply.send(Ok(()));
        } else {
            self.waiters.retain(|waiter| !waiter.is_closed());
            self.waiters.push(reply);
        }
    }

    /// Whoever waits is told at once, as whoever comes is.
    fn refuse_flushes_unless_sound(&mut self) {
        if !self.is_sound() {
            for waiter in self.waiters.drain(..) {
                let _gone = waiter.send(Err(not_live()));
            }
        }
    }

    fn publishing_ended(&mut self, result: Result<()>) {
        let Some(Publishing { load, waiters, .. }) = self.publishing.take() else {
            return;
        };
        let now = Instant::now();
        match &result {
            Ok(()) => self.throttle.wrote(load, now),
            Err(cause) => {
                self.parts.log.failed("publication of the load", cause);
                let pause = if cause.is_retryable() {
                    self.parts.timings.backoff.base
                } else {
                    PERMANENT_RETRY
                };
                self.publish_not_before = now + pause.max(self.parts.timings.load.min_interval);
                // It may have been, and the load by then may be what it was before.
                self.throttle.doubt();
                if is_gone(cause) {
                    // A hint, not a verdict: ask.
                    self.renew_at = now;
                }
            }
        }
        for waiter in waiters {
            let _gone = waiter.send(result.clone());
        }
    }

    /// When the load is to be published next; `None` while that would not be sound.
    fn publish_at(&self, now: Instant) -> Option<Instant> {
        if !self.is_sound() {
            return None;
        }
        if !self.waiters.is_empty() {
            return Some(now);
        }
        Some(
            self.throttle
                .due(self.parts.gauge.get())
                .max(self.publish_not_before),
        )
    }

    /// Whether a change of load could bring the next publication forward. If it is due after the
    /// minimum interval anyway, thousands of changes need not wake the actor once.
    fn listens_to_load(&self) -> bool {
        let soonest = self.throttle.earliest().max(self.publish_not_before);
        self.publishing.is_none()
            && self
                .publish_at(Instant::now())
                .is_some_and(|at| at > soonest)
    }

    fn next_wake(&self) -> Instant {
        const FAR: Duration = Duration::from_secs(3600);
        let now = Instant::now();
        let mut wake = now + FAR;
        if self.lifecycle.is_none() {
            wake = wake.min(self.renew_at);
            if self.wants_update() && !self.update_turn.is_awaited() {
                wake = wake.min(self.update_at);
            }
        }
        if self.publishing.is_none()
            && !self.publish_turn.is_awaited()
            && let Some(at) = self.publish_at(now)
        {
            wake = wake.min(at);
        }
        if let Some(end) = self.lease_end()
            && !self.has_lapsed()
        {
            wake = wake.min(end);
        }
        wake
    }
}

fn is_gone(cause: &Error) -> bool {
    use ErrorKind::{Conflict, LeaseExpired, NotFound};
    matches!(cause.kind(), Conflict | LeaseExpired | NotFound)
}

/// The result of a call under way; never, if there is none.
async fn finished(call: Option<&mut Call>) -> Result<()> {
    match call {
        Some(call) => call.await,
        None => pending().await,
    }
}
