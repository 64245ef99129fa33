use std::time::Duration;

use plimsoll_discovery_api::{Clock, Outcome, Pick};

use super::*;
use crate::testing::{
    Bench, assert_shares, assert_small_sets, assert_uniform, endpoints, weighted,
};

fn report(bench: &Bench, endpoint: &Endpoint, outcome: Outcome, millis: u64) {
    Pick::new(endpoint).finish_at(outcome, Duration::from_millis(millis), bench.clock.now());
}

/// A bench over endpoints that have answered in these times.
fn measured(millis: &[u64]) -> (Endpoints, Bench) {
    let all = endpoints(millis.len());
    let bench = Bench::new(PeakEwma::new(), &all, 1);
    for (endpoint, &millis) in all.iter().zip(millis) {
        report(&bench, endpoint, Outcome::Success, millis);
    }
    (all, bench)
}

#[test]
fn the_quicker_of_two_is_picked_until_requests_pile_up_there() {
    let (_all, mut bench) = measured(&[10, 35]);
    let under_way: Vec<_> = (0..4).map(|_| bench.begin()).collect();
    let first = under_way
        .iter()
        .filter(|p| p.endpoint().id().as_str() == "000000")
        .count();
    // 10, 20 and 30 ms against 35, then 40 against 35.
    assert_eq!(first, 3);
}

#[test]
fn a_slow_answer_repels_at_once_and_is_forgotten_within_a_minute() {
    let (all, mut bench) = measured(&[10, 10]);
    report(&bench, &all[0], Outcome::Success, 500);
    assert_eq!(bench.tally(100), [0, 100]);
    // The other one is measured all the time, as it takes all the traffic.
    let mut waited = 0;
    while bench.index() == 1 {
        bench.advance(Duration::from_secs(1));
        report(&bench, &all[1], Outcome::Success, 10);
        waited += 1;
    }
    // 500 ms sink below 10 after 10 s * ln 50 = 39.1 s.
    assert_eq!(waited, 40);
}

#[test]
fn failing_quickly_does_not_attract() {
    let (all, mut bench) = measured(&[10, 10]);
    for _ in 0..100 {
        report(&bench, &all[0], Outcome::Failure, 1);
        assert_eq!(bench.index(), 1);
    }
}

#[test]
fn an_endpoint_never_measured_gets_one_request_at_a_time() {
    let all = endpoints(2);
    let mut bench = Bench::new(PeakEwma::new(), &all, 1);
    report(&bench, &all[0], Outcome::Success, 10);
    let probe = bench.begin();
    assert_eq!(probe.endpoint().id().as_str(), "000001");
    assert_eq!(bench.tally(100), [100, 0]);
    probe.finish_at(
        Outcome::Success,
        Duration::from_millis(5),
        bench.clock.now(),
    );
    assert_eq!(bench.tally(100), [0, 100]);
}

#[test]
fn without_measurements_it_is_least_request() {
    let all = endpoints(5);
    let mut bench = Bench::new(PeakEwma::new(), &all, 2);
    assert_uniform(&bench.tally(10_000));
    let _under_way: Vec<_> = (0..500).map(|_| bench.begin()).collect();
    assert!(all.iter().all(|e| e.in_flight().abs_diff(100) <= 5));
}

#[test]
fn plain_latency_stands_in() {
    let all = endpoints(2);
    for (endpoint, millis) in all.iter().zip([30, 10]) {
        Pick::new(&**endpoint).finish_after(Outcome::Success, Duration::from_millis(millis));
    }
    assert_eq!(Bench::new(PeakEwma::new(), &all, 1).tally(100), [0, 100]);
}

#[test]
fn equally_quick_endpoints_share_by_weight() {
    let all = weighted(&[10, 20, 70]);
    let mut bench = Bench::new(PeakEwma::new(), &all, 3);
    for endpoint in all.iter() {
        report(&bench, endpoint, Outcome::Success, 10);
    }
    assert_shares(&bench.tally(20_000), &[10.0, 20.0, 70.0]);
    let _under_way: Vec<_> = (0..1000).map(|_| bench.begin()).collect();
    for (endpoint, due) in all.iter().zip([100, 200, 700_u32]) {
        assert!(endpoint.in_flight().abs_diff(due) <= 20, "{endpoint:?}");
    }
}

#[test]
fn choices_out_of_range_are_refused_and_small_sets_are_handled() {
    assert!(PeakEwma::new().with_choices(1).is_err());
    assert_small_sets(PeakEwma::new);
}
