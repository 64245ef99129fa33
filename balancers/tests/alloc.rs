//! No pick allocates.

use std::hint::black_box;
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
    Member, Outcome, Pick, PickContext, PublishedLoad, Rng, Zone,
};

/// Endpoints of different weights, capacities, zones and levels; every third has published a load,
/// and every other one reports in its responses.
fn endpoints(n: u32, clock: &ManualClock) -> Endpoints {
    let view = |index: u32| {
        let builder = Instance::builder("s", "h", 1)
            .with_id(format!("{index:06}"))
            .with_weight(1 + index % 10)
            .with_capacity(u64::from(10 + index % 7))
            .with_zone(["a", "b", "b"][index as usize % 3])
            .with_metadata("level", (index % 2).to_string());
        let instance = Arc::new(builder.build().expect("a valid instance"));
        let load = Arc::new(PublishedLoad::new());
        if index.is_multiple_of(3) {
            load.store(u64::from(index), clock.now());
        }
        let member = Member::new(instance, Incarnation::from_bits(1), load);
        let endpoint = Endpoint::new(&member);
        if index.is_multiple_of(2) {
            let rate = f64::from(1 + index % 5);
            assert!(endpoint.report_utilization(0.5, rate, 0.1, clock.now()));
            endpoint.report_queue(u64::from(index % 4), Duration::from_millis(5), clock.now());
        }
        if index % 5 == 1 {
            endpoint.set_health(Health::Unhealthy);
        }
        Arc::new(endpoint)
    };
    (0..n).map(view).collect()
}

fn allocations_of_picks(mut balancer: impl Balancer, n: u32) -> u64 {
    let clock = ManualClock::new();
    let endpoints = endpoints(n, &clock);
    // A part of them is there from the start, the others join.
    let early = endpoints[..endpoints.len() * 2 / 3]
        .iter()
        .map(Arc::clone)
        .collect();
    drop(balancer.build(&early).expect("a picker"));
    let picker = balancer.build(&endpoints).expect("a picker");
    let mut rng = Rng::from_seed(1);
    // Old enough for every branch that depends on age.
    clock.advance(Duration::from_secs(90));
    let mut pick = |key: Option<u64>| {
        let mut context = PickContext::new(&mut rng, &clock).with_key(key);
        let endpoint = picker.pick(&mut context).expect("there are endpoints");
        let exclusion = Exclusion::listed(std::slice::from_ref(endpoint));
        let mut context = context.with_exclusion(Some(&exclusion));
        black_box(picker.pick(&mut context));
        let latency = Duration::from_micros(key.unwrap_or(1) % 1000);
        // Some endpoints fail always; and time goes on, so that whatever is due at times happens.
        let fails = endpoint.id().as_str().ends_with('7');
        let outcome = if fails {
            Outcome::Failure
        } else {
            Outcome::Success
        };
        black_box(Pick::new(&**endpoint)).finish_at(outcome, latency, clock.now());
        endpoint.report_queue(key.unwrap_or(1) % 7, latency, clock.now());
        clock.advance(Duration::from_millis(20));
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

fn home() -> Zone {
    Zone::new("a").expect("a valid name")
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
    picks_of_aperture_allocate_nothing: Aperture::new(LeastLoad::new(), 3, 2, 7).unwrap();
    picks_of_bounded_load_hash_allocate_nothing: BoundedLoadHash::new();
    picks_of_bounded_load_hash_over_a_ring_allocate_nothing: BoundedLoadHash::over(RingHash::new());
    picks_of_bounded_load_hash_over_rendezvous_allocate_nothing: BoundedLoadHash::over(Rendezvous::new());
    picks_of_client_side_weighted_round_robin_allocate_nothing: ClientSideWeightedRoundRobin::new();
    picks_of_least_connections_allocate_nothing: LeastConnections::new();
    picks_of_least_load_allocate_nothing: LeastLoad::new();
    picks_of_least_load_among_eight_allocate_nothing: LeastLoad::new().with_choices(8).unwrap();
    picks_of_least_request_allocate_nothing: LeastRequest::new();
    picks_of_maglev_allocate_nothing: Maglev::new();
    picks_of_outlier_ejection_allocate_nothing: OutlierEjection::new(LeastRequest::new());
    picks_of_peak_ewma_allocate_nothing: PeakEwma::new();
    picks_of_prequal_allocate_nothing: Prequal::new();
    picks_of_priority_failover_allocate_nothing: PriorityFailover::by_metadata("level", LeastLoad::new);
    picks_of_random_allocate_nothing: Random::new();
    picks_of_random_subset_allocate_nothing: RandomSubset::new(Maglev::new(), 3).unwrap();
    picks_of_rendezvous_allocate_nothing: Rendezvous::new();
    picks_of_ring_hash_allocate_nothing: RingHash::new();
    picks_of_round_robin_allocate_nothing: RoundRobin::new();
    picks_of_slow_start_allocate_nothing: SlowStart::new(LeastLoad::new());
    picks_of_sticky_allocate_nothing: Sticky::new(LeastLoad::new());
    picks_of_weighted_random_allocate_nothing: WeightedRandom::new();
    picks_of_weighted_response_time_allocate_nothing: WeightedResponseTime::new();
    picks_of_weighted_round_robin_allocate_nothing: WeightedRoundRobin::new();
    picks_of_zone_aware_allocate_nothing: ZoneAware::new(home(), LeastLoad::new);
    picks_of_wrappers_in_wrappers_allocate_nothing: OutlierEjection::new(SlowStart::new(Sticky::new(
        ZoneAware::new(home(), || OutlierEjection::new(SlowStart::new(LeastConnections::new())))
    )));
}
