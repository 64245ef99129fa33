//! What a server says of itself in its responses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Endpoint;
use crate::Timestamp;

/// The last report of either kind. Apart from what every pick reads, as every response may write
/// it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Reports {
    /// `f64` as bits.
    utilization: AtomicU64,
    requests_per_second: AtomicU64,
    errors_per_second: AtomicU64,
    /// In nanoseconds of a [`Timestamp`], plus one; 0 before the first.
    utilization_since: AtomicU64,
    utilization_received: AtomicU64,
    /// In nanoseconds.
    latency: AtomicU64,
    under_way: AtomicU64,
    /// Plus one, as above.
    queue_received: AtomicU64,
    refused: AtomicU64,
}

/// How busy a server says it is, as received: what
/// [ORCA](https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto) reports.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Utilization {
    /// The part of its capacity in use; above 1 if it is overloaded.
    pub utilization: f64,
    /// The requests it serves in a second, from all clients.
    pub requests_per_second: f64,
    /// Those of them that fail.
    pub errors_per_second: f64,
    /// When the first report was received since the last [was forgotten](Endpoint::forget_utilization).
    pub since: Timestamp,
    /// When this one was received.
    pub received: Timestamp,
}

/// How long a server's queue is, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// Requests it has under way, from all clients.
    pub under_way: u64,
    /// How long it takes for one, with about as many under way.
    pub latency: Duration,
    /// When it was received.
    pub received: Timestamp,
}

/// What a server says of itself in its responses, or beside them: clients call this where they
/// read such a report. A reader that races a writer may get parts of two reports.
impl Endpoint {
    /// Takes in how busy the server says it is; returns whether that can be used. It cannot if a
    /// number is negative or not finite, or if there is no utilization or no request: then the
    /// report is ignored and [counted](Self::refused_reports).
    pub fn report_utilization(
        &self,
        utilization: f64,
        requests_per_second: f64,
        errors_per_second: f64,
        received: Timestamp,
    ) -> bool {
        let usable = |number: f64| number.is_finite() && number > 0.0;
        let errors_usable = errors_per_second.is_finite() && errors_per_second >= 0.0;
        if !usable(utilization) || !usable(requests_per_second) || !errors_usable {
            self.reports.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let put = |place: &AtomicU64, number: f64| place.store(number.to_bits(), Ordering::Relaxed);
        let reports = &self.reports;
        put(&reports.utilization, utilization);
        put(&reports.requests_per_second, requests_per_second);
        put(&reports.errors_per_second, errors_per_second);
        let stamp = received.as_nanos().saturating_add(1);
        let _unless_begun = reports.utilization_since.compare_exchange(
            0,
            stamp,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        reports.utilization_received.store(stamp, Ordering::Release);
        true
    }

    /// How many reports could not be used.
    #[must_use]
    pub fn refused_reports(&self) -> u64 {
        self.reports.refused.load(Ordering::Relaxed)
    }

    /// How busy the server last said it is.
    #[must_use]
    pub fn utilization(&self) -> Option<Utilization> {
        let reports = &self.reports;
        let received = stamp(reports.utilization_received.load(Ordering::Acquire))?;
        let get = |place: &AtomicU64| f64::from_bits(place.load(Ordering::Relaxed));
        Some(Utilization {
            utilization: get(&reports.utilization),
            requests_per_second: get(&reports.requests_per_second),
            errors_per_second: get(&reports.errors_per_second),
            since: stamp(reports.utilization_since.load(Ordering::Relaxed)).unwrap_or(received),
            received,
        })
    }

    /// Forgets how busy the server said it is, because that is too long ago.
    pub fn forget_utilization(&self) {
        self.reports
            .utilization_received
            .store(0, Ordering::Relaxed);
        self.reports.utilization_since.store(0, Ordering::Relaxed);
    }

    /// Takes in how long the server says its queue is.
    pub fn report_queue(&self, under_way: u64, latency: Duration, received: Timestamp) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.reports.latency.store(nanos, Ordering::Relaxed);
        self.reports.under_way.store(under_way, Ordering::Relaxed);
        let stamp = received.as_nanos().saturating_add(1);
        self.reports.queue_received.store(stamp, Ordering::Release);
    }

    /// How long the server last said its queue is.
    #[inline]
    #[must_use]
    pub fn queue(&self) -> Option<Queue> {
        let received = stamp(self.reports.queue_received.load(Ordering::Acquire))?;
        Some(Queue {
            under_way: self.reports.under_way.load(Ordering::Relaxed),
            latency: Duration::from_nanos(self.reports.latency.load(Ordering::Relaxed)),
            received,
        })
    }
}

#[inline]
fn stamp(plus_one: u64) -> Option<Timestamp> {
    plus_one.checked_sub(1).map(Timestamp::from_nanos)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Incarnation, Instance, Member};

    fn endpoint() -> Endpoint {
        let instance = Instance::builder("s", "h", 1).with_id("a").build().unwrap();
        Endpoint::new(&Member::new(
            Arc::new(instance),
            Incarnation::from_bits(1),
            Arc::default(),
        ))
    }

    #[test]
    fn the_last_report_counts_and_the_first_one_says_since_when() {
        let (endpoint, at) = (endpoint(), Timestamp::from_nanos);
        assert_eq!((endpoint.utilization(), endpoint.queue()), (None, None));
        assert!(endpoint.report_utilization(0.5, 100.0, 1.0, at(0)));
        assert!(endpoint.report_utilization(0.6, 110.0, 0.0, at(9)));
        let report = endpoint.utilization().unwrap();
        assert_eq!(
            (report.utilization, report.requests_per_second),
            (0.6, 110.0)
        );
        assert_eq!((report.since, report.received), (at(0), at(9)));
        endpoint.forget_utilization();
        assert_eq!(endpoint.utilization(), None);
        assert!(endpoint.report_utilization(0.6, 110.0, 0.0, at(20)));
        assert_eq!(endpoint.utilization().unwrap().since, at(20));
        endpoint.report_queue(7, Duration::MAX, at(0));
        let queue = endpoint.queue().unwrap();
        assert_eq!((queue.under_way, queue.received), (7, at(0)));
    }

    #[test]
    fn reports_that_make_no_sense_are_counted_and_change_nothing() {
        let endpoint = endpoint();
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(!endpoint.report_utilization(bad, 1.0, 1.0, Timestamp::ZERO));
            assert!(!endpoint.report_utilization(1.0, bad, 1.0, Timestamp::ZERO));
            assert!(!endpoint.report_utilization(1.0, 1.0, bad, Timestamp::ZERO));
        }
        assert!(!endpoint.report_utilization(0.0, 1.0, 1.0, Timestamp::ZERO));
        assert!(!endpoint.report_utilization(1.0, 0.0, 1.0, Timestamp::ZERO));
        assert_eq!(
            (endpoint.utilization(), endpoint.refused_reports()),
            (None, 11)
        );
    }
}
