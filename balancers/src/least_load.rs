//! Least loaded by what servers publish and what this client knows better.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{
    Balancer, Capacity, Endpoint, Endpoints, Error, LoadReport, PickContext, Picker, Result, Rng,
    Timestamp, Unreported,
};

use crate::contest::{self, Candidate, Contest};
use crate::eligible::weighed;
use crate::left::only;
use crate::sample::{self, MAX_CHOICES, Sampler};

/// Draws `choices` different endpoints at random, in proportion to their shares, and picks the
/// least loaded of them, relative to its share; among equals, the one drawn first. The share of an
/// endpoint is its weight times the capacity it states; if only some state one, the others are
/// taken to have the mean of the stated ones.
///
/// An endpoint's load is what it published, plus what has begun since. Of that this client sees
/// only its own requests, and takes all clients to do as it does: with 5 of an endpoint's 100
/// requests, each further one of its own stands for 20 (the idea of C3's concurrency compensation:
/// [Suresh et al. 2015](https://www.usenix.org/conference/nsdi15/technical-sessions/presentation/suresh)).
/// A report younger than `interval` is not used yet, but the one before it: in a burst the latest
/// reports show some endpoints before it and others after it, and what looks like a difference of
/// load is one of time. An endpoint that has published nothing yet counts as loaded like the mean
/// of the other candidates: it gets a fair share rather than everything.
///
/// **Why not simply the least loaded of all?** Every client sees the same reports for as long as
/// the publish interval, and all would send everything to the same endpoint. Among a few drawn at
/// random, no endpoint gets more than `choices` times its share, however old the figures
/// ([Mitzenmacher 2000, How useful is old information?](https://doi.org/10.1109/71.824633)).
///
/// **Old reports** lose influence. The candidates of one pick are believed or not together, on
/// account of the oldest report among them: surely up to the age `trust` (a server whose load
/// stands still need not repeat it sooner), and then with a probability that halves every
/// `half_life`. A pick that does not believe compares all requests that this client has under
/// way, as [`LeastRequest`](crate::LeastRequest) does. It is a probability rather than a discount
/// because a discounted report, however small, would still decide whenever all else is equal,
/// which for a client of few requests is always.
///
/// *Pick*: O(`choices`): a random draw and a few loads for each, and no shared write but one after
/// each new report; the clock is read only if it could change the choice. *Rebuild*: O(n).
///
/// *Use it* wherever servers publish their load, above all with many clients of which each has few
/// requests under way: their own counts say little, the servers' say much. *Not* when the
/// published figure is in a unit in which one request is far from 1: own requests would then drown,
/// or drown out, the reports. And where requests are much shorter than the publish interval, a
/// report says little of the present: an endpoint then swings between none and twice its share,
/// and [`LeastRequest`](crate::LeastRequest) is calmer.
#[derive(Clone, Debug)]
pub struct LeastLoad {
    choices: usize,
    interval: Duration,
    trust: Duration,
    half_life: Duration,
}

/// Two: nearly all the gain, and the least herding on figures that all clients share.
const DEFAULT_CHOICES: usize = 2;

/// The shortest time between two publications of a server over most registries.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);

/// The age at which servers repeat an unchanged load by default: a younger report is not old.
const DEFAULT_TRUST: Duration = Duration::from_secs(60);

/// After two and a half minutes of silence one pick in eight still believes.
const DEFAULT_HALF_LIFE: Duration = Duration::from_secs(30);

impl LeastLoad {
    /// With two choices, an interval of 2 s, trust of 60 s and a half-life of 30 s.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            choices: DEFAULT_CHOICES,
            interval: DEFAULT_INTERVAL,
            trust: DEFAULT_TRUST,
            half_life: DEFAULT_HALF_LIFE,
        }
    }

    /// With this many candidates in each pick: 2 to 8. Default: 2. More than there are endpoints
    /// means all of them.
    ///
    /// More find a better endpoint while reports are fresh and herd more when they are not.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_choices(mut self, choices: usize) -> Result<Self> {
        self.choices = sample::choices(choices)?;
        Ok(self)
    }

    /// With the shortest time between two publications of a server; any. Default: 2 s, as over
    /// most registries; `Capabilities::load_interval` tells.
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// With reports believed fully up to this age; any. Default: 60 s, at which servers repeat an
    /// unchanged load by default. Set it to their maximum age of publication.
    #[must_use]
    pub const fn with_trust(mut self, trust: Duration) -> Self {
        self.trust = trust;
        self
    }

    /// With belief in older reports halving in this time; above 0. Default: 30 s.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for 0.
    pub fn with_half_life(mut self, half_life: Duration) -> Result<Self> {
        if half_life.is_zero() {
            return Err(Error::invalid("half_life", "0s", "is zero"));
        }
        self.half_life = half_life;
        Ok(self)
    }
}

impl Default for LeastLoad {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for LeastLoad {
    fn name(&self) -> &'static str {
        "least_load"
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let (endpoints, weights) = weighed(endpoints)?;
        let shares = shares(&endpoints, &weights);
        Ok(Box::new(LeastLoadPicker {
            sampler: Sampler::new(&shares),
            per_request: contest::per_request(&shares),
            endpoints,
            policy: self.clone(),
        }))
    }
}

/// How much of the load each should carry: its weight times its capacity.
fn shares(endpoints: &Endpoints, weights: &[f64]) -> Vec<f64> {
    let capacities: Vec<_> = endpoints.iter().map(|e| e.instance().capacity()).collect();
    let (count, sum) = capacities
        .iter()
        .flatten()
        .fold((0.0, 0.0), |(count, sum), capacity| {
            (count + 1.0, sum + capacity.get() as f64)
        });
    let usual = if count == 0.0 { 1.0 } else { sum / count };
    let capacity = |stated: Option<Capacity>| stated.map_or(usual, |stated| stated.get() as f64);
    weights
        .iter()
        .zip(capacities)
        .map(|(weight, c)| weight * capacity(c))
        .collect()
}

#[derive(Debug)]
struct LeastLoadPicker {
    endpoints: Endpoints,
    sampler: Sampler,
    per_request: Box<[f64]>,
    policy: LeastLoad,
}

impl Picker for LeastLoadPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        let choices = self.policy.choices;
        let drawn = self.sampler.candidates(context, &self.endpoints, choices);
        let winner = self.known(drawn.as_slice()).winner(&self.policy, context);
        self.endpoints.get(*drawn.as_slice().get(winner)?)
    }
}

impl LeastLoadPicker {
    #[inline]
    fn known(&self, drawn: &[usize]) -> Known {
        let mut known = Known {
            len: drawn.len(),
            ..Known::default()
        };
        let (mut published, mut own, mut fullness, mut count) = (0.0, 0.0, 0.0, 0.0);
        for (view, &index) in known.views.iter_mut().zip(drawn) {
            let (endpoint, per_request) = (&self.endpoints[index], self.per_request[index]);
            *view = View {
                per_request,
                own: endpoint.in_flight(),
                unreported: endpoint.unreported(),
                report: endpoint.published_load(),
            };
            if let Some(report) = view.report {
                published += report.load as f64;
                own += f64::from(view.own);
                fullness += report.load as f64 * per_request;
                count += 1.0;
                let oldest = known.oldest.unwrap_or(report.received);
                known.oldest = Some(oldest.min(report.received));
            }
        }
        known.everybody = (published / f64::max(own, 1.0)).max(1.0);
        known.mean = fullness / f64::max(count, 1.0);
        known
    }
}

/// What is known of the candidates of one pick.
#[derive(Default)]
struct Known {
    /// In the order they were drawn.
    views: [View; MAX_CHOICES],
    len: usize,
    /// For each request of this client, how many all clients have there.
    everybody: f64,
    /// How full those are that published, on average.
    mean: f64,
    oldest: Option<Timestamp>,
}

#[derive(Clone, Copy, Default)]
struct View {
    per_request: f64,
    own: u32,
    unreported: Unreported,
    report: Option<LoadReport>,
}

impl Known {
    /// The place of the winner. The clock is not read where every way of looking agrees.
    #[inline]
    fn winner(&self, policy: &LeastLoad, context: &mut PickContext<'_>) -> usize {
        let own = self.contest(|view| f64::from(view.own));
        let Some(oldest) = self.oldest else {
            return own;
        };
        let last = self.by_reports(|_| false);
        if last == own && last == self.by_reports(|_| true) {
            return last;
        }
        let now = context.now();
        if !policy.believes(now.since(oldest), context.rng()) {
            return own;
        }
        self.by_reports(|report| now.since(report.received) < policy.interval)
    }

    /// The winner by what servers published, taking the report before where `is_young` says so,
    /// and what has begun since.
    #[inline]
    fn by_reports(&self, is_young: impl Fn(&LoadReport) -> bool) -> usize {
        self.contest(|view| {
            let (load, since) = match view.report {
                Some(report) if is_young(&report) => {
                    (report.before as f64, view.unreported.since_before)
                }
                Some(report) => (report.load as f64, view.unreported.since_last),
                None => (self.mean / view.per_request, view.unreported.since_last),
            };
            load + f64::from(since) * self.everybody
        })
    }

    #[inline]
    fn contest(&self, load: impl Fn(&View) -> f64) -> usize {
        let mut contest = Contest::new();
        for view in &self.views[..self.len] {
            contest.enter(Candidate {
                load: load(view),
                per_request: view.per_request,
            });
        }
        contest.winner()
    }
}

impl LeastLoad {
    /// Draws whether a pick believes reports of which the oldest is so old.
    #[inline]
    fn believes(&self, age: Duration, rng: &mut Rng) -> bool {
        let late = age.saturating_sub(self.trust);
        if late.is_zero() {
            return true;
        }
        let half_lives = late.as_secs_f64() / self.half_life.as_secs_f64();
        rng.next_f64() < (-half_lives).exp2()
    }
}

#[cfg(test)]
mod tests;
