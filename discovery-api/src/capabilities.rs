//! What a backend can do, and its bounds.

use std::time::Duration;

/// What a registry behind a [`Registry`](crate::Registry) can do, and the bounds it keeps.
///
/// Published so that programs and tests need not know which backend they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The backend's name, as in its URL scheme.
    pub backend: &'static str,
    /// The longest time from a server's death without a word (a crash, a power cut) to its
    /// removal from the registry; `None` where it is known at once.
    pub crash_detection: Option<Duration>,
    /// The longest time from a server's death without a word to its id being free for another;
    /// `None` where it is at once. Whoever holds an id for longer than that lives.
    pub id_release: Option<Duration>,
    /// How long after a change, while all is well, every watcher has it. A draining server waits
    /// this long between leaving the registry and refusing connections.
    pub propagation: Duration,
    /// The shortest time between two publications of one instance's load.
    pub load_interval: Duration,
    /// The oldest a published load becomes while its server is connected to the registry: even
    /// an unchanged one is published this often.
    pub load_max_age: Duration,
    /// The largest record the registry takes, in bytes; `None` where there is no limit.
    pub max_record_bytes: Option<usize>,
}

impl Capabilities {
    /// The capabilities of a backend that detects crashes at once and has no limits;
    /// backends change what differs.
    #[must_use]
    pub const fn new(backend: &'static str) -> Self {
        Self {
            backend,
            crash_detection: None,
            id_release: None,
            propagation: Duration::from_millis(100),
            load_interval: Duration::from_secs(2),
            load_max_age: Duration::from_secs(60),
            max_record_bytes: None,
        }
    }

    /// How old a published load may be, as its readers see it, and still be what its server would
    /// say: the time after which even an unchanged one is [repeated](Self::load_max_age), and that
    /// in which the repetition [arrives](Self::propagation). An older one is of a server, or from
    /// a registry, that is out of reach.
    #[must_use]
    pub const fn vouches_for_load(&self) -> Duration {
        self.load_max_age.saturating_add(self.propagation)
    }
}
