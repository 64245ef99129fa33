//! Who fails.

use std::cell::LazyCell;
use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Admission, Endpoint, Endpoints, Timestamp};

use super::FailureAccrual;

/// A request given up sooner than this many times the others' latency says nothing.
const PATIENCE: u32 = 2;

/// One that waited for this many times the others' latency says as much as several.
const GREAT_PATIENCE: u32 = 10;

/// Why an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Unreachable,
    TimingOut,
    GivenUp,
    Failing,
    Outlier,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "it could not be reached",
            Self::TimingOut => "requests to it time out",
            Self::GivenUp => "requests to it are given up while others answer",
            Self::Failing => "requests to it fail in a row",
            Self::Outlier => "its success rate is far below that of the others",
        })
    }
}

/// What there is to say of failures in a row.
pub(super) struct Failing {
    /// Who fails, each with the strongest cause.
    pub(super) found: Vec<(Arc<Endpoint>, Cause)>,
    /// Whether the requests of any other were given up, and it may soon show what that means.
    pub(super) undecided: bool,
}

pub(super) fn failing(rules: &FailureAccrual, endpoints: &Endpoints) -> Failing {
    let mut undecided = false;
    // Made once, and only if somebody is given up on.
    let answers = LazyCell::new(|| Answers::of(endpoints));
    let mut cause_of = |endpoint: &Arc<Endpoint>| {
        if endpoint.admission() != Admission::Admitted {
            None
        } else if endpoint.unreachable() > 0 {
            Some(Cause::Unreachable)
        } else if endpoint.timeouts() >= rules.timeouts {
            Some(Cause::TimingOut)
        } else if is_given_up(rules, endpoint, &answers) {
            Some(Cause::GivenUp)
        } else if endpoint.consecutive_failures() >= rules.failures {
            Some(Cause::Failing)
        } else {
            undecided |= endpoint.given_up().is_some();
            None
        }
    };
    let failing = |endpoint: &Arc<Endpoint>| Some((Arc::clone(endpoint), cause_of(endpoint)?));
    let found = endpoints.iter().filter_map(failing).collect();
    Failing { found, undecided }
}

/// Whether its requests are given up one after the other, or one after a very long time, while
/// others answer much sooner and it answers nobody.
fn is_given_up(
    rules: &FailureAccrual,
    endpoint: &Endpoint,
    answers: &LazyCell<Answers, impl FnOnce() -> Answers>,
) -> bool {
    let Some((count, since, waited)) = endpoint.given_up() else {
        return false;
    };
    if endpoint.answered_at().is_some_and(|at| at > since) {
        return false;
    }
    let patience = if count >= rules.given_up {
        PATIENCE
    } else {
        GREAT_PATIENCE
    };
    answers
        .mean_latency_since(since)
        .is_some_and(|mean| waited >= mean.saturating_mul(patience))
}

/// When each endpoint last answered, latest first, with the sum of the latencies up to there.
struct Answers(Vec<(Timestamp, Duration)>);

impl Answers {
    fn of(endpoints: &Endpoints) -> Self {
        let answer =
            |endpoint: &Arc<Endpoint>| Some((endpoint.answered_at()?, endpoint.latency()?));
        let mut answers: Vec<_> = endpoints.iter().filter_map(answer).collect();
        answers.sort_unstable_by_key(|(at, _)| Reverse(*at));
        let mut sum = Duration::ZERO;
        for (_, latency) in &mut answers {
            sum = sum.saturating_add(*latency);
            *latency = sum;
        }
        Self(answers)
    }

    /// Of those that have answered after `since`.
    fn mean_latency_since(&self, since: Timestamp) -> Option<Duration> {
        let count = self.0.partition_point(|(at, _)| *at > since);
        let (_, sum) = self.0.get(count.checked_sub(1)?)?;
        Some(*sum / u32::try_from(count).unwrap_or(u32::MAX))
    }
}

/// Those whose success rate in the interval that ends is too far below the mean.
pub(super) fn outliers(
    rules: &FailureAccrual,
    endpoints: &Endpoints,
) -> Vec<(Arc<Endpoint>, Cause)> {
    let rate_of = |endpoint: &Arc<Endpoint>| {
        let counts = endpoint.admission() == Admission::Admitted;
        counts
            .then(|| {
                rules
                    .rates
                    .of(endpoint.recent_successes(), endpoint.recent_failures())
            })
            .flatten()
    };
    let Some(floor) = rules.rates.floor(endpoints.iter().filter_map(rate_of)) else {
        return Vec::new();
    };
    let below = |endpoint: &&Arc<Endpoint>| rate_of(endpoint).is_some_and(|rate| rate < floor);
    let outlier = |endpoint: &Arc<Endpoint>| (Arc::clone(endpoint), Cause::Outlier);
    endpoints.iter().filter(below).map(outlier).collect()
}
