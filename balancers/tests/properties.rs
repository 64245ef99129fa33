//! What holds for every algorithm on every set.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_balancers::{
    Aperture, BoundedLoadHash, ClientSideWeightedRoundRobin, LeastConnections, LeastLoad,
    LeastRequest, Maglev, OutlierEjection, PeakEwma, Prequal, PriorityFailover, Random,
    RandomSubset, Rendezvous, RingHash, RoundRobin, SlowStart, Sticky, WeightedRandom,
    WeightedResponseTime, WeightedRoundRobin, ZoneAware,
};
use plimsoll_discovery_api::{
    Balancer, Clock, Endpoint, Endpoints, ErrorKind, Incarnation, Instance, ManualClock, Member,
    Outcome, Pick, PickContext, PublishedLoad, Rng, Zone,
};
use proptest::prelude::*;

/// One endpoint: its weight, capacity, published load, and this client's requests there.
#[derive(Clone, Debug)]
struct Case {
    weight: u32,
    capacity: Option<u64>,
    load: Option<u64>,
    under_way: usize,
    latency: Option<Duration>,
}

fn case() -> impl Strategy<Value = Case> {
    let weight = prop_oneof![Just(0), Just(100), 1..=1_000_000_u32];
    let capacity = proptest::option::of(prop_oneof![1..1000_u64, Just(u64::MAX)]);
    let load = proptest::option::of(prop_oneof![0..1000_u64, Just(u64::MAX)]);
    let latency = proptest::option::of((0..10_000_000_000_u64).prop_map(Duration::from_nanos));
    (weight, capacity, load, 0..20_usize, latency).prop_map(
        |(weight, capacity, load, under_way, latency)| Case {
            weight,
            capacity,
            load,
            under_way,
            latency,
        },
    )
}

/// The endpoints of `cases`, and the requests under way there.
fn endpoints(cases: &[Case], clock: &ManualClock) -> (Endpoints, Vec<Pick>) {
    let mut under_way = Vec::new();
    let mut view = |(index, case): (usize, &Case)| {
        let mut builder = Instance::builder("s", "h", 1)
            .with_id(format!("{index:03}"))
            .with_weight(case.weight)
            .with_zone(["a", "b", "c"][index % 3])
            .with_metadata("level", (index % 2).to_string());
        if let Some(capacity) = case.capacity {
            builder = builder.with_capacity(capacity);
        }
        let published = Arc::new(PublishedLoad::new());
        if let Some(load) = case.load {
            published.store(load, clock.now());
        }
        let instance = Arc::new(builder.build().expect("a valid instance"));
        let member = Member::new(instance, Incarnation::from_bits(1), published);
        let endpoint = Arc::new(Endpoint::new(&member));
        if let Some(latency) = case.latency {
            Pick::new(&*endpoint).finish_at(Outcome::Success, latency, clock.now());
            endpoint.report_queue(index as u64, latency, clock.now());
            endpoint.report_utilization(latency.as_secs_f64(), 10.0, 1.0, clock.now());
            if case.under_way > 12 {
                (0..5).for_each(|_| Pick::new(&*endpoint).finish(Outcome::Failure));
            }
        }
        under_way.extend((0..case.under_way).map(|_| Pick::new(Arc::clone(&endpoint))));
        endpoint
    };
    let endpoints = cases.iter().enumerate().map(&mut view).collect();
    (endpoints, under_way)
}

fn all(seed: u64) -> Vec<Box<dyn Balancer>> {
    let rng = || Rng::from_seed(seed);
    vec![
        Box::new(
            BoundedLoadHash::new()
                .with_table_size(1009)
                .expect("a prime"),
        ),
        Box::new(BoundedLoadHash::over(RingHash::new())),
        Box::new(BoundedLoadHash::over(Rendezvous::new())),
        Box::new(LeastConnections::new()),
        Box::new(LeastLoad::new()),
        Box::new(LeastLoad::new().with_choices(8).expect("in range")),
        Box::new(LeastRequest::new()),
        Box::new(LeastRequest::new().with_choices(5).expect("in range")),
        Box::new(Maglev::new().with_table_size(1009).expect("a prime")),
        Box::new(PeakEwma::new()),
        Box::new(Random::new()),
        Box::new(Rendezvous::new()),
        Box::new(RingHash::new()),
        Box::new(RoundRobin::from_rng(rng())),
        Box::new(WeightedRandom::new()),
        Box::new(WeightedResponseTime::new()),
        Box::new(WeightedRoundRobin::from_rng(rng())),
        Box::new(Aperture::new(WeightedRandom::new(), 3, 2, 7).expect("in range")),
        Box::new(ClientSideWeightedRoundRobin::from_rng(rng())),
        Box::new(OutlierEjection::new(LeastLoad::new())),
        Box::new(Prequal::new()),
        Box::new(PriorityFailover::by_metadata("level", LeastLoad::new)),
        Box::new(
            RandomSubset::new(LeastLoad::new(), 3)
                .expect("in range")
                .with_seed(seed),
        ),
        Box::new(SlowStart::new(LeastRequest::new())),
        Box::new(Sticky::new(LeastLoad::new())),
        Box::new(ZoneAware::new(
            Zone::new("a").expect("a valid name"),
            LeastLoad::new,
        )),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_pick_is_of_the_set_and_has_weight_and_there_is_one_wherever_there_can_be(
        sets in proptest::collection::vec(proptest::collection::vec(case(), 0..12), 1..4),
        seed in any::<u64>(),
        age in 0..1_000_u64,
        keys in proptest::collection::vec(proptest::option::of(any::<u64>()), 20),
    ) {
        for mut balancer in all(seed) {
            let name = balancer.name();
            let mut rng = Rng::from_seed(seed);
            let clock = ManualClock::new();
            for cases in &sets {
                let (endpoints, _under_way) = endpoints(cases, &clock);
                clock.advance(Duration::from_secs(age));
                let some_weight = cases.iter().any(|case| case.weight > 0);
                let picker = match balancer.build(&endpoints) {
                    Ok(picker) => picker,
                    Err(error) => {
                        prop_assert!(!cases.is_empty() && !some_weight, "{name}: {error}");
                        prop_assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                        continue;
                    }
                };
                prop_assert!(cases.is_empty() || some_weight, "{name} built on no weight");
                for &key in &keys {
                    let mut context = PickContext::new(&mut rng, &clock).with_key(key);
                    match picker.pick(&mut context) {
                        None => prop_assert!(cases.is_empty(), "{name} picked none"),
                        Some(picked) => {
                            let found = endpoints.iter().position(|e| Arc::ptr_eq(e, picked));
                            prop_assert!(
                                found.is_some_and(|index| cases[index].weight > 0),
                                "{name} picked {picked:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}
