//! What the tests of all algorithms share.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{
    Balancer, Clock, Endpoint, Endpoints, ErrorKind, Incarnation, Instance, InstanceBuilder,
    ManualClock, Member, Pick, PickContext, Picker, PublishedLoad, Result, Rng,
};

/// A server as its registry entry; its load can be published.
pub(crate) struct Server {
    member: Member,
    pub(crate) endpoint: Arc<Endpoint>,
}

impl Server {
    pub(crate) fn new(id: &str) -> Self {
        Self::with(id, |builder| builder)
    }

    pub(crate) fn with(id: &str, edit: impl FnOnce(InstanceBuilder) -> InstanceBuilder) -> Self {
        Self::built(edit(Instance::builder("s", "h", 1).with_id(id)))
    }

    pub(crate) fn at(id: &str, host: &str, port: u16) -> Self {
        Self::built(Instance::builder("s", host, port).with_id(id))
    }

    fn built(builder: InstanceBuilder) -> Self {
        let instance = builder.build().unwrap();
        let load = Arc::new(PublishedLoad::new());
        let member = Member::new(Arc::new(instance), Incarnation::from_bits(1), load);
        let endpoint = Arc::new(Endpoint::new(&member));
        Self { member, endpoint }
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    pub(crate) fn publish(&self, load: u64, clock: &ManualClock) {
        self.member.load().store(load, clock.now());
    }
}

/// The endpoints of `servers`, which are in the order of their ids.
pub(crate) fn views(servers: &[Server]) -> Endpoints {
    servers
        .iter()
        .map(|server| Arc::clone(&server.endpoint))
        .collect()
}

/// `n` servers whose ids sort like their indices.
pub(crate) fn servers(n: usize) -> Vec<Server> {
    (0..n)
        .map(|index| Server::new(&format!("{index:06}")))
        .collect()
}

pub(crate) fn endpoints(n: usize) -> Endpoints {
    views(&servers(n))
}

/// One endpoint for each weight.
pub(crate) fn weighted(weights: &[u32]) -> Endpoints {
    let server = |(index, &weight): (usize, &u32)| {
        Server::with(&format!("{index:06}"), |builder| {
            builder.with_weight(weight)
        })
    };
    views(&weights.iter().enumerate().map(server).collect::<Vec<_>>())
}

/// A balancer at work: its picker for one set, with randomness and time of its own.
pub(crate) struct Bench {
    pub(crate) balancer: Box<dyn Balancer>,
    pub(crate) picker: Box<dyn Picker>,
    pub(crate) rng: Rng,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) key: Option<u64>,
    endpoints: Endpoints,
}

impl Bench {
    pub(crate) fn new(balancer: impl Balancer, endpoints: &Endpoints, seed: u64) -> Self {
        let mut balancer: Box<dyn Balancer> = Box::new(balancer);
        let picker = balancer.build(endpoints).unwrap();
        Self {
            balancer,
            picker,
            rng: Rng::from_seed(seed),
            clock: Arc::default(),
            key: None,
            endpoints: Arc::clone(endpoints),
        }
    }

    pub(crate) fn rebuild(&mut self, endpoints: &Endpoints) {
        self.picker = self.balancer.build(endpoints).unwrap();
        self.endpoints = Arc::clone(endpoints);
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }

    pub(crate) fn pick(&mut self) -> Option<Arc<Endpoint>> {
        let mut context = PickContext::new(&mut self.rng, &*self.clock).with_key(self.key);
        self.picker.pick(&mut context).map(Arc::clone)
    }

    /// Picks and counts the request as in flight.
    pub(crate) fn begin(&mut self) -> Pick {
        Pick::new(self.pick().unwrap())
    }

    /// The id that is picked.
    pub(crate) fn id(&mut self) -> String {
        self.pick().unwrap().id().to_string()
    }

    /// Where in the present list the pick falls.
    pub(crate) fn index(&mut self) -> usize {
        let picked = self.pick().unwrap();
        self.endpoints
            .binary_search_by(|e| e.id().cmp(picked.id()))
            .unwrap()
    }

    /// How often each endpoint is picked in `picks` picks.
    pub(crate) fn tally(&mut self, picks: usize) -> Vec<u64> {
        let mut counts = vec![0; self.endpoints.len()];
        for _ in 0..picks {
            counts[self.index()] += 1;
        }
        counts
    }
}

/// Heeds no exclusion, as a picker of somebody else's may not.
#[derive(Debug)]
pub(crate) struct Deaf<T>(T);

impl<T> Deaf<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self(inner)
    }
}

impl<B: Balancer> Balancer for Deaf<B> {
    fn name(&self) -> &'static str {
        "deaf"
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        Ok(Box::new(Deaf(self.0.build(endpoints)?)))
    }
}

impl Picker for Deaf<Box<dyn Picker>> {
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        self.0.pick(&mut context.reborrow().with_exclusion(None))
    }
}

/// Pearson's statistic for `counts` against shares proportional to `weights`.
pub(crate) fn chi_square(counts: &[u64], weights: &[f64]) -> f64 {
    let (total, whole) = (
        counts.iter().sum::<u64>() as f64,
        weights.iter().sum::<f64>(),
    );
    let term = |(&count, weight): (&u64, &f64)| {
        let expected = total * weight / whole;
        (count as f64 - expected).powi(2) / expected
    };
    counts.iter().zip(weights).map(term).sum()
}

/// Fails if `counts` are too far from shares proportional to `weights`.
///
/// The limit is the quantile of the chi-square distribution at 4.75 standard deviations, by
/// Wilson and Hilferty: a correct algorithm fails with probability 1e-6 for a random seed, and
/// the seeds are fixed. A sample that fits too well (below the quantile at -4.75) was not drawn
/// at random and fails as well, where `n` allows to tell.
pub(crate) fn assert_shares(counts: &[u64], weights: &[f64]) {
    assert!(
        counts.iter().sum::<u64>() as f64 >= 5.0 * weights.len() as f64,
        "too few"
    );
    let freedom = weights.len() as f64 - 1.0;
    let spread = 2.0 / (9.0 * freedom);
    let quantile = |deviations: f64| freedom * (1.0 - spread + deviations * spread.sqrt()).powi(3);
    let chi_square = chi_square(counts, weights);
    let (low, high) = (quantile(-4.75), quantile(4.75));
    assert!(
        low < chi_square && chi_square < high,
        "{chi_square} not in {low}..{high}: {counts:?}"
    );
}

pub(crate) fn assert_uniform(counts: &[u64]) {
    assert_shares(counts, &vec![1.0; counts.len()]);
}

/// What every algorithm owes: none of none, one of one, nothing to the weightless, and an error
/// if there is nothing else.
pub(crate) fn assert_small_sets<B: Balancer>(balancer: impl Fn() -> B) {
    let mut none = Bench::new(balancer(), &endpoints(0), 1);
    assert!(none.pick().is_none());
    let mut one = Bench::new(balancer(), &endpoints(1), 1);
    for key in [None, Some(0), Some(u64::MAX)] {
        one.key = key;
        assert_eq!(one.tally(10), [10]);
    }
    let mut some = Bench::new(balancer(), &weighted(&[0, 5, 0, 5, 0]), 1);
    let mut counts = [0_u64; 5];
    for key in 0..200_u64 {
        some.key = Some(key.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        counts[some.index()] += 1;
    }
    assert_eq!((counts[0], counts[2], counts[4]), (0, 0, 0), "{counts:?}");
    assert!(counts[1] > 0 && counts[3] > 0, "{counts:?}");
    let error = balancer().build(&weighted(&[0, 0])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    some.rebuild(&endpoints(0));
    assert!(some.pick().is_none());
}

/// The `n`-th of the keys that tests use: well mixed.
fn nth_key(n: u64) -> Option<u64> {
    Some(crate::hash::mix(n ^ 0x5EED))
}

impl Bench {
    /// How many of `keys` keys each endpoint gets.
    pub(crate) fn tally_keys(&mut self, keys: u64) -> Vec<u64> {
        let mut counts = vec![0; self.endpoints.len()];
        for key in 0..keys {
            self.key = nth_key(key);
            counts[self.index()] += 1;
        }
        counts
    }
}

const KEYS: u64 = 20_000;

/// Which endpoint each of 20,000 keys goes to.
pub(crate) fn owners(balancer: impl Balancer, endpoints: &Endpoints) -> Vec<String> {
    let mut bench = Bench::new(balancer, endpoints, 1);
    let owner = |key| {
        bench.key = nth_key(key);
        bench.id()
    };
    (0..KEYS).map(owner).collect()
}

/// Which share of the keys has another owner.
pub(crate) fn moved(before: &[String], after: &[String]) -> f64 {
    let count = before
        .iter()
        .zip(after)
        .filter(|(before, after)| before != after)
        .count();
    count as f64 / before.len() as f64
}

/// Fails if two clients disagree on a key, or one client does before and after a detour.
pub(crate) fn assert_keys_stay<B: Balancer>(balancer: impl Fn() -> B) {
    let (all, weights) = (endpoints(20), weighted(&[1, 5, 2, 9, 3]));
    for set in [&all, &weights] {
        let once = owners(balancer(), set);
        let mut detour = balancer();
        drop(detour.build(&endpoints(7)).unwrap());
        assert_eq!(once, owners(detour, set));
    }
}
