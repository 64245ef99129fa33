//! A client's own view of one member.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use self::accrual::{Accrual, Streak};
use self::ejection::Ejection;
use self::peak::Peak;
use self::reports::Reports;
use self::tenure::Tenure;
use crate::{
    Incarnation, Instance, InstanceId, LoadReport, Member, PublishedLoad, Standing, Timestamp,
    Weight,
};

mod accrual;
mod ejection;
mod others;
mod peak;
mod pick;
mod reports;
mod tenure;
#[cfg(test)]
mod tests;

pub use self::accrual::{Admission, FailureAlarm};
pub use self::others::Others;
pub use self::pick::Pick;
pub use self::reports::{Queue, Utilization};

/// What active checks found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// Not checked yet; treated as healthy.
    #[default]
    Unknown,
    /// Enough checks in a row succeeded.
    Healthy,
    /// Enough checks in a row failed.
    Unhealthy,
}

/// How a request ended, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint served it.
    Success,
    /// The endpoint failed it.
    Failure,
    /// No connection could be made: refused, reset or not in time. Nothing was done there. Counts
    /// among the failures.
    Unreachable,
    /// There was no answer within the time that the client had set. Counts among the failures.
    TimedOut,
    /// The client lost interest. Where it is known how long the client had waited, that is the
    /// least that the endpoint would have taken.
    Cancelled,
}

/// A client's requests that an endpoint's published load cannot include: those it has under way
/// there and started after a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreported {
    /// After the last report.
    pub since_last: u32,
    /// After the report before that.
    pub since_before: u32,
}

/// What every pick writes, alone on its cache lines: 128 bytes, because x86 prefetches lines in
/// pairs and Apple and POWER cores have lines of 128.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hot {
    /// Requests in flight are those that have started and not ended in any of the three ways
    /// below: a pick and its end are one write each.
    started: AtomicU64,
    streak: Streak,
    /// In nanoseconds of a [`Timestamp`], plus one; 0 before the first.
    answered_at: AtomicU64,
    successes: AtomicU64,
    failures: AtomicU64,
    cancelled: AtomicU64,
    /// Smoothed, in nanoseconds; 0 before the first.
    latency_ns: AtomicU64,
    peak_latency: Peak,
}

/// A client's own view of one member: the load it publishes, and what this client sees of it.
///
/// It belongs to the member's identity: it survives every change of membership, attributes and
/// load, and ends with the incarnation. Requests in flight keep it alive beyond that, so nothing
/// is counted twice or lost.
pub struct Endpoint {
    hot: Hot,
    instance: ArcSwap<Instance>,
    id: InstanceId,
    incarnation: Incarnation,
    load: Arc<PublishedLoad>,
    health: AtomicU8,
    suspect: AtomicBool,
    /// The report that `own_at_report` belongs to, as `Timestamp` nanoseconds plus one.
    seen_report: AtomicU64,
    own_at_report: AtomicU32,
    /// The same for the report before.
    own_at_report_before: AtomicU32,
    accrual: Accrual,
    others: others::Record,
    ejection: Ejection,
    tenure: Tenure,
    reports: Reports,
}

impl Endpoint {
    /// A view of `member` that has seen nothing yet.
    #[must_use]
    pub fn new(member: &Member) -> Self {
        Self {
            hot: Hot::default(),
            instance: ArcSwap::new(Arc::clone(member.instance())),
            id: member.id().clone(),
            incarnation: member.incarnation(),
            load: Arc::clone(member.load()),
            health: AtomicU8::new(0),
            suspect: AtomicBool::new(!member.standing().is_registered()),
            seen_report: AtomicU64::new(0),
            own_at_report: AtomicU32::new(0),
            own_at_report_before: AtomicU32::new(0),
            accrual: Accrual::default(),
            others: others::Record::default(),
            ejection: Ejection::default(),
            tenure: Tenure::default(),
            reports: Reports::default(),
        }
    }

    /// Whether it is a view of `member`: the same id in the same incarnation, reporting its load
    /// to the same place.
    #[must_use]
    pub fn is_view_of(&self, member: &Member) -> bool {
        self.incarnation == member.incarnation()
            && self.id == *member.id()
            && Arc::ptr_eq(&self.load, member.load())
    }

    /// Takes over what `member` says now; returns whether any of it is new.
    pub fn refresh(&self, member: &Member) -> bool {
        debug_assert!(self.is_view_of(member), "refreshed from another member");
        // Two handles on one instance are equal at a glance.
        let is_new = *self.instance.load() != *member.instance();
        if is_new {
            self.instance.store(Arc::clone(member.instance()));
        }
        let suspect = member.standing() != Standing::Registered;
        self.suspect.swap(suspect, Ordering::Relaxed) != suspect || is_new
    }

    /// What the member says of itself.
    #[must_use]
    pub fn instance(&self) -> Arc<Instance> {
        self.instance.load_full()
    }

    /// What the member says it should be given: its instance's weight, without a share in it.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.instance.load().weight()
    }

    /// Its name within the service.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Which life of the instance this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The load it last published; `None` before the first report.
    #[inline]
    #[must_use]
    pub fn published_load(&self) -> Option<LoadReport> {
        self.load.report()
    }

    /// Requests that this client has under way there.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        // In this order a request that ends meanwhile counts as still under way, not as none.
        let ended = self.successes() + self.failures() + self.cancelled();
        let under_way = self
            .hot
            .started
            .load(Ordering::Relaxed)
            .saturating_sub(ended);
        u32::try_from(under_way).unwrap_or(u32::MAX)
    }

    /// Requests under way there that published loads cannot include.
    ///
    /// The first call after a report takes the mark, so the answer is exact to within the
    /// requests started between the report and that call.
    #[inline]
    #[must_use]
    pub fn unreported(&self) -> Unreported {
        let own = self.in_flight();
        let Some(report) = self.load.report() else {
            return Unreported {
                since_last: own,
                since_before: own,
            };
        };
        let stamp = report.received.as_nanos().saturating_add(1);
        let seen = self.seen_report.load(Ordering::Relaxed);
        if seen != stamp {
            let before = if seen == 0 {
                own
            } else {
                self.own_at_report.load(Ordering::Relaxed)
            };
            let last = seen.checked_sub(1).map(Timestamp::from_nanos);
            let held = last.map(|last| report.received.since(last));
            self.others.take(report.load as f64 - f64::from(own), held);
            self.own_at_report_before.store(before, Ordering::Relaxed);
            self.own_at_report.store(own, Ordering::Relaxed);
            self.seen_report.store(stamp, Ordering::Relaxed);
        }
        let since = |mark: &AtomicU32| own.saturating_sub(mark.load(Ordering::Relaxed));
        Unreported {
            since_last: since(&self.own_at_report),
            since_before: since(&self.own_at_report_before),
        }
    }

    /// The mean latency of this client's requests there, smoothed with a factor of 1/8 as
    /// [RFC 6298](https://www.rfc-editor.org/rfc/rfc6298#section-2) smooths round-trip times.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        match self.hot.latency_ns.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// The latency of this client's requests there, smoothed so that a slow one counts at once
    /// and is forgotten gradually; `None` before the first that ended with
    /// [`finish_at`](Pick::finish_at).
    ///
    /// A sample above the mean replaces it; one below draws it down by 1 - e^(-t / 10 s), t being
    /// the time since the last sample, and so does having none, as if it were 0. A failure counts
    /// as 5 s at least, so that failing quickly does not pay.
    #[must_use]
    pub fn peak_latency(&self, now: Timestamp) -> Option<Duration> {
        self.hot.peak_latency.at(now)
    }

    /// How many of this client's requests ended in success.
    #[inline]
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.hot.successes.load(Ordering::Relaxed)
    }

    /// How many of this client's requests ended in failure, of whatever kind.
    #[inline]
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.hot.failures.load(Ordering::Relaxed)
    }

    /// How many of this client's requests were given up.
    #[inline]
    #[must_use]
    pub fn cancelled(&self) -> u64 {
        self.hot.cancelled.load(Ordering::Relaxed)
    }

    /// Failures of whatever kind since the last success, or since it was last [readmitted](Self::readmit).
    #[inline]
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.hot.streak.failures()
    }

    /// What active checks found.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Unknown,
            1 => Health::Healthy,
            _ => Health::Unhealthy,
        }
    }

    /// Records what active checks found; returns whether that is new.
    pub fn set_health(&self, health: Health) -> bool {
        let code = match health {
            Health::Unknown => 0,
            Health::Healthy => 1,
            Health::Unhealthy => 2,
        };
        self.health.swap(code, Ordering::Relaxed) != code
    }

    /// Whether the registry stopped listing it under suspicious circumstances; see
    /// [`Standing::Suspect`].
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    #[inline]
    fn begin(&self) {
        self.hot.started.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    fn end(&self, outcome: Outcome, trial: bool, latency: Option<Duration>) {
        match outcome {
            Outcome::Success => {
                self.hot.successes.fetch_add(1, Ordering::Relaxed);
                if trial || !self.hot.streak.is_none() {
                    self.recover(trial);
                }
            }
            Outcome::Failure | Outcome::Unreachable | Outcome::TimedOut => {
                self.hot.failures.fetch_add(1, Ordering::Relaxed);
                self.accrue(outcome, trial);
            }
            Outcome::Cancelled => {
                self.hot.cancelled.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(latency) = latency {
            self.smooth(latency);
        }
    }

    /// Takes in for how long a request without an answer was waited for: a lower bound, which says
    /// nothing where nothing is known.
    #[cold]
    fn bound_latency(&self, waited: Duration) {
        if self.latency().is_some_and(|mean| mean < waited) {
            self.smooth(waited);
        }
    }

    fn smooth(&self, latency: Duration) {
        // A thousand years fit; 0 is kept for "none yet".
        let sample = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1);
        let step = |mean: u64| {
            Some(if mean == 0 {
                sample
            } else {
                (mean - mean / 8).saturating_add(sample / 8).max(1)
            })
        };
        let _always = self
            .hot
            .latency_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id)
            .field("authority", &self.instance.load().authority())
            .field("incarnation", &self.incarnation)
            .field("published_load", &self.load.get())
            .field("in_flight", &self.in_flight())
            .field("health", &self.health())
            .field("admission", &self.admission())
            .field("suspect", &self.is_suspect())
            .finish_non_exhaustive()
    }
}
