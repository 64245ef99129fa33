//! What a pick excludes, whichever algorithm picks.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_balancers::{
    Aperture, BoundedLoadHash, ClientSideWeightedRoundRobin, LeastConnections, LeastLoad,
    LeastRequest, Maglev, OutlierEjection, PeakEwma, Prequal, PriorityFailover, Random,
    RandomSubset, Rendezvous, RingHash, RoundRobin, SlowStart, Sticky, WeightedRandom,
    WeightedResponseTime, WeightedRoundRobin, ZoneAware,
};
use plimsoll_discovery_api::{
    Balancer, Clock, Endpoint, Endpoints, Exclusion, Health, Incarnation, Instance, ManualClock,
    Member, Outcome, Pick, PickContext, Picker, PublishedLoad, Rng, Zone,
};
use proptest::prelude::*;

/// An algorithm, and what it heeds.
struct Case {
    name: &'static str,
    balancer: Box<dyn Balancer>,
    /// The share of an endpoint of this weight, all else being equal.
    share: fn(f64) -> f64,
    /// Whether equal keys lead to one endpoint.
    keyed: bool,
}

fn by_weight(weight: f64) -> f64 {
    weight
}

fn evenly(_: f64) -> f64 {
    1.0
}

fn zone() -> Zone {
    Zone::new("a").expect("a valid name")
}

/// Every algorithm and every wrapper, each wrapper round one that keeps proportions exactly.
fn all() -> Vec<Case> {
    let case = |name, balancer, share, keyed| Case {
        name,
        balancer,
        share,
        keyed,
    };
    let rng = || Rng::from_seed(9);
    let plain = WeightedRandom::new;
    let table = 10_007;
    let maglev = || Maglev::new().with_table_size(table).expect("a prime");
    let bounded = BoundedLoadHash::new()
        .with_table_size(table)
        .expect("a prime");
    let eight = LeastRequest::new().with_choices(8).expect("in range");
    vec![
        case("bounded", Box::new(bounded), by_weight, true),
        case(
            "bounded over a ring",
            Box::new(BoundedLoadHash::over(RingHash::new())),
            by_weight,
            true,
        ),
        case(
            "bounded over rendezvous",
            Box::new(BoundedLoadHash::over(Rendezvous::new())),
            by_weight,
            true,
        ),
        case(
            "client side",
            Box::new(ClientSideWeightedRoundRobin::from_rng(rng())),
            evenly,
            false,
        ),
        case(
            "least connections",
            Box::new(LeastConnections::new()),
            by_weight,
            false,
        ),
        case("least load", Box::new(LeastLoad::new()), by_weight, false),
        case(
            "least request",
            Box::new(LeastRequest::new()),
            by_weight,
            false,
        ),
        case("least of eight", Box::new(eight), by_weight, false),
        case("maglev", Box::new(maglev()), by_weight, true),
        case("peak ewma", Box::new(PeakEwma::new()), by_weight, false),
        case("prequal", Box::new(Prequal::new()), by_weight, false),
        case("random", Box::new(Random::new()), evenly, false),
        case("rendezvous", Box::new(Rendezvous::new()), by_weight, true),
        case("ring hash", Box::new(RingHash::new()), by_weight, true),
        case(
            "round robin",
            Box::new(RoundRobin::from_rng(rng())),
            evenly,
            false,
        ),
        case("weighted random", Box::new(plain()), by_weight, false),
        case(
            "response time",
            Box::new(WeightedResponseTime::new()),
            by_weight,
            false,
        ),
        case(
            "weighted round robin",
            Box::new(WeightedRoundRobin::from_rng(rng())),
            by_weight,
            false,
        ),
        case(
            "aperture",
            Box::new(Aperture::new(plain(), 5, 2, 7).expect("in range")),
            by_weight,
            false,
        ),
        case(
            "aperture of maglev",
            Box::new(Aperture::new(maglev(), 5, 2, 7).expect("in range")),
            by_weight,
            true,
        ),
        case(
            "outlier ejection",
            Box::new(OutlierEjection::new(plain())),
            by_weight,
            false,
        ),
        case(
            "outlier ejection of maglev",
            Box::new(OutlierEjection::new(maglev())),
            by_weight,
            true,
        ),
        case(
            "priority failover",
            Box::new(PriorityFailover::by_metadata("level", plain)),
            by_weight,
            false,
        ),
        case(
            "random subset",
            Box::new(
                RandomSubset::new(plain(), 5)
                    .expect("in range")
                    .with_seed(1),
            ),
            by_weight,
            false,
        ),
        case(
            "slow start",
            Box::new(SlowStart::new(plain())),
            by_weight,
            false,
        ),
        case("sticky", Box::new(Sticky::new(plain())), by_weight, true),
        case(
            "zone aware",
            Box::new(ZoneAware::new(zone(), plain)),
            by_weight,
            false,
        ),
    ]
}

/// What is particular to one server.
#[derive(Clone, Debug)]
struct Server {
    weight: u32,
    zone: &'static str,
    level: u32,
    load: Option<u64>,
    under_way: usize,
    failures: usize,
}

const PLAIN: Server = Server {
    weight: 100,
    zone: "a",
    level: 0,
    load: None,
    under_way: 0,
    failures: 0,
};

/// The endpoints, and the requests under way there.
fn views(servers: &[Server], clock: &ManualClock) -> (Endpoints, Vec<Pick>) {
    let mut under_way = Vec::new();
    let mut view = |(index, server): (usize, &Server)| {
        let builder = Instance::builder("s", "h", 1)
            .with_id(format!("{index:03}"))
            .with_weight(server.weight)
            .with_zone(server.zone)
            .with_metadata("level", server.level.to_string());
        let load = Arc::new(PublishedLoad::new());
        if let Some(published) = server.load {
            load.store(published, clock.now());
        }
        let instance = Arc::new(builder.build().expect("a valid instance"));
        let endpoint = Arc::new(Endpoint::new(&Member::new(
            instance,
            Incarnation::from_bits(1),
            load,
        )));
        let fail = |_| Pick::new(&*endpoint).finish(Outcome::Failure);
        (0..server.failures).for_each(fail);
        under_way.extend((0..server.under_way).map(|_| Pick::new(Arc::clone(&endpoint))));
        endpoint
    };
    let endpoints = servers.iter().enumerate().map(&mut view).collect();
    (endpoints, under_way)
}

fn weighing(weights: &[u32]) -> Endpoints {
    let server = |&weight: &u32| Server { weight, ..PLAIN };
    let servers: Vec<_> = weights.iter().map(server).collect();
    views(&servers, &ManualClock::new()).0
}

/// A picker with randomness and time.
struct Bench {
    picker: Box<dyn Picker>,
    endpoints: Endpoints,
    rng: Rng,
    clock: ManualClock,
}

impl Bench {
    fn new(balancer: &mut dyn Balancer, endpoints: &Endpoints) -> Self {
        Self {
            picker: balancer.build(endpoints).expect("a picker"),
            endpoints: Arc::clone(endpoints),
            rng: Rng::from_seed(4),
            clock: ManualClock::new(),
        }
    }

    /// Which one is picked of those that are not `gone`.
    fn pick(&mut self, key: Option<u64>, gone: &[Arc<Endpoint>]) -> Option<usize> {
        let exclusion = Exclusion::listed(gone);
        let context = PickContext::new(&mut self.rng, &self.clock).with_key(key);
        let picked = self
            .picker
            .pick(&mut context.with_exclusion(Some(&exclusion)))?;
        self.endpoints.iter().position(|e| Arc::ptr_eq(e, picked))
    }

    fn of(&self, indices: &[usize]) -> Vec<Arc<Endpoint>> {
        indices
            .iter()
            .map(|&index| Arc::clone(&self.endpoints[index]))
            .collect()
    }

    /// How often each is picked in so many picks, of which each has another key.
    fn tally(&mut self, picks: u64, gone: &[usize]) -> Vec<u64> {
        let gone = self.of(gone);
        let mut counts = vec![0; self.endpoints.len()];
        for pick in 0..picks {
            let index = self
                .pick(Some(nth_key(pick)), &gone)
                .expect("some are left");
            counts[index] += 1;
        }
        counts
    }
}

fn nth_key(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn server() -> impl Strategy<Value = Server> {
    (
        prop_oneof![Just(0), Just(100), 1..=1_000_000_u32],
        prop_oneof![Just("a"), Just("b"), Just("c")],
        0..3_u32,
        proptest::option::of(0..1000_u64),
        0..4_usize,
        0..8_usize,
    )
        .prop_map(|(weight, zone, level, load, under_way, failures)| Server {
            weight,
            zone,
            level,
            load,
            under_way,
            failures,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn an_excluded_one_is_never_picked_and_none_only_where_all_are(
        servers in proptest::collection::vec(server(), 1..14),
        gone in proptest::collection::vec(any::<bool>(), 14),
        keys in proptest::collection::vec(proptest::option::of(any::<u64>()), 12),
    ) {
        prop_assume!(servers.iter().any(|server| server.weight > 0));
        for mut case in all() {
            let clock = ManualClock::new();
            let (endpoints, _under_way) = views(&servers, &clock);
            let mut bench = Bench::new(&mut *case.balancer, &endpoints);
            // Whoever picks is asked for its next choice until it has none: what it picks from.
            let mut found = Vec::new();
            while let Some(next) = bench.pick(keys[0], &bench.of(&found)) {
                prop_assert!(!found.contains(&next), "{}: {next} of {found:?}", case.name);
                prop_assert!(servers[next].weight > 0, "{} picked {next}", case.name);
                found.push(next);
            }
            let some = servers.iter().filter(|server| server.weight > 0).count();
            let partial = ["aperture", "aperture of maglev", "random subset"];
            let all = found.len() == some || partial.contains(&case.name) && !found.is_empty();
            prop_assert!(all, "{} picks from {:?} only", case.name, found);
            let excluded: Vec<_> = (0..servers.len()).filter(|&index| gone[index]).collect();
            let is_left = found.iter().any(|index| !excluded.contains(index));
            for &key in &keys {
                let picked = bench.pick(key, &bench.of(&excluded));
                prop_assert_eq!(picked.is_some(), is_left, "{}: {:?}", case.name, excluded);
                prop_assert!(
                    picked.is_none_or(|index| found.contains(&index) && !excluded.contains(&index)),
                    "{} picked {picked:?} in spite of {excluded:?}", case.name
                );
            }
        }
    }
}

/// Chi-square over 4 endpoints (3 degrees of freedom) for 20,000 picks: a correct algorithm that
/// draws at random exceeds 31 with probability below 1e-6. A ring's arcs vary by 8 % themselves,
/// for which it is given 3,000. Seeds are fixed.
#[test]
fn those_that_are_left_keep_their_proportions_whatever_the_others_weigh() {
    for weights in [[1, 2, 3, 4, 10], [5, 1, 1, 2, 100_000]] {
        for mut case in all() {
            let is_ring = case.name.contains("ring");
            if is_ring && weights[4] > 10 {
                // The lightest have a point or two, whose arcs say little of their weight.
                continue;
            }
            let mut bench = Bench::new(&mut *case.balancer, &weighing(&weights));
            let counts = bench.tally(20_000, &[4]);
            assert_eq!(counts[4], 0, "{}", case.name);
            let shares: Vec<_> = weights[..4]
                .iter()
                .map(|&w| (case.share)(w.into()))
                .collect();
            let whole: f64 = shares.iter().sum();
            let term = |(&count, share): (&u64, f64)| {
                let due = 20_000.0 * share / whole;
                (count as f64 - due).powi(2) / due
            };
            let chi_square: f64 = counts.iter().zip(shares).map(term).sum();
            let limit = if is_ring { 3_000.0 } else { 31.0 };
            assert!(
                chi_square < limit,
                "{}, weights {weights:?}: {chi_square}, {counts:?}",
                case.name
            );
        }
    }
}

#[test]
fn equal_keys_have_one_second_and_one_third_choice() {
    for case in &mut all().iter_mut().filter(|case| case.keyed) {
        let endpoints = weighing(&[1, 2, 3, 4, 5]);
        let mut bench = Bench::new(&mut *case.balancer, &endpoints);
        let mut moved = [0; 5];
        for key in 0..500 {
            let key = Some(nth_key(key));
            let first = bench.pick(key, &[]).expect("there are five");
            let second = bench.pick(key, &bench.of(&[first])).expect("four are left");
            let third = bench
                .pick(key, &bench.of(&[first, second]))
                .expect("three are left");
            for _ in 0..3 {
                assert_eq!(
                    bench.pick(key, &bench.of(&[first])),
                    Some(second),
                    "{}",
                    case.name
                );
                let next = bench.pick(key, &bench.of(&[second, first]));
                assert_eq!(next, Some(third), "{}", case.name);
                assert_eq!(
                    bench.pick(key, &[]),
                    Some(first),
                    "{} did not return",
                    case.name
                );
            }
            if first == 4 {
                moved[second] += 1;
            }
        }
        let spread = moved[..4].iter().all(|&count| count > 0);
        assert!(spread, "{}: the keys of one went to {moved:?}", case.name);
    }
}

#[test]
fn where_the_order_is_the_algorithms_own_the_second_choice_is_that_without_the_first() {
    let orders: [fn() -> Box<dyn Balancer>; 2] =
        [|| Box::new(Rendezvous::new()), || Box::new(RingHash::new())];
    for order in orders {
        let all = weighing(&[100; 5]);
        let mut bench = Bench::new(&mut *order(), &all);
        let without: Endpoints = all[1..].iter().map(Arc::clone).collect();
        let mut other = Bench::new(&mut *order(), &without);
        for key in 0..2_000 {
            let key = Some(nth_key(key));
            let second = bench.pick(key, &all[..1]);
            assert_eq!(second, other.pick(key, &[]).map(|index| index + 1));
        }
    }
}

#[test]
fn a_second_choice_goes_by_load_and_latency_as_the_first_does() {
    let clock = ManualClock::new();
    let loaded = |load, under_way| Server {
        load: Some(load),
        under_way,
        ..PLAIN
    };
    let servers = [loaded(0, 0), loaded(50, 5), loaded(10, 1), loaded(50, 5)];
    let (all, _under_way) = views(&servers, &clock);
    for (endpoint, millis) in all.iter().zip([1, 50, 10, 50]) {
        let latency = Duration::from_millis(millis);
        Pick::new(&**endpoint).finish_at(Outcome::Success, latency, clock.now());
        endpoint.report_queue(100 * millis, latency, clock.now());
    }
    let balancers: [Box<dyn Balancer>; 5] = [
        Box::new(LeastLoad::new().with_choices(8).expect("in range")),
        Box::new(LeastRequest::new().with_choices(8).expect("in range")),
        Box::new(PeakEwma::new().with_choices(8).expect("in range")),
        Box::new(LeastConnections::new()),
        Box::new(Prequal::new().with_quantile(0.0).expect("in range")),
    ];
    for mut balancer in balancers {
        let name = balancer.name();
        let mut bench = Bench::new(&mut *balancer, &all);
        // Prequal has to have seen all, and uses a report 16 times at most.
        bench.tally(6, &[]);
        assert_eq!(bench.tally(5, &[])[0], 5, "{name}");
        assert_eq!(bench.tally(5, &[0])[2], 5, "{name}");
    }
}

#[test]
fn a_second_choice_is_not_ejected_while_another_is_left() {
    let all = weighing(&[100; 6]);
    all[5].eject(plimsoll_discovery_api::Timestamp::from_nanos(u64::MAX));
    let inner: [Box<dyn Balancer>; 4] = [
        Box::new(Maglev::new().with_table_size(101).expect("a prime")),
        Box::new(Sticky::new(LeastLoad::new())),
        Box::new(SlowStart::new(RoundRobin::starting_at(0))),
        Box::new(LeastConnections::new()),
    ];
    for inner in inner {
        let name = inner.name();
        let mut bench = Bench::new(&mut OutlierEjection::new(inner), &all);
        assert_eq!(bench.tally(500, &[0])[5], 0, "{name}");
        assert_eq!(bench.tally(500, &[0, 1, 2, 3])[4], 500, "{name}");
        let last = bench.tally(10, &[0, 1, 2, 3, 4]);
        assert_eq!(last[5], 10, "{name}: it is better than none");
    }
}

/// Each of 5 old ones is due 1 / (5 + 0.1) of 20,000 picks, the new one a tenth of that: 392 with a
/// deviation of 20. It is an inner picker's second choice as often as its first.
#[test]
fn a_second_choice_is_eased_in_as_the_first_is() {
    let old = weighing(&[100; 6]);
    let mut balancer = SlowStart::new(Random::new());
    drop(balancer.build(&old).expect("a picker"));
    let mut servers: Vec<_> = old.iter().map(Arc::clone).collect();
    servers.push(Arc::clone(&weighing(&[100; 7])[6]));
    let mut bench = Bench::new(&mut balancer, &servers.into());
    for gone in [&[] as &[usize], &[0]] {
        let gone = bench.of(gone);
        let mut count = 0_u32;
        for _ in 0..20_000 {
            count += u32::from(bench.pick(None, &gone) == Some(6));
        }
        let left = 6.0 - gone.len() as f64;
        // Kept for a tenth of its picks; the others of its picks go to the old ones.
        let due = 20_000.0 / (left + 1.0) * 0.1;
        let deviation = due.sqrt();
        assert!(
            (f64::from(count) - due).abs() < 5.0 * deviation,
            "{count}, not {due}"
        );
    }
}

#[test]
fn a_second_choice_keeps_to_the_zone_the_level_and_the_subset() {
    let server = |zone, level| Server {
        zone,
        level,
        ..PLAIN
    };
    let servers = [
        server("a", 0),
        server("a", 0),
        server("a", 0),
        server("b", 1),
        server("b", 1),
        server("b", 1),
    ];
    let (all, _) = views(&servers, &ManualClock::new());
    let wrappers: [Box<dyn Balancer>; 2] = [
        Box::new(ZoneAware::new(zone(), Random::new)),
        Box::new(PriorityFailover::by_metadata("level", Random::new)),
    ];
    for mut wrapper in wrappers {
        let name = wrapper.name();
        let mut bench = Bench::new(&mut *wrapper, &all);
        assert_eq!(bench.tally(200, &[0])[3..], [0; 3], "{name}");
        assert_eq!(bench.tally(200, &[0, 1])[2], 200, "{name}");
        let beyond = bench.tally(200, &[0, 1, 2]);
        assert!(
            beyond[3..].iter().all(|&count| count > 30),
            "{name}: {beyond:?}"
        );
    }
    let mut subset = RandomSubset::new(Random::new(), 2).expect("in range");
    let mut bench = Bench::new(&mut subset, &all);
    let first = bench.pick(None, &[]).expect("there are two");
    let second = bench.pick(None, &bench.of(&[first])).expect("one is left");
    assert_eq!(bench.pick(None, &bench.of(&[first, second])), None);
}

#[test]
fn a_second_choice_overflows_as_the_first_does() {
    let busy = |under_way| Server { under_way, ..PLAIN };
    let (all, _under_way) = views(&[busy(0), busy(9), busy(0), busy(9)], &ManualClock::new());
    for mut balancer in [
        Box::new(BoundedLoadHash::new()) as Box<dyn Balancer>,
        Box::new(BoundedLoadHash::over(RingHash::new())),
        Box::new(BoundedLoadHash::over(Rendezvous::new())),
    ] {
        let mut bench = Bench::new(&mut *balancer, &all);
        // 1.25 / 4 of 19 is 6: two are full.
        let counts = bench.tally(500, &[]);
        assert_eq!(counts[1] + counts[3], 0);
        assert_eq!(bench.tally(500, &[0])[2], 500);
    }
}

#[test]
fn unusable_ones_of_a_level_stay_unused_for_a_second_choice() {
    let (all, _) = views(&vec![PLAIN; 8], &ManualClock::new());
    all[7].set_health(Health::Unhealthy);
    let mut failover = PriorityFailover::by_metadata("level", Random::new);
    let mut bench = Bench::new(&mut failover, &all);
    assert_eq!(bench.tally(500, &[0, 1])[7], 0);
    assert_eq!(bench.pick(None, &bench.of(&[0, 1, 2, 3, 4, 5, 6])), None);
}
