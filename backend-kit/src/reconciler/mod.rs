//! Keeping one registration true.
//!
//! One actor owns the whole life of a registration, so that nothing can race it:
//!
//! ```text
//!            claim ok                 lost with authority
//!  obtain ───────────────▶ hold ──────────────────────────▶ obtain (a new incarnation)
//!    │ ▲                    │ renews, updates, publishes load
//!    │ └─ backoff, for ever │
//!    └──── given up ────────┴────▶ remove ──▶ end
//! ```
//!
//! Claims, updates and loads are admitted, each in its turn; renewals go when they are due, and a
//! driver that makes a request for each admits it as what keeps things alive.
//!
//! Giving up wins over everything: it is looked at first wherever the actor waits, and the
//! removal names every incarnation that may have been left behind.

mod actor;
mod hold;
mod parts;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use plimsoll_discovery_api::{
    Error, ErrorKind, Flush, Incarnation, Instance, LoadGauge, LoadHandle, Registration,
    RegistrationControl, RegistrationState, Result, Rng,
};
use tokio::sync::{mpsc, oneshot, watch};

use self::actor::Actor;
use self::parts::{Desired, FlushReply, Parts, Removal, not_live};
use crate::admission::bounded;
use crate::handle_guard::HandleGuard;
use crate::log::{FailureLog, StateLog};
use crate::operation::named;
use crate::unfinished::{Unfinished, abandoned};
use crate::{Admission, Driver, Record, Timings};

/// Flush requests are answered within a call's time; more than this many callers wait their turn.
const FLUSH_QUEUE: usize = 64;

/// Whether the registry could ever take `instance`, whatever its life and its load.
pub(crate) fn check<D: Driver>(driver: &D, instance: &Instance) -> Result<()> {
    let life = Incarnation::from_bits(u128::MAX);
    let largest = Record::new(Arc::new(instance.clone()), life, SystemTime::now(), 0);
    driver.check(&largest)
}

/// What all registrations of a handle share, beside its driver.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) handle_guard: HandleGuard,
    pub(crate) failures: FailureLog,
    pub(crate) unfinished: Unfinished,
}

/// Starts the actor for `instance`.
pub(crate) fn spawn<D: Driver>(
    driver: Arc<D>,
    admission: Admission,
    instance: Instance,
    shared: Shared,
    mut rng: Rng,
) -> Registration {
    let Shared {
        handle_guard,
        failures,
        unfinished,
    } = shared;
    let timings = driver.timings();
    let (service, id) = (instance.service().clone(), instance.id().clone());
    let backend = driver.capabilities().backend;
    let gauge = Arc::new(LoadGauge::new());
    let desired = Desired {
        instance: Arc::new(instance),
        given_up: false,
    };
    let (desired, desired_seen) = watch::channel(desired);
    let (state, states) = watch::channel(RegistrationState::Pending { cause: None });
    let (removal, removal_seen) = watch::channel(Removal::Waiting);
    let (flushes, flushes_seen) = mpsc::channel(FLUSH_QUEUE);
    let actor = Actor::new(Parts {
        timings,
        driver: Arc::clone(&driver),
        admission,
        desired: desired_seen,
        state,
        log: StateLog::of_registration(failures, backend, service, id),
        removal,
        gauge: Arc::clone(&gauge),
        flushes: flushes_seen,
        handle_guard: handle_guard.end(),
        unfinished: unfinished.clone(),
        rng: Rng::from_seed(rng.next_u64()),
    });
    tokio::spawn(actor.run());
    let publisher = Arc::new(Flusher {
        requests: flushes,
        limit: timings.call_timeout * 2,
        states: states.clone(),
    });
    let control = Control {
        driver,
        desired,
        removal: removal_seen,
        timings,
        unfinished,
        _handle_guard: handle_guard,
    };
    Registration::new(Box::new(control), states, LoadHandle::new(gauge, publisher))
}

/// The user's end of the actor.
#[derive(Debug)]
struct Control<D: Driver> {
    driver: Arc<D>,
    desired: watch::Sender<Desired>,
    removal: watch::Receiver<Removal>,
    timings: Timings,
    unfinished: Unfinished,
    _handle_guard: HandleGuard,
}

impl<D: Driver> Control<D> {
    fn give_up(&self) {
        self.desired
            .send_if_modified(|desired| !std::mem::replace(&mut desired.given_up, true));
    }
}

#[async_trait]
impl<D: Driver> RegistrationControl for Control<D> {
    fn instance(&self) -> Arc<Instance> {
        Arc::clone(&self.desired.borrow().instance)
    }

    fn update(&self, instance: Instance) -> Result<()> {
        let mut result = Ok(());
        let sound = check(&*self.driver, &instance);
        let is_kept = !self.desired.is_closed();
        self.desired.send_if_modified(|desired| {
            if desired.given_up {
                result = Err(closed());
            } else if !is_kept {
                result = Err(abandoned("the registration"));
            } else if !desired.instance.is_same_server(&instance) {
                let (is, was) = (instance.authority(), desired.instance.authority());
                let why = "is of another server (service, id and address cannot be changed)";
                result = Err(Error::invalid("instance", is, why).with_context("registered", was));
            } else if let Err(cause) = sound {
                result = Err(cause);
            } else if *desired.instance != instance {
                desired.instance = Arc::new(instance);
                return true;
            }
            false
        });
        result.map_err(|e| named(&*self.driver, "update", e))
    }

    async fn deregister(&self) -> Result<()> {
        self.give_up();
        self.unfinished.take_up();
        let mut removal = self.removal.clone();
        let ended = |state: &Removal| match state {
            Removal::Waiting => false,
            Removal::Failing(cause) => !cause.is_retryable(),
            Removal::Done => true,
        };
        let bound = self.timings.deregister_timeout;
        let waited = tokio::time::timeout(bound, removal.wait_for(ended)).await;
        let error = match waited.map(|state| state.as_deref().ok().cloned()) {
            Ok(Some(Removal::Done)) => return Ok(()),
            Ok(Some(Removal::Failing(cause))) => cause,
            Ok(Some(Removal::Waiting) | None) => closed(),
            Err(_) => {
                let late = Error::new(ErrorKind::TimedOut, "the removal is not confirmed yet");
                let late = late.with_context("waited", format!("{bound:?}"));
                match &*self.removal.borrow() {
                    Removal::Failing(cause) => late.with_source(cause.clone()),
                    _ => late,
                }
            }
        };
        Err(named(&*self.driver, "deregister", error))
    }
}

impl<D: Driver> Drop for Control<D> {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Carries flush requests to the actor.
#[derive(Debug)]
struct Flusher {
    requests: mpsc::Sender<FlushReply>,
    /// For a turn and for an answer.
    limit: Duration,
    states: watch::Receiver<RegistrationState>,
}

#[async_trait]
impl Flush for Flusher {
    async fn flush(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let flushed = bounded(self.limit, async {
            match self.requests.send(reply).await {
                Ok(()) => answer.await.unwrap_or_else(|_| Err(self.gone())),
                Err(_) => Err(self.gone()),
            }
        });
        flushed.await.map_err(|e| e.with_operation("flush"))
    }
}

impl Flusher {
    fn gone(&self) -> Error {
        match &*self.states.borrow() {
            RegistrationState::Deregistered => closed(),
            _ => not_live(),
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the registration was given up")
}
