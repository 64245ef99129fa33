//! Following one service for all of this process.
//!
//! One task per watched service, however many watch: it lists and follows, and after every
//! interruption lists again and compares, so that no missed event can leave a trace. The last
//! good set stays while the registry is away.

mod change;
mod driven;
mod hold_down;
mod members;
mod rows;
mod task;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use plimsoll_discovery_api::{Error, Rng, ServiceName, Snapshot, Watch};
use tokio::runtime;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use self::change::{Change, Departure, Interest, Listing, Subscription, Update, Updates};
pub use self::driven::DrivenUpdates;
pub use self::rows::{Read, Reading, Row, Rows, read_load};
use crate::handle_guard::HandleGuard;
use crate::log::{FailureLog, StateLog};
use crate::{Admission, Driver};

/// The supervisors of one registry, by service, and by the runtime that each runs in and ends with;
/// each lives while somebody watches.
#[derive(Debug, Default)]
pub(crate) struct Supervisors(Mutex<HashMap<(ServiceName, runtime::Id), Weak<Supervisor>>>);

/// A running supervisor. Dropping it ends its task.
#[derive(Debug)]
struct Supervisor {
    states: watch::Receiver<Option<Arc<Snapshot>>>,
    errors: watch::Receiver<Option<Error>>,
    /// What anybody has wanted to know since it was started.
    interest: watch::Sender<Interest>,
    task: AbortHandle,
    _handle_guard: HandleGuard,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Supervisors {
    /// A watch on `service`, from the supervisor that is there or a new one. Loads, once somebody
    /// wants them, are followed for as long as anybody watches.
    pub(crate) fn watch<D: Driver>(
        &self,
        (driver, admission): (&Arc<D>, &Admission),
        service: &ServiceName,
        interest: Interest,
        (handle_guard, failures): (&HandleGuard, &FailureLog),
        rng: Rng,
    ) -> Watch {
        // A panic while the lock was held cannot have left the map half changed.
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (service.clone(), runtime::Handle::current().id());
        let alive = running.get(&key).and_then(Weak::upgrade);
        let supervisor = alive.filter(|s| !s.task.is_finished()).unwrap_or_else(|| {
            running.retain(|_, supervisor| supervisor.strong_count() > 0);
            let (state, states) = watch::channel(None);
            let (error, errors) = watch::channel(None);
            let (interest, interests) = watch::channel(interest);
            let backend = driver.capabilities().backend;
            let view = task::View {
                state,
                error,
                log: StateLog::of_watch(failures.clone(), backend, service.clone()),
            };
            let (driver, admission) = (Arc::clone(driver), admission.clone());
            let task = task::Task::new(driver, admission, service.clone(), interests, view, rng);
            let task = tokio::spawn(task.run()).abort_handle();
            let supervisor = Supervisor {
                states,
                errors,
                interest,
                task,
                _handle_guard: handle_guard.clone(),
            };
            let supervisor = Arc::new(supervisor);
            running.insert(key, Arc::downgrade(&supervisor));
            supervisor
        });
        supervisor.interest.send_if_modified(|known| {
            let grows = *known < interest;
            *known = interest.max(*known);
            grows
        });
        let (states, errors) = (supervisor.states.clone(), supervisor.errors.clone());
        Watch::new(states, supervisor).with_errors(errors)
    }
}
