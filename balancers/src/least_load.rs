//! Least loaded by what servers publish and what this client knows better.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{
    Balancer, Capacity, Endpoint, Endpoints, Error, PickContext, Picker, Result, Timestamp,
};

use crate::contest::{self, Candidate, Contest};
use crate::eligible::{eligible, weights};
use crate::sample::{self, Sampler};

/// Draws `choices` different endpoints at random, in proportion to their shares, and picks the
/// least loaded of them, relative to its share; among equals, the one drawn first. The share of an
/// endpoint is its weight times the capacity it states; if only some state one, the others are
/// taken to have the mean of the stated ones.
///
/// An endpoint's load is what it last published, plus the requests that this client has started
/// there since the report and that the report cannot include. An endpoint that has published
/// nothing yet counts as loaded like the mean of the other candidates, plus this client's own
/// requests: it gets a fair share rather than everything.
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
    trust: Duration,
    half_life: Duration,
}

/// Two: nearly all the gain, and the least herding on figures that all clients share.
const DEFAULT_CHOICES: usize = 2;

/// The age at which servers repeat an unchanged load by default: a younger report is not old.
const DEFAULT_TRUST: Duration = Duration::from_secs(60);

/// After two and a half minutes of silence one pick in eight still believes.
const DEFAULT_HALF_LIFE: Duration = Duration::from_secs(30);

impl LeastLoad {
    /// With two choices, trust of 60 s and a half-life of 30 s.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            choices: DEFAULT_CHOICES,
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
        let endpoints = eligible(endpoints)?;
        let shares = shares(&endpoints);
        Ok(Box::new(LeastLoadPicker {
            sampler: Sampler::new(&shares),
            per_request: contest::per_request(&shares),
            endpoints,
            policy: self.clone(),
        }))
    }
}

/// How much of the load each should carry: its weight times its capacity.
fn shares(endpoints: &Endpoints) -> Vec<f64> {
    let capacities: Vec<_> = endpoints.iter().map(|e| e.instance().capacity()).collect();
    let (count, sum) = capacities
        .iter()
        .flatten()
        .fold((0.0, 0.0), |(count, sum), capacity| {
            (count + 1.0, sum + capacity.get() as f64)
        });
    let usual = if count == 0.0 { 1.0 } else { sum / count };
    let capacity = |stated: Option<Capacity>| stated.map_or(usual, |stated| stated.get() as f64);
    weights(endpoints)
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
            return self.endpoints.first();
        }
        let drawn = self.sampler.several(context.rng(), self.policy.choices);
        let known = self.known(drawn.as_slice());
        let disbelieving = known.disbelieving.winner();
        let believing = if known.silent == 0 {
            known.believing.winner()
        } else {
            self.with_silent(drawn.as_slice(), known.mean()).winner()
        };
        let winner = if believing == disbelieving || self.believes(known.oldest, context) {
            believing
        } else {
            disbelieving
        };
        self.endpoints.get(drawn.as_slice()[winner])
    }
}

/// What is known of the candidates of one pick.
struct Known {
    /// By what they published and this client's requests since, those that are silent left out.
    believing: Contest,
    /// By this client's requests alone.
    disbelieving: Contest,
    /// How many have published nothing yet.
    silent: u32,
    /// How many have, and how full these are in sum.
    published: u32,
    fullness: f64,
    oldest: Option<Timestamp>,
}

impl Known {
    fn mean(&self) -> f64 {
        if self.published == 0 {
            0.0
        } else {
            self.fullness / f64::from(self.published)
        }
    }
}

impl LeastLoadPicker {
    #[inline]
    fn known(&self, drawn: &[usize]) -> Known {
        let mut known = Known {
            believing: Contest::new(),
            disbelieving: Contest::new(),
            silent: 0,
            published: 0,
            fullness: 0.0,
            oldest: None,
        };
        for &index in drawn {
            let (endpoint, per_request) = (&self.endpoints[index], self.per_request[index]);
            let own = f64::from(endpoint.in_flight());
            known.disbelieving.enter(Candidate {
                load: own,
                per_request,
            });
            let Some(report) = endpoint.published_load() else {
                known.silent += 1;
                continue;
            };
            let published = report.load as f64;
            let load = published + f64::from(endpoint.in_flight_since_report());
            known.believing.enter(Candidate { load, per_request });
            known.published += 1;
            known.fullness += published * per_request;
            known.oldest = Some(
                known
                    .oldest
                    .map_or(report.received, |oldest| oldest.min(report.received)),
            );
        }
        known
    }

    /// The contest of those that believe, with candidates among them that have published nothing
    /// and count as full as `mean`.
    #[cold]
    fn with_silent(&self, drawn: &[usize], mean: f64) -> Contest {
        let mut contest = Contest::new();
        for &index in drawn {
            let (endpoint, per_request) = (&self.endpoints[index], self.per_request[index]);
            let published = endpoint
                .published_load()
                .map_or(mean / per_request, |report| report.load as f64);
            let load = published + f64::from(endpoint.in_flight_since_report());
            contest.enter(Candidate { load, per_request });
        }
        contest
    }

    /// Draws whether a pick trusts reports of which the oldest was received at `oldest`.
    #[inline]
    fn believes(&self, oldest: Option<Timestamp>, context: &mut PickContext<'_>) -> bool {
        let Some(oldest) = oldest else { return false };
        let late = context
            .now()
            .since(oldest)
            .saturating_sub(self.policy.trust);
        if late.is_zero() {
            return true;
        }
        let half_lives = late.as_secs_f64() / self.policy.half_life.as_secs_f64();
        context.rng().next_f64() < (-half_lives).exp2()
    }
}

#[cfg(test)]
mod tests;
