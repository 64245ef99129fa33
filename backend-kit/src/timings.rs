//! How long the shared machinery waits, and for what.

use std::time::Duration;

use crate::{AdmissionPolicy, Backoff, LoadPolicy};

/// How long the shared machinery waits, and for what. A driver changes what its registry needs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Timings {
    /// One call to the registry is given up so long after it was sent. Default: 3 s, several times
    /// the slowest healthy answer of a loaded registry, and shorter than any lease. Claims that are
    /// not answered in time again and again have more, up to the lease.
    pub call_timeout: Duration,
    /// A list, or a subscription with the list it begins with, is given up after this. Default:
    /// 3 s. Longer in a driver that reads it by many requests and bounds each, lest a list that
    /// takes its time never comes to an end.
    pub list_timeout: Duration,
    /// How often a held record is confirmed and its lease renewed. Default: 3 s.
    pub renew_interval: Duration,
    /// How long a record is believed to stand after it was last confirmed; afterwards it counts
    /// as lost until confirmed again, and no load is written for it. `None`: for ever, for a
    /// registry without leases. Default: 10 s.
    pub lease: Option<Duration>,
    /// How long `deregister` waits for the registry. Default: 4 s: one call that was under way,
    /// one of its own, and still within the 5 s that a supervisor grants a stopping process.
    pub deregister_timeout: Duration,
    /// How often a registration whose id has another owner is tried again, and how much longer than
    /// [`Capabilities::id_release`](plimsoll_discovery_api::Capabilities::id_release) that has to last
    /// before the owner is taken to live. Default: 2 s.
    pub conflict_retry: Duration,
    /// The pace of repeated attempts at everything else.
    pub backoff: Backoff,
    /// How many calls may be under way.
    pub admission: AdmissionPolicy,
    /// When load is published.
    pub load: LoadPolicy,
    /// The shortest time between two snapshots of one service; the first change after a quiet
    /// time is passed on at once. Default: 50 ms, which bounds the work under churn and is below
    /// what a person or a health check notices.
    pub coalesce: Duration,
    /// A subscription that says nothing for this long is taken for dead and made anew. `None`:
    /// the driver notices by itself. Default: none.
    pub idle: Option<Duration>,
    /// When a loss of members is not believed.
    pub hold_down: HoldDown,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(3),
            list_timeout: Duration::from_secs(3),
            renew_interval: Duration::from_secs(3),
            lease: Some(Duration::from_secs(10)),
            deregister_timeout: Duration::from_secs(4),
            conflict_retry: Duration::from_secs(2),
            backoff: Backoff::default(),
            admission: AdmissionPolicy::default(),
            load: LoadPolicy::default(),
            coalesce: Duration::from_millis(50),
            idle: None,
            hold_down: HoldDown::default(),
        }
    }
}

/// When a loss of members that nobody announced is held down rather than believed.
///
/// Servers rarely die together; registries lose everything at once. A loss is held down if, within
/// [`window`](Self::window), it takes the last member, or more than [`fraction`](Self::fraction)
/// of at least [`min_members`](Self::min_members). What is held down stays as *suspect* until it
/// registers again or [`grace`](Self::grace) has passed. So is whatever is missing from a registry
/// that has begun a new history, having lost or exchanged its data. Deregistration is never held
/// down.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct HoldDown {
    /// Losses this close together count as one. Default: 10 s.
    pub window: Duration,
    /// The part of the members above which a loss is not believed, 0 to 1. Default: 0.3.
    pub fraction: f64,
    /// The smallest set for which the fraction counts; below it a single crash is already a large
    /// part. Default: 5.
    pub min_members: usize,
    /// A loss that nobody announced is told only after this, so that a wave is seen whole before
    /// any of it is believed. Default: 100 ms, little beside the lease that had to run out first.
    pub settle: Duration,
    /// How long a suspect is kept. Default: 30 s, three leases: time for every server to notice
    /// and register again.
    pub grace: Duration,
}

impl Default for HoldDown {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            fraction: 0.3,
            min_members: 5,
            settle: Duration::from_millis(100),
            grace: Duration::from_secs(30),
        }
    }
}
