//! Quickest among those whose queue is not long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_discovery_api::{
    Balancer, Capabilities, Endpoint, Endpoints, PickContext, Picker, Result, Rng, Timestamp,
};

use crate::contest::{self, Candidate, Contest};
use crate::eligible::weighed;
use crate::left::only;
use crate::parameter;
use crate::sample::Sampler;

mod pool;
mod quantile;

use pool::{POOL, Pool, Report};
use quantile::Quantile;

/// Keeps a pool of up to 16 recent reports of how long servers' queues are, calls those hot that
/// are longer than most, and picks the quickest of the others; if all are hot, the one with the
/// shortest queue ([Prequal: Wydrowski, Kleinberg, Rumble, Archer
/// 2024](https://www.usenix.org/conference/nsdi24/presentation/wydrowski)).
///
/// A report says how many requests a server has under way, from all clients, and how long one
/// takes. It comes from the server's responses, if the client passes it on
/// ([`Endpoint::report_queue`]), or else from the registry: the load the server publishes, with the
/// latency that this client measures itself. The newer one counts: one in a response for 5 s, one
/// in the registry for as long as the registry vouches for it, as a load that does not change is not
/// published again at once.
///
/// # What is as in the paper
/// The pool of 16; the rule above, with a queue being hot beyond the quantile 2^-0.25, or 84 %, of
/// those seen; one request more in the pool for each request sent; the number of times a report may
/// be used, (1 + δ) / ((1 - m / n) · 3 - 1) with δ = 1 for n endpoints and a pool of m; and that
/// the oldest and the worst report make room in turns.
///
/// # What is not
/// - There are no probes. In their place each pick looks at three random endpoints, and takes into
///   the pool what these last reported. So figures are older than the paper's milliseconds, an
///   endpoint has one place in the pool at most, and a report that was used up does not come back.
/// - Who has no fresh report, and so would never be picked, gets one request in every 5 s, which
///   serves as the probe.
/// - While fewer than two reports are in the pool, the paper picks at random; here the endpoint of
///   fewer own requests under way is picked, of two drawn at random.
/// - The formula's divisor vanishes for some 24 endpoints or fewer; a report is used 16 times at
///   most.
/// - A report makes room when another needs it, not once in every pick: there are fewer of them.
/// - The paper's aversion to servers that fail fast is left to
///   [`OutlierEjection`](crate::OutlierEjection).
/// - Queues are compared relative to the endpoints' weights.
///
/// *Pick*: three random draws and the reports there, some relaxed loads each; a pass over the 16
/// places of the pool, which all threads share and every pick writes to; a reading of the clock.
/// One new report in 32 sorts out the quantile of the last 64. *Rebuild*: O(n), 32 bytes for each;
/// the pool starts empty.
///
/// *Use it* where responses carry reports, or where clients send so few requests each that most of
/// a server's queue is others'. *Not* where servers report nothing: it is then
/// [`LeastRequest`](crate::LeastRequest), at a higher price; nor where the registry's figures are
/// all there is and requests are many: each figure counts a few times only.
#[derive(Clone, Debug)]
pub struct Prequal {
    limits: Limits,
    seen: Arc<Quantile>,
}

/// For how long reports count.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Those in responses.
    reported: Duration,
    published: Duration,
    /// Whether the registry has no say in that.
    published_is_set: bool,
}

/// Half-way between latency alone (1) and queue alone (0) in the paper's sense: 2^-0.25.
const DEFAULT_QUANTILE: f64 = 0.840_896_415_253_714_6;
/// The paper's probes, three for each request, are dropped after 1 s; responses bring fewer.
const DEFAULT_AGE_LIMIT: Duration = Duration::from_secs(5);
/// The age at which servers repeat an unchanged load by default.
const DEFAULT_PUBLISHED_AGE_LIMIT: Duration = Duration::from_secs(60);
/// How many endpoints a pick looks at: as many as the paper probes.
const LOOKS: usize = 3;
/// How often a report may be used, whatever the formula says.
const MAX_USES: f64 = 16.0;

impl Prequal {
    /// With the paper's quantile.
    #[must_use]
    pub fn new() -> Self {
        Self {
            limits: Limits {
                reported: DEFAULT_AGE_LIMIT,
                published: DEFAULT_PUBLISHED_AGE_LIMIT,
                published_is_set: false,
            },
            seen: Arc::new(Quantile::new(DEFAULT_QUANTILE)),
        }
    }

    /// The part of all queues seen, 0 to 1, beyond which a queue is hot: with 0 the shortest queue
    /// always wins, with 1 nearly always the lowest latency. Default: 2^-0.25, or 0.84; the paper
    /// found 0.6 to 0.9 good.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_quantile(mut self, quantile: f64) -> Result<Self> {
        let quantile = parameter::share("quantile", quantile)?;
        self.seen = Arc::new(Quantile::new(quantile));
        Ok(self)
    }

    /// For how long a report in a response counts, and how often who has none gets a request: above
    /// zero. Default: 5 s. The paper drops its probes after 1 s, but has three for each request.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for zero.
    pub fn with_age_limit(mut self, age_limit: Duration) -> Result<Self> {
        self.limits.reported = parameter::span("age_limit", age_limit)?;
        Ok(self)
    }

    /// For how long a load in the registry counts: above zero. Default: for as long as the registry
    /// [vouches](Capabilities::vouches_for_load) for it, and where it has not told, 60 s: servers
    /// publish changes sooner, but repeat a load that does not change only then.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for zero.
    pub fn with_published_age_limit(mut self, age_limit: Duration) -> Result<Self> {
        self.limits.published = parameter::span("published_age_limit", age_limit)?;
        self.limits.published_is_set = true;
        Ok(self)
    }
}

impl Default for Prequal {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for Prequal {
    fn name(&self) -> &'static str {
        "prequal"
    }

    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        if !self.limits.published_is_set {
            self.limits.published = capabilities.vouches_for_load();
        }
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let (endpoints, weights) = weighed(endpoints)?;
        Ok(Box::new(self.picker(endpoints, &weights)))
    }
}

impl Prequal {
    fn picker(&self, endpoints: Endpoints, weights: &[f64]) -> PrequalPicker {
        PrequalPicker {
            sampler: Sampler::new(weights),
            per_request: contest::per_request(weights),
            ledger: endpoints.iter().map(|_| Ledger::default()).collect(),
            uses: uses(endpoints.len()),
            endpoints,
            limits: self.limits,
            seen: Arc::clone(&self.seen),
            pool: Pool::default(),
        }
    }
}

/// How often a report may be used, with so many endpoints.
fn uses(endpoints: usize) -> f64 {
    let pooled = POOL as f64 / endpoints as f64;
    let surplus = (1.0 - pooled) * LOOKS as f64 - 1.0;
    if surplus <= 2.0 / MAX_USES {
        MAX_USES
    } else {
        (2.0 / surplus).max(1.0)
    }
}

#[derive(Debug)]
struct PrequalPicker {
    endpoints: Endpoints,
    sampler: Sampler,
    per_request: Box<[f64]>,
    ledger: Box<[Ledger]>,
    uses: f64,
    limits: Limits,
    seen: Arc<Quantile>,
    pool: Pool,
}

/// What was made of an endpoint's last report.
#[derive(Debug, Default)]
struct Ledger {
    /// The high half tells the report by its time, the low half how often it was used.
    used: AtomicU64,
    /// When a request last went there for want of a report, in nanoseconds, plus one.
    probed: AtomicU64,
}

impl Ledger {
    /// How often this report was used.
    #[inline]
    fn uses_of(&self, received: Timestamp) -> u64 {
        let word = self.used.load(Ordering::Relaxed);
        if word >> 32 == name_of(received) {
            word & u64::from(u32::MAX)
        } else {
            0
        }
    }
}

impl Picker for PrequalPicker {
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        if self.endpoints.len() < 2 {
            return only(&self.endpoints, context);
        }
        let now = context.now();
        let drawn = self.sampler.candidates(context, &self.endpoints, LOOKS);
        for &index in drawn.as_slice() {
            match self.report(index, now) {
                Some(report) => self.take_in(index, &report, now, context.rng()),
                None if self.may_probe(index, now) => return self.endpoints.get(index),
                None => {}
            }
        }
        let (hot, exclusion) = (self.seen.get(), context.exclusion());
        let is_left = |index: usize| {
            let endpoint = self.endpoints.get(index);
            endpoint.is_some_and(|endpoint| exclusion.is_none_or(|e| !e.excludes(endpoint)))
        };
        // Another thread may have given the place to another endpoint meanwhile.
        let best = self.pool.best(now, hot, context.rng(), is_left);
        let Some(best) = best.filter(|best| is_left(best.index)) else {
            return self.endpoints.get(self.least_own(drawn.as_slice())?);
        };
        self.use_report(best.place, best.index, best.received, context.rng());
        self.endpoints.get(best.index)
    }
}

impl PrequalPicker {
    /// The newer of what the server and the registry say, of what is not too old.
    #[inline]
    fn report(&self, index: usize, now: Timestamp) -> Option<Report> {
        let endpoint = &self.endpoints[index];
        let said = endpoint.queue().map(|queue| Report {
            queue: queue.under_way as f64 + self.ledger[index].uses_of(queue.received) as f64,
            latency: Some(queue.latency),
            received: queue.received,
            until: queue.received.after(self.limits.reported),
        });
        let published = endpoint.published_load().map(|load| Report {
            queue: load.load as f64 + f64::from(endpoint.unreported().since_last),
            latency: endpoint.latency(),
            received: load.received,
            until: load.received.after(self.limits.published),
        });
        let said = said.filter(|said| now < said.until);
        let published = published.filter(|published| now < published.until);
        match (said, published) {
            (Some(said), Some(published)) if published.received > said.received => Some(published),
            (said, published) => said.or(published),
        }
    }

    fn take_in(&self, index: usize, report: &Report, now: Timestamp, rng: &mut Rng) {
        let used = self.ledger[index].uses_of(report.received);
        if used as f64 >= self.allowed(rng) {
            return;
        }
        let queue = report.queue * self.per_request[index];
        if self.pool.put(index, queue, report, now, self.seen.get()) {
            self.seen.see(queue);
        }
    }

    /// Fractions are rounded at random.
    fn allowed(&self, rng: &mut Rng) -> f64 {
        (self.uses + rng.next_f64()).floor()
    }

    /// Counts the request that now goes there.
    fn use_report(&self, place: usize, index: usize, received: Timestamp, rng: &mut Rng) {
        let used = self.ledger[index].uses_of(received) + 1;
        let word = name_of(received) << 32 | used;
        self.ledger[index].used.store(word, Ordering::Relaxed);
        if used as f64 >= self.allowed(rng) {
            self.pool.drop_from(place);
        } else {
            self.pool.lengthen(place, self.per_request[index]);
        }
    }

    /// Whether a request may go where there is no report: one in each age limit.
    fn may_probe(&self, index: usize, now: Timestamp) -> bool {
        let probed = &self.ledger[index].probed;
        let last = probed.load(Ordering::Relaxed);
        let due = last
            .checked_sub(1)
            .is_none_or(|last| now.since(Timestamp::from_nanos(last)) >= self.limits.reported);
        let stamp = now.as_nanos().saturating_add(1);
        let order = Ordering::Relaxed;
        due && probed.compare_exchange(last, stamp, order, order).is_ok()
    }

    /// `None` if none was drawn.
    fn least_own(&self, drawn: &[usize]) -> Option<usize> {
        let mut contest = Contest::new();
        for &index in drawn.iter().take(2) {
            contest.enter(Candidate {
                load: f64::from(self.endpoints[index].in_flight()),
                per_request: self.per_request[index],
            });
        }
        drawn.get(contest.winner()).copied()
    }
}

/// Tells two reports of one endpoint apart: its time in microseconds, modulo 2^32.
#[inline]
fn name_of(received: Timestamp) -> u64 {
    (received.as_nanos() / 1000) & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
