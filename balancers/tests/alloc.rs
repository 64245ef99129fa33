//! No pick allocates.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_balancers::{
    BoundedLoadHash, LeastConnections, LeastLoad, LeastRequest, Maglev, PeakEwma, Random,
    Rendezvous, RingHash, RoundRobin, WeightedRandom, WeightedResponseTime, WeightedRoundRobin,
};
use plimsoll_discovery_api::{
    Balancer, Clock, Endpoint, Endpoints, Incarnation, Instance, ManualClock, Member, Outcome,
    Pick, PickContext, PublishedLoad, Rng,
};

/// Endpoints of different weights and capacities; every third has published a load.
fn endpoints(n: u32, clock: &ManualClock) -> Endpoints {
    let view = |index: u32| {
        let builder = Instance::builder("s", "h", 1)
            .with_id(format!("{index:06}"))
            .with_weight(1 + index % 10)
            .with_capacity(u64::from(10 + index % 7));
        let instance = Arc::new(builder.build().expect("a valid instance"));
        let load = Arc::new(PublishedLoad::new());
        if index.is_multiple_of(3) {
            load.store(u64::from(index), clock.now());
        }
        Arc::new(Endpoint::new(&Member::new(
            instance,
            Incarnation::from_bits(1),
            load,
        )))
    };
    (0..n).map(view).collect()
}

fn allocations_of_picks(mut balancer: impl Balancer, n: u32) -> u64 {
    let clock = ManualClock::new();
    let endpoints = endpoints(n, &clock);
    let picker = balancer.build(&endpoints).expect("a picker");
    let mut rng = Rng::from_seed(1);
    // Old enough for every branch that depends on age.
    clock.advance(Duration::from_secs(90));
    let mut pick = |key: Option<u64>| {
        let mut context = PickContext::new(&mut rng, &clock).with_key(key);
        let endpoint = picker.pick(&mut context).expect("there are endpoints");
        let latency = Duration::from_micros(key.unwrap_or(1) % 1000);
        black_box(Pick::new(&**endpoint)).finish_at(Outcome::Success, latency, clock.now());
    };
    let measured = allocation_counter::measure(|| {
        for key in 0..2000_u64 {
            pick(None);
            pick(Some(key.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        }
    });
    measured.count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(
        allocation_counter::measure(|| drop(black_box(Box::new(1)))).count_total,
        1
    );
}

macro_rules! never_allocate {
    ($($name:ident: $balancer:expr;)*) => {$(
        #[test]
        fn $name() {
            for n in [1, 2, 10, 1000] {
                assert_eq!(allocations_of_picks($balancer, n), 0, "{n} endpoints");
            }
        }
    )*};
}

never_allocate! {
    picks_of_bounded_load_hash_allocate_nothing: BoundedLoadHash::new();
    picks_of_least_connections_allocate_nothing: LeastConnections::new();
    picks_of_least_load_allocate_nothing: LeastLoad::new();
    picks_of_least_load_among_eight_allocate_nothing: LeastLoad::new().with_choices(8).unwrap();
    picks_of_least_request_allocate_nothing: LeastRequest::new();
    picks_of_maglev_allocate_nothing: Maglev::new();
    picks_of_peak_ewma_allocate_nothing: PeakEwma::new();
    picks_of_random_allocate_nothing: Random::new();
    picks_of_rendezvous_allocate_nothing: Rendezvous::new();
    picks_of_ring_hash_allocate_nothing: RingHash::new();
    picks_of_round_robin_allocate_nothing: RoundRobin::new();
    picks_of_weighted_random_allocate_nothing: WeightedRandom::new();
    picks_of_weighted_response_time_allocate_nothing: WeightedResponseTime::new();
    picks_of_weighted_round_robin_allocate_nothing: WeightedRoundRobin::new();
}
