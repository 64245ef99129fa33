//! Who is left out, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll_discovery_api::{Endpoint, Endpoints, Rng, Timestamp};

use crate::SuccessRates;
use crate::eligible::is_well;

/// What is added to an ejection at most, as a part of it: endpoints ejected together do not come
/// back together.
const JITTER: f64 = 0.1;

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) consecutive_failures: u32,
    pub(super) success_rates: SuccessRates,
    pub(super) interval: Duration,
    pub(super) first_ejection: Duration,
    pub(super) max_ejection: Duration,
    pub(super) max_ejected: f64,
    pub(super) panic_below: f64,
}

/// The reasons are with the methods that change them.
impl Default for Rules {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            success_rates: SuccessRates::default(),
            interval: Duration::from_secs(10),
            first_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: 0.1,
            panic_below: 0.5,
        }
    }
}

/// When to evaluate next, and who may change anything now. It outlives every picker, lest rebuilds
/// put the evaluation off for ever.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// In nanoseconds of a [`Timestamp`].
    next: AtomicU64,
    busy: AtomicBool,
}

impl Schedule {
    /// The right to change, or `None` at once if another thread has it.
    fn enter(&self) -> Option<Turn<'_>> {
        (!self.busy.swap(true, Ordering::Acquire)).then_some(Turn(self))
    }
}

struct Turn<'a>(&'a Schedule);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// Judges one set of endpoints.
#[derive(Debug)]
pub(super) struct Detector {
    rules: Rules,
    endpoints: Endpoints,
    schedule: Arc<Schedule>,
    ejected: AtomicUsize,
    /// How many may be.
    limit: usize,
    panics: AtomicBool,
}

impl Detector {
    pub(super) fn new(rules: Rules, endpoints: Endpoints, schedule: Arc<Schedule>) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length"
        )]
        let limit = (endpoints.len() as f64 * rules.max_ejected) as usize;
        let detector = Self {
            rules,
            endpoints,
            schedule,
            ejected: AtomicUsize::new(0),
            limit: limit.max(1),
            panics: AtomicBool::new(false),
        };
        detector.count();
        detector
    }

    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Whether so few are usable that nobody is left out.
    #[inline]
    pub(super) fn panics(&self) -> bool {
        self.panics.load(Ordering::Relaxed)
    }

    /// Whether `endpoint` may be taken now; one that has failed too often is ejected on the spot.
    #[inline]
    pub(super) fn admits(&self, endpoint: &Endpoint, now: Timestamp, rng: &mut Rng) -> bool {
        match endpoint.ejected_until() {
            None if endpoint.consecutive_failures() < self.rules.consecutive_failures => true,
            None => !self.eject_failing(endpoint, now, rng),
            Some(until) if until <= now => {
                self.readmit(endpoint, now);
                true
            }
            Some(_) => false,
        }
    }

    #[inline]
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        now.as_nanos() >= self.schedule.next.load(Ordering::Relaxed)
    }

    /// What is done once in every interval, by whoever comes first.
    #[cold]
    pub(super) fn evaluate(&self, now: Timestamp, rng: &mut Rng) {
        let Some(_turn) = self.schedule.enter() else {
            return;
        };
        if !self.is_due(now) {
            return;
        }
        let next = now.after(self.rules.interval).as_nanos();
        self.schedule.next.store(next, Ordering::Relaxed);
        for endpoint in self.endpoints.iter() {
            match endpoint.ejected_until() {
                None => endpoint.forgive_ejection(),
                Some(until) if until <= now => endpoint.readmit(),
                Some(_) => {}
            }
        }
        self.count();
        self.eject_outliers(now, rng);
        self.count();
        self.endpoints.iter().for_each(|e| e.count_anew());
    }

    /// Whether it is ejected now.
    #[cold]
    fn eject_failing(&self, endpoint: &Endpoint, now: Timestamp, rng: &mut Rng) -> bool {
        if self.ejected.load(Ordering::Relaxed) >= self.limit {
            return false;
        }
        let Some(_turn) = self.schedule.enter() else {
            return false;
        };
        // What was seen before may have been changed by who had the turn before.
        if endpoint.ejected_until().is_none()
            && endpoint.consecutive_failures() >= self.rules.consecutive_failures
        {
            self.count();
            self.eject(endpoint, now, rng);
            self.count();
        }
        endpoint.ejected_until().is_some()
    }

    #[cold]
    fn readmit(&self, endpoint: &Endpoint, now: Timestamp) {
        if let Some(_turn) = self.schedule.enter()
            && endpoint.ejected_until().is_some_and(|until| until <= now)
        {
            endpoint.readmit();
            self.count();
        }
    }

    /// Those whose success rate is too far below the mean. The walk starts anywhere, lest the same
    /// ones always meet the limit.
    fn eject_outliers(&self, now: Timestamp, rng: &mut Rng) {
        let rates = self.endpoints.iter().filter_map(|e| self.success_rate(e));
        let Some(floor) = self.rules.success_rates.floor(rates) else {
            return;
        };
        let n = self.endpoints.len();
        let start = rng.below(n);
        for endpoint in self.endpoints[start..]
            .iter()
            .chain(&self.endpoints[..start])
        {
            if self.success_rate(endpoint).is_some_and(|rate| rate < floor) {
                self.eject(endpoint, now, rng);
            }
        }
    }

    /// In this interval; `None` if it is ejected or had too few requests.
    fn success_rate(&self, endpoint: &Endpoint) -> Option<f64> {
        let rates = &self.rules.success_rates;
        match endpoint.ejected_until() {
            None => rates.of(endpoint.recent_successes(), endpoint.recent_failures()),
            Some(_) => None,
        }
    }

    /// Unless the limit is reached. For who has the turn, and counts before and after.
    fn eject(&self, endpoint: &Endpoint, now: Timestamp, rng: &mut Rng) {
        if self.ejected.load(Ordering::Relaxed) >= self.limit {
            return;
        }
        let times = endpoint.ejections().saturating_add(1);
        let span = self.rules.first_ejection.saturating_mul(times);
        let span = span.min(self.rules.max_ejection);
        let jitter = (span.as_secs_f64() * JITTER * rng.next_f64()).min(1e9);
        endpoint.eject(now.after(span).after(Duration::from_secs_f64(jitter)));
        self.ejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Brings up to date who is out: exact for who has the turn.
    fn count(&self) {
        let (mut ejected, mut usable) = (0, 0);
        for endpoint in self.endpoints.iter() {
            let out = endpoint.ejected_until().is_some();
            ejected += usize::from(out);
            usable += usize::from(!out && is_well(endpoint));
        }
        let enough = usable as f64 >= self.endpoints.len() as f64 * self.rules.panic_below;
        self.ejected.store(ejected, Ordering::Relaxed);
        self.panics.store(!enough, Ordering::Relaxed);
    }
}
