use std::thread;

use plimsoll_discovery_api::{Clock, ManualClock, Pick};

use super::*;
use crate::testing::{Bench, assert_small_sets, endpoints, weighted};

const SECOND: Duration = Duration::from_secs(1);

fn balancer() -> ClientSideWeightedRoundRobin {
    ClientSideWeightedRoundRobin::from_rng(Rng::from_seed(1))
}

fn report(bench: &Bench, endpoint: &Endpoint, utilization: f64, rps: f64, eps: f64) {
    assert!(endpoint.report_utilization(utilization, rps, eps, bench.clock.now()));
}

/// Endpoints that report so many requests per second at a utilization of 1, and count.
fn reporting(rates: &[f64]) -> (Endpoints, Bench) {
    let all = endpoints(rates.len());
    let bench = Bench::new(balancer(), &all, 1);
    for (endpoint, &rate) in all.iter().zip(rates).filter(|(_, rate)| **rate > 0.0) {
        report(&bench, endpoint, 1.0, rate, 0.0);
    }
    bench.advance(10 * SECOND);
    (all, bench)
}

/// Turns are regular, so counts are exact but for a few turns at both ends.
fn assert_turns(bench: &mut Bench, shares: &[f64]) {
    let counts = bench.tally(6000);
    let sum: f64 = shares.iter().sum();
    for (count, share) in counts.iter().zip(shares) {
        let due = 6000.0 * share / sum;
        assert!(
            (*count as f64 - due).abs() < 4.0,
            "{counts:?} for {shares:?}"
        );
    }
}

#[test]
fn turns_are_in_proportion_to_requests_by_utilization() {
    let all = endpoints(3);
    let mut bench = Bench::new(balancer(), &all, 1);
    report(&bench, &all[0], 0.5, 100.0, 0.0);
    report(&bench, &all[1], 0.25, 100.0, 0.0);
    report(&bench, &all[2], 0.5, 300.0, 0.0);
    bench.advance(10 * SECOND);
    assert_turns(&mut bench, &[200.0, 400.0, 600.0]);
}

#[test]
fn errors_cost_and_the_penalty_says_how_much() {
    for (penalty, shares) in [
        (1.0, [200.0, 80.0]),
        (0.0, [200.0, 200.0]),
        (0.5, [200.0, 80.0 / 0.7]),
    ] {
        let all = endpoints(2);
        let balancer = balancer().with_error_penalty(penalty).unwrap();
        let mut bench = Bench::new(balancer, &all, 1);
        report(&bench, &all[0], 0.5, 100.0, 0.0);
        report(&bench, &all[1], 0.5, 100.0, 75.0);
        bench.advance(10 * SECOND);
        assert_turns(&mut bench, &[shares[0], 100.0 / (0.5 + 0.75 * penalty)]);
    }
}

#[test]
fn who_does_not_report_weighs_as_much_as_the_mean() {
    let (_all, mut bench) = reporting(&[100.0, 0.0, 300.0, 0.0]);
    assert_turns(&mut bench, &[100.0, 200.0, 300.0, 200.0]);
}

#[test]
fn with_fewer_than_two_reports_turns_are_equal() {
    let (_all, mut bench) = reporting(&[100.0, 0.0, 0.0]);
    let turns: Vec<_> = (0..3).map(|_| bench.index()).collect();
    for turn in 0..300 {
        assert_eq!(bench.index(), turns[turn % 3]);
    }
}

#[test]
fn reports_count_after_the_blackout_and_until_they_expire() {
    let all = endpoints(2);
    let mut bench = Bench::new(balancer(), &all, 1);
    let all_report = |bench: &Bench| {
        report(bench, &all[0], 1.0, 100.0, 0.0);
        report(bench, &all[1], 1.0, 300.0, 0.0);
    };
    all_report(&bench);
    bench.advance(9 * SECOND);
    assert_turns(&mut bench, &[1.0, 1.0]);
    bench.advance(SECOND);
    assert_turns(&mut bench, &[1.0, 3.0]);
    bench.advance(169 * SECOND);
    assert_turns(&mut bench, &[1.0, 3.0]);
    bench.advance(SECOND);
    assert_turns(&mut bench, &[1.0, 1.0]);
    // After the silence it takes a blackout again.
    all_report(&bench);
    bench.advance(9 * SECOND);
    assert_turns(&mut bench, &[1.0, 1.0]);
    bench.advance(SECOND);
    assert_turns(&mut bench, &[1.0, 3.0]);
}

#[test]
fn weights_are_computed_once_in_a_period() {
    let (all, mut bench) = reporting(&[100.0, 100.0]);
    assert_turns(&mut bench, &[1.0, 1.0]);
    report(&bench, &all[1], 1.0, 300.0, 0.0);
    bench.advance(SECOND / 2);
    assert_turns(&mut bench, &[1.0, 1.0]);
    bench.advance(SECOND / 2);
    assert_turns(&mut bench, &[1.0, 3.0]);
}

#[test]
fn registry_weights_do_not_count_but_zero_does() {
    let all = weighted(&[100, 1, 0, 1000]);
    let mut bench = Bench::new(balancer(), &all, 1);
    assert_turns(&mut bench, &[1.0, 1.0, 0.0, 1.0]);
    for endpoint in all.iter() {
        report(&bench, endpoint, 1.0, 50.0, 0.0);
    }
    bench.advance(10 * SECOND);
    assert_turns(&mut bench, &[1.0, 1.0, 0.0, 1.0]);
}

#[test]
fn a_rebuild_keeps_weights_and_goes_on() {
    let (all, mut bench) = reporting(&[100.0, 300.0, 200.0]);
    let mut counts = [0_u32; 3];
    for _ in 0..600 {
        bench.rebuild(&all);
        counts[bench.index()] += 1;
    }
    assert!(
        counts[0].abs_diff(100) < 4 && counts[1].abs_diff(300) < 4,
        "{counts:?}"
    );
}

#[test]
fn clients_do_not_start_together() {
    let first = |seed| {
        let balancer = ClientSideWeightedRoundRobin::from_rng(Rng::from_seed(seed));
        Bench::new(balancer, &endpoints(10), 1).index()
    };
    let mut starts: Vec<_> = (0..100).map(first).collect();
    starts.sort_unstable();
    starts.dedup();
    // One of ten is missing with a probability of 10 * 0.9^100 < 3e-4, and three with 1e-11.
    assert!(starts.len() > 7, "{starts:?}");
}

/// Servers of these capacities, in requests per second, serve 1,000 a second for a minute; returns
/// the utilization of each in the last second.
fn utilizations(capacities: &[f64]) -> Vec<f64> {
    let all = endpoints(capacities.len());
    let mut bench = Bench::new(balancer(), &all, 2);
    let mut last = Vec::new();
    for _ in 0..60 {
        let counts = bench.tally(1000);
        let served = counts
            .iter()
            .zip(capacities)
            .map(|(&count, capacity)| count as f64 / capacity);
        last = served.collect();
        for ((endpoint, &count), &utilization) in all.iter().zip(&counts).zip(&last) {
            report(&bench, endpoint, utilization, count as f64, 0.0);
        }
        bench.advance(SECOND);
    }
    last
}

#[test]
fn unequal_servers_come_to_equal_utilization() {
    let last = utilizations(&[100.0, 200.0, 400.0, 800.0]);
    // 1,000 of 1,500.
    assert!(
        last.iter().all(|u| (u - 2.0 / 3.0).abs() < 0.05),
        "{last:?}"
    );
}

#[test]
fn threads_share_turns_while_weights_change() {
    let all = endpoints(4);
    let clock = ManualClock::new();
    for (endpoint, rate) in all.iter().zip([100.0, 200.0, 300.0, 400.0]) {
        assert!(endpoint.report_utilization(1.0, rate, 0.0, clock.now()));
    }
    clock.advance(10 * SECOND);
    let picker = balancer().build(&all).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut rng = Rng::from_seed(1);
                for _ in 0..10_000 {
                    let picked = picker
                        .pick(&mut PickContext::new(&mut rng, &clock))
                        .unwrap();
                    Pick::new(&**picked).finish(plimsoll_discovery_api::Outcome::Success);
                    clock.advance(Duration::from_millis(1));
                }
            });
        }
    });
    for (endpoint, due) in all.iter().zip([4000_u64, 8000, 12_000, 16_000]) {
        // A thread that reads an old weight may be off by a turn in each of 40 updates.
        assert!(
            endpoint.successes().abs_diff(due) < 200,
            "{}",
            endpoint.successes()
        );
    }
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let refused = [
        (balancer().with_expiration(Duration::ZERO), "expiration"),
        (balancer().with_update_period(SECOND / 11), "update_period"),
        (balancer().with_error_penalty(-1.0), "error_penalty"),
        (balancer().with_error_penalty(f64::NAN), "error_penalty"),
    ];
    for (result, field) in refused {
        let error = result.unwrap_err();
        assert_eq!(error.context().next().map(|(name, _)| name), Some(field));
    }
}

#[test]
fn small_and_weightless_sets_are_handled() {
    assert_small_sets(balancer);
}
