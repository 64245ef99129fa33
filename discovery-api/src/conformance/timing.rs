//! The bounds that a backend is held to.

use std::time::Duration;

/// How long things may take in a backend as its tests set it up.
///
/// Bounds are ceilings: a case goes on as soon as it sees what it waits for, so generous ones cost
/// nothing while all is well. `quiet`, `expiry` and `grace` are waited out in full.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Timing {
    /// The longest time from a change to everybody having it, while all is well.
    pub settle: Duration,
    /// How long a case watches that something does not happen.
    pub quiet: Duration,
    /// The longest time from the start of an outage to reads failing and watches being stale.
    pub detection: Duration,
    /// The longest time from a crash to the end of its records; the outage that outlasts every
    /// lease.
    pub expiry: Duration,
    /// The longest time from the end of an outage, an expiry or a conflict to all being as it
    /// should be: the owner has noticed, registered again, and everybody has seen it.
    pub recovery: Duration,
    /// The longest that a deregistration keeps its caller, whatever the registry does.
    pub removal: Duration,
    /// How long the backend keeps members that went missing in a mass loss. More than `recovery`,
    /// or the loss outlives its purpose.
    pub grace: Duration,
    /// How often a race is run: thousands in memory, as patience allows against a server.
    pub rounds: u32,
}

impl Timing {
    /// `settle` for everything; ten times that for `recovery` and thirty times for `grace`; 100
    /// rounds.
    #[must_use]
    pub const fn new(settle: Duration) -> Self {
        Self {
            settle,
            quiet: settle,
            detection: settle,
            expiry: settle,
            recovery: settle.saturating_mul(10),
            removal: settle,
            grace: settle.saturating_mul(30),
            rounds: 100,
        }
    }

    /// The same with another [`quiet`](Self::quiet).
    #[must_use]
    pub const fn with_quiet(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }

    /// The same with another [`detection`](Self::detection).
    #[must_use]
    pub const fn with_detection(mut self, detection: Duration) -> Self {
        self.detection = detection;
        self
    }

    /// The same with another [`expiry`](Self::expiry).
    #[must_use]
    pub const fn with_expiry(mut self, expiry: Duration) -> Self {
        self.expiry = expiry;
        self
    }

    /// The same with another [`recovery`](Self::recovery).
    #[must_use]
    pub const fn with_recovery(mut self, recovery: Duration) -> Self {
        self.recovery = recovery;
        self
    }

    /// The same with another [`removal`](Self::removal).
    #[must_use]
    pub const fn with_removal(mut self, removal: Duration) -> Self {
        self.removal = removal;
        self
    }

    /// The same with another [`grace`](Self::grace).
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The same with another number of [`rounds`](Self::rounds).
    #[must_use]
    pub const fn with_rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }
}
