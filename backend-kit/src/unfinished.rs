//! What a runtime that has ended leaves to be done.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use plimsoll_discovery_api::{Error, ErrorKind};

use crate::Driver;

/// Work that needs a runtime, and cares not which.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The removals that were begun, or became due, in runtimes that have ended. Whoever next does
/// anything with the same handle in a runtime takes them up there.
#[derive(Clone, Default)]
pub(crate) struct Unfinished(Arc<Mutex<Vec<Task>>>);

impl Unfinished {
    fn tasks(&self) -> MutexGuard<'_, Vec<Task>> {
        // A panic while the lock was held cannot have left the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves `task` to `driver`, if that has a runtime of its own; to whoever comes, otherwise.
    pub(crate) fn leave<D: Driver>(&self, driver: &D, task: Task) {
        if let Err(task) = driver.carry(task) {
            self.tasks().push(task);
        }
    }

    /// Goes on with what was left, in the present runtime.
    pub(crate) fn take_up(&self) {
        let tasks = std::mem::take(&mut *self.tasks());
        for task in tasks {
            tokio::spawn(task);
        }
    }

    /// For those who are among them themselves.
    pub(crate) fn downgrade(&self) -> WeakUnfinished {
        WeakUnfinished(Arc::downgrade(&self.0))
    }
}

/// The same, which ends with the last [`Unfinished`].
#[derive(Clone)]
pub(crate) struct WeakUnfinished(Weak<Mutex<Vec<Task>>>);

impl WeakUnfinished {
    /// As long as anybody may come who takes it up.
    pub(crate) fn upgrade(&self) -> Option<Unfinished> {
        self.0.upgrade().map(Unfinished)
    }
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unfinished")
            .field(&self.tasks().len())
            .finish()
    }
}

/// Why something that was kept is kept no more.
pub(crate) fn abandoned(what: &str) -> Error {
    let why = if std::thread::panicking() {
        "the task that kept it has panicked"
    } else {
        "the runtime that kept it has ended"
    };
    Error::new(ErrorKind::Closed, format!("{what}: {why}"))
}
