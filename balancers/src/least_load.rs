//! Least loaded by what servers publish and what this client knows better.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{
    Balancer, Capabilities, Capacity, Endpoint, Endpoints, Error, LoadReport, PickContext, Picker,
    Result, Rng, Timestamp, Unreported,
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
/// **Reports that outlive requests** are no witnesses of the present. Where requests last 5 ms and
/// the report is of a second ago, every request that it counts has ended, and what this client has
/// under way now is known exactly. So a report is read as a count of requests, of which after an
/// age a there are e^(-a / l) left, l being the latency that this client measures there
/// ([`Endpoint::latency`]): that is the probability with which a pick takes it so, for the
/// candidate for which it is lowest. Else own requests decide, and of other clients' what is
/// [usual](plimsoll_discovery_api::Others) there: the part by which that differs from the other
/// candidates' by more than twice as much as it usually deviates. What lasts is thus told from what has come and
/// gone: another client's standing load counts, a wave that all clients have made and answered since
/// does not. Where no latency is measured, as with long connections, reports are taken as they are.
///
/// **Old reports** lose influence. The candidates of one pick are believed or not together, on
/// account of the oldest report among them: surely for as long as the registry
/// [vouches](Capabilities::vouches_for_load) for it (a server whose load stands need not repeat it
/// sooner), and then with a probability that halves every `half_life`. A pick that does not believe
/// compares all requests that this client has under way, as
/// [`LeastRequest`](crate::LeastRequest) does. Both are probabilities rather than discounts because
/// a discounted report, however small, would still decide whenever all else is equal, which for a
/// client of few requests is always.
///
/// *Pick*: O(`choices`): a random draw and a few loads for each, and no shared write but some after
/// each new report; the clock is read only if it could change the choice. *Rebuild*: O(n).
///
/// *Use it* wherever servers publish their load, above all with many clients of which each has few
/// requests under way: their own counts say little, the servers' say much. *Not* when the
/// published figure is in a unit in which one request is far from 1: own requests would then drown,
/// or drown out, the reports.
///
/// Plimsoll's client tells it what the registry [can do](Balancer::set_capabilities), which sets
/// `interval` and `trust`; without a client, [`for_registry`](Self::for_registry) does.
#[derive(Clone, Debug)]
pub struct LeastLoad {
    choices: usize,
    interval: Setting,
    trust: Setting,
    half_life: Duration,
}

/// A time that the registry knows, unless the user knows better.
#[derive(Clone, Copy, Debug)]
struct Setting {
    of_registry: Duration,
    by_user: Option<Duration>,
}

impl Setting {
    const fn new(unless_told: Duration) -> Self {
        Self {
            of_registry: unless_told,
            by_user: None,
        }
    }

    fn get(self) -> Duration {
        self.by_user.unwrap_or(self.of_registry)
    }
}

/// Two: nearly all the gain, and the least herding on figures that all clients share.
const DEFAULT_CHOICES: usize = 2;

/// The shortest time between two publications of a server over most registries.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);

/// The age at which servers repeat an unchanged load over most registries: a younger report is not
/// old.
const DEFAULT_TRUST: Duration = Duration::from_secs(60);

/// A minute and a half beyond its time, one pick in eight still believes a report.
const DEFAULT_HALF_LIFE: Duration = Duration::from_secs(30);

/// How many mean deviations of single reports chance is granted. Where reports vary at random, 2 are
/// 1.6 standard deviations of one, and 4 of what is usual, which is smoothed over some seven.
const DEVIATIONS: f64 = 2.0;

impl LeastLoad {
    /// With two choices and a half-life of 30 s; interval and trust are the registry's, and where
    /// nobody tells them 2 s and 60 s.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            choices: DEFAULT_CHOICES,
            interval: Setting::new(DEFAULT_INTERVAL),
            trust: Setting::new(DEFAULT_TRUST),
            half_life: DEFAULT_HALF_LIFE,
        }
    }

    /// The same for loads from a registry of these capabilities, for whoever builds pickers without
    /// a client that tells.
    #[must_use]
    pub fn for_registry(capabilities: &Capabilities) -> Self {
        let mut balancer = Self::new();
        balancer.set_capabilities(capabilities);
        balancer
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

    /// With the shortest time between two publications of a server; any. Default: the registry's
    /// [`load_interval`](Capabilities::load_interval), or 2 s.
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval.by_user = Some(interval);
        self
    }

    /// With reports believed fully up to this age; any. Default: for as long as the registry
    /// [vouches](Capabilities::vouches_for_load) for them, or 60 s. With less, an unchanged load is
    /// lost from sight before it is repeated.
    #[must_use]
    pub const fn with_trust(mut self, trust: Duration) -> Self {
        self.trust.by_user = Some(trust);
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

    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        self.interval.of_registry = capabilities.load_interval;
        self.trust.of_registry = capabilities.vouches_for_load();
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let (endpoints, weights) = weighed(endpoints)?;
        let shares = shares(&endpoints, &weights);
        Ok(Box::new(LeastLoadPicker {
            sampler: Sampler::new(&shares),
            per_request: contest::per_request(&shares),
            endpoints,
            policy: Policy {
                choices: self.choices,
                interval: self.interval.get(),
                trust: self.trust.get(),
                half_life: self.half_life,
            },
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
    policy: Policy,
}

#[derive(Clone, Copy, Debug)]
struct Policy {
    choices: usize,
    interval: Duration,
    trust: Duration,
    half_life: Duration,
}

impl Picker for LeastLoadPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        let choices = self.policy.choices;
        let drawn = self.sampler.candidates(context, &self.endpoints, choices);
        let winner = self.winner(drawn.as_slice(), context);
        self.endpoints.get(*drawn.as_slice().get(winner)?)
    }
}

impl LeastLoadPicker {
    /// The place of the winner. The clock is not read where reports and own requests agree.
    #[inline]
    fn winner(&self, drawn: &[usize], context: &mut PickContext<'_>) -> usize {
        let known = self.known(drawn);
        let own = known.contest(|view| f64::from(view.own));
        let Some(oldest) = known.oldest else {
            return own;
        };
        let last = known.by_reports(|_| false);
        if last == own && last == known.by_reports(|_| true) {
            return last;
        }
        let now = context.now();
        if !self.policy.believes(now.since(oldest), context.rng()) {
            return own;
        }
        if self.are_outlived(drawn, &known, now, context.rng()) {
            return self.by_what_is_usual(drawn, &known, now);
        }
        known.by_reports(|report| now.since(report.received) < self.policy.interval)
    }

    /// Draws whether a pick takes the requests that reports count for ended.
    #[inline]
    fn are_outlived(&self, drawn: &[usize], known: &Known, now: Timestamp, rng: &mut Rng) -> bool {
        let mut lives = 0.0_f64;
        for (view, &index) in known.views.iter().zip(drawn) {
            if let (Some(report), Some(latency)) = (view.report, self.endpoints[index].latency()) {
                let age = now.since(report.received);
                lives = lives.max(age.as_secs_f64() / latency.as_secs_f64());
            }
        }
        lives > 0.0 && rng.next_f64() >= (-lives).exp()
    }

    /// The winner by own requests, and by what others usually have there, so far as that stands out
    /// of the common.
    fn by_what_is_usual(&self, drawn: &[usize], known: &Known, now: Timestamp) -> usize {
        let mut fullness = [None; MAX_CHOICES];
        let (mut sum, mut count, mut deviation) = (0.0, 0.0, 0.0);
        for ((place, view), &index) in fullness.iter_mut().zip(&known.views).zip(drawn) {
            if let Some(others) = self.endpoints[index].others(now) {
                let usual = others.usual.max(0.0) * view.per_request;
                *place = Some(usual);
                sum += usual;
                count += 1.0;
                deviation = f64::max(deviation, others.deviation * view.per_request);
            }
        }
        let mean = sum / f64::max(count, 1.0);
        let mut contest = Contest::new();
        for (view, fullness) in known.views[..known.len].iter().zip(fullness) {
            // One of which nothing is known is taken to be as the others.
            let off = fullness.map_or(0.0, |fullness| fullness - mean);
            let lasting = (off.abs() - DEVIATIONS * deviation).max(0.0).copysign(off);
            contest.enter(Candidate {
                load: f64::from(view.own) + (mean + lasting) / view.per_request,
                per_request: view.per_request,
            });
        }
        contest.winner()
    }

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

impl Policy {
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
