use std::thread;

use plimsoll_discovery_api::{Clock, Health, Incarnation, Outcome, Pick, Rng, Weight};

use super::*;
use crate::testing::{Bench, Server, assert_small_sets, endpoints, moved, views};
use crate::{LeastRequest, Maglev, PeakEwma, Random, RoundRobin};

const SECOND: Duration = Duration::from_secs(1);

fn end(endpoint: &Endpoint, outcome: Outcome, times: u32) {
    (0..times).for_each(|_| Pick::new(endpoint).finish(outcome));
}

fn ejected(endpoints: &Endpoints) -> usize {
    endpoints
        .iter()
        .filter(|e| e.ejected_until().is_some())
        .count()
}

/// A bench in which all endpoints have been picked at least once: of 10, one is missed by 500
/// picks with a probability of 10 * 0.9^500 < 1e-21.
fn bench(endpoints: &Endpoints) -> Bench {
    let mut bench = Bench::new(OutlierEjection::new(Random::new()), endpoints, 1);
    bench.tally(500);
    bench
}

#[test]
fn five_failures_in_a_row_eject_and_four_or_interrupted_ones_do_not() {
    let all = endpoints(10);
    let mut bench = bench(&all);
    end(&all[3], Outcome::Failure, 4);
    end(&all[5], Outcome::Failure, 4);
    end(&all[5], Outcome::Success, 1);
    end(&all[5], Outcome::Failure, 4);
    end(&all[7], Outcome::Cancelled, 50);
    assert!(bench.tally(1000).iter().all(|&count| count > 0));
    end(&all[3], Outcome::Failure, 1);
    assert_eq!(bench.tally(1000)[3], 0);
    assert_eq!(ejected(&all), 1);
}

/// Fails `endpoint` until it is ejected; returns for how many whole seconds it then gets nothing.
fn seconds_out(bench: &mut Bench, all: &Endpoints, index: usize) -> u64 {
    end(&all[index], Outcome::Failure, 5);
    bench.tally(500);
    assert!(all[index].ejected_until().is_some());
    let before = bench.clock.now();
    while bench.tally(500)[index] == 0 {
        bench.advance(SECOND);
    }
    bench.clock.now().since(before).as_secs()
}

#[test]
fn ejections_grow_to_a_limit_and_are_forgiven_one_by_one() {
    let all = endpoints(10);
    let balancer = OutlierEjection::new(Random::new())
        .with_ejection_time(30 * SECOND, 70 * SECOND)
        .unwrap();
    let mut bench = Bench::new(balancer, &all, 1);
    bench.tally(10);
    for (least, most) in [(30, 34), (60, 67), (70, 78), (70, 78)] {
        let out = seconds_out(&mut bench, &all, 2);
        assert!((least..=most).contains(&out), "{out} s");
    }
    assert_eq!(all[2].ejections(), 4);
    for forgiven in [3, 2, 1, 0, 0] {
        bench.advance(10 * SECOND);
        bench.tally(1);
        assert_eq!(all[2].ejections(), forgiven);
    }
    assert!((30..=34).contains(&seconds_out(&mut bench, &all, 2)));
}

#[test]
fn who_comes_back_is_not_ejected_again_for_what_it_did_before() {
    let all = endpoints(10);
    let mut bench = bench(&all);
    let late: Vec<_> = (0..10).map(|_| Pick::new(&*all[4])).collect();
    end(&all[4], Outcome::Failure, 5);
    bench.tally(500);
    late.into_iter()
        .for_each(|pick| pick.finish(Outcome::Failure));
    bench.advance(34 * SECOND);
    assert!(bench.tally(1000)[4] > 0);
    assert_eq!(ejected(&all), 0);
}

#[test]
fn at_most_a_tenth_is_out_but_one_always_may_be() {
    for (n, limit) in [(2, 1), (3, 1), (10, 1), (19, 1), (20, 2), (100, 10)] {
        let all = endpoints(n);
        let mut bench = Bench::new(OutlierEjection::new(Random::new()), &all, 2);
        all.iter().for_each(|e| end(e, Outcome::Failure, 9));
        // Any one is missed by 30 n picks with probability e^-30.
        for _ in 0..30 * n {
            bench.pick().unwrap();
            assert!(ejected(&all) <= limit);
        }
        assert_eq!(ejected(&all), limit, "of {n}");
        bench.rebuild(&all);
        bench.tally(30 * n);
        assert_eq!(ejected(&all), limit, "of {n}, rebuilt");
    }
}

/// Ten endpoints of so many requests each, of which the first fails on `failures` and each other
/// one on 3 to 5 of a hundred.
fn rates(n: usize, requests: u32, failures: u32) -> Endpoints {
    let all = endpoints(n);
    for (index, endpoint) in (0..).zip(all.iter()) {
        let failures = if index == 0 {
            failures
        } else {
            requests * (3 + index % 3) / 100
        };
        end(endpoint, Outcome::Failure, failures.min(4));
        for _ in 4..failures {
            end(endpoint, Outcome::Success, 1);
            end(endpoint, Outcome::Failure, 1);
        }
        end(
            endpoint,
            Outcome::Success,
            requests - failures.max(4) - failures.saturating_sub(4),
        );
    }
    all
}

fn out_after_an_evaluation(all: &Endpoints) -> Vec<usize> {
    let mut bench = Bench::new(OutlierEjection::new(RoundRobin::starting_at(0)), all, 3);
    bench.pick().unwrap();
    (0..all.len())
        .filter(|&index| all[index].ejected_until().is_some())
        .collect()
}

#[test]
fn a_success_rate_that_stands_out_is_out() {
    assert_eq!(out_after_an_evaluation(&rates(10, 1000, 300)), [0]);
    assert_eq!(out_after_an_evaluation(&rates(5, 1000, 300)), [0]);
    assert_eq!(out_after_an_evaluation(&rates(10, 1000, 50)), [0; 0]);
}

#[test]
fn too_few_requests_or_endpoints_are_not_judged() {
    assert_eq!(out_after_an_evaluation(&rates(10, 100, 45)), [0]);
    assert_eq!(out_after_an_evaluation(&rates(10, 99, 45)), [0; 0]);
    assert_eq!(out_after_an_evaluation(&rates(4, 1000, 300)), [0; 0]);
}

#[test]
fn rates_count_for_one_interval_only() {
    let all = rates(10, 60, 29);
    let mut bench = Bench::new(OutlierEjection::new(Random::new()), &all, 3);
    for _ in 0..3 {
        bench.pick().unwrap();
        bench.advance(10 * SECOND);
        // Never a hundred within one interval.
        all.iter().for_each(|e| end(e, Outcome::Success, 60));
    }
    assert_eq!(ejected(&all), 0);
}

#[test]
fn rebuilds_do_not_put_the_evaluation_off() {
    let all = endpoints(10);
    let mut bench = Bench::new(OutlierEjection::new(Random::new()), &all, 3);
    bench.pick().unwrap();
    for second in 0..=10 {
        let failing = if second < 10 {
            Outcome::Failure
        } else {
            Outcome::Success
        };
        for endpoint in &all[1..] {
            end(endpoint, Outcome::Success, 20);
        }
        for _ in 0..10 {
            end(&all[0], failing, 1);
            end(&all[0], Outcome::Success, 1);
        }
        bench.rebuild(&all);
        bench.pick().unwrap();
        assert_eq!(ejected(&all), usize::from(second == 10));
        bench.advance(SECOND);
    }
}

#[test]
fn below_half_usable_nobody_is_left_out() {
    let all = endpoints(10);
    let balancer = OutlierEjection::new(Random::new())
        .with_max_ejected(1.0)
        .unwrap();
    let mut bench = Bench::new(balancer, &all, 4);
    bench.tally(10);
    all[..5].iter().for_each(|e| end(e, Outcome::Failure, 5));
    bench.tally(500);
    let counts = bench.tally(1000);
    assert!(counts[..5].iter().all(|&count| count == 0), "{counts:?}");
    end(&all[5], Outcome::Failure, 5);
    bench.tally(500);
    crate::testing::assert_uniform(&bench.tally(10_000));
    // They come back in time all the same.
    bench.advance(34 * SECOND);
    bench.tally(1);
    assert_eq!(ejected(&all), 0);
}

#[test]
fn the_unhealthy_count_towards_the_panic_as_well() {
    let all = endpoints(10);
    all[..5]
        .iter()
        .for_each(|e| assert!(e.set_health(Health::Unhealthy)));
    let mut bench = Bench::new(OutlierEjection::new(Random::new()), &all, 4);
    end(&all[9], Outcome::Failure, 5);
    bench.tally(500);
    assert_eq!(ejected(&all), 1);
    assert!(bench.tally(1000)[9] > 0, "4 of 10 are usable");
    all[0].set_health(Health::Healthy);
    bench.rebuild(&all);
    assert_eq!(bench.tally(1000)[9], 0, "5 of 10 are usable");
}

/// The share of the requests of the second half of a simulated minute that an endpoint gets which
/// fails at once, while nine others take 50 ms; 100 requests a second.
fn share_of_the_one_that_fails_fast(balancer: impl Balancer) -> f64 {
    const MILLI: Duration = Duration::from_millis(1);
    let all = endpoints(10);
    let mut bench = Bench::new(balancer, &all, 5);
    let mut under_way = std::collections::VecDeque::new();
    let mut sunk = 0;
    for tick in 0..60_000 {
        bench.advance(MILLI);
        while under_way.front().is_some_and(|&(at, _)| at + 50 <= tick) {
            let (_, pick): (i32, Pick) = under_way.pop_front().unwrap();
            pick.finish_at(Outcome::Success, 50 * MILLI, bench.clock.now());
        }
        if tick % 2 == 0 {
            let pick = bench.begin();
            if pick.endpoint().id() == all[0].id() {
                sunk += u32::from(tick >= 30_000);
                pick.finish_at(Outcome::Failure, Duration::ZERO, bench.clock.now());
            } else {
                under_way.push_back((tick, pick));
            }
        }
    }
    f64::from(sunk) / 15_000.0
}

#[test]
fn failing_fast_does_not_attract_traffic() {
    // 25 requests under way on ten endpoints: the idle one wins wherever it is drawn, 1 in 5.
    let bare = share_of_the_one_that_fails_fast(LeastRequest::new());
    assert!((0.17..0.23).contains(&bare), "{bare}");
    // With ejection 5 in every 30 s.
    let guarded = share_of_the_one_that_fails_fast(OutlierEjection::new(LeastRequest::new()));
    assert!(guarded <= 0.001, "{guarded}");
    let quick = share_of_the_one_that_fails_fast(OutlierEjection::new(PeakEwma::new()));
    assert!(quick <= 0.01, "{quick}");
}

#[test]
fn what_is_known_survives_membership_and_weights() {
    let servers: Vec<_> = (0..10).map(|n| Server::new(&format!("{n}"))).collect();
    let all = views(&servers);
    let mut bench = bench(&all);
    end(&all[6], Outcome::Failure, 5);
    bench.tally(500);
    let mut heavier = (*all[6].instance()).clone().with_weight(Weight::MAX);
    heavier = heavier.with_status(plimsoll_discovery_api::Status::Up);
    let load = Arc::clone(servers[6].member().load());
    let member =
        plimsoll_discovery_api::Member::new(Arc::new(heavier), Incarnation::from_bits(1), load);
    all[6].refresh(&member);
    bench.rebuild(&all[2..].iter().map(Arc::clone).collect());
    assert_eq!(bench.tally(1000)[4], 0);
    bench.rebuild(&all);
    assert_eq!(bench.tally(1000)[6], 0);
}

#[test]
fn keys_of_the_one_ejected_move_alone_and_return() {
    let all = endpoints(10);
    let mut bench = Bench::new(OutlierEjection::new(Maglev::new()), &all, 6);
    let owners = |bench: &mut Bench| -> Vec<String> {
        (0..5000)
            .map(|key| {
                bench.key = Some(crate::hash::mix(key));
                bench.id()
            })
            .collect()
    };
    let before = owners(&mut bench);
    end(&all[0], Outcome::Failure, 5);
    let during = owners(&mut bench);
    for (before, during) in before.iter().zip(&during) {
        assert!(before == during || before == "000000");
        assert!(during != "000000");
    }
    assert_eq!(during, owners(&mut bench), "each to one");
    bench.advance(34 * SECOND);
    assert!(moved(&before, &owners(&mut bench)) == 0.0);
}

#[test]
fn threads_never_eject_more_than_the_limit_together() {
    let all = endpoints(40);
    let clock = plimsoll_discovery_api::ManualClock::new();
    let picker = OutlierEjection::new(Random::new()).build(&all).unwrap();
    for round in 0..20 {
        // Counted when all have ended: a walk along them meets one that leaves and one that
        // returns at different moments. Time stands still meanwhile, so one too many stays out.
        clock.advance(7 * SECOND);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (picker, clock) = (&picker, &clock);
                scope.spawn(move || {
                    let mut rng = Rng::from_seed(4 * round + thread);
                    for _ in 0..500 {
                        let mut context = PickContext::new(&mut rng, clock);
                        end(picker.pick(&mut context).unwrap(), Outcome::Failure, 1);
                    }
                });
            }
        });
        assert!((1..=4).contains(&ejected(&all)));
    }
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let new = || OutlierEjection::new(Random::new());
    let refused = [
        (new().with_consecutive_failures(0), "consecutive_failures"),
        (new().with_success_rate(0.0, 5, 100), "deviations"),
        (new().with_success_rate(f64::NAN, 5, 100), "deviations"),
        (new().with_success_rate(1.9, 1, 100), "min_endpoints"),
        (new().with_success_rate(1.9, 5, 0), "min_requests"),
        (new().with_interval(Duration::ZERO), "interval"),
        (
            new().with_ejection_time(Duration::ZERO, SECOND),
            "first_ejection",
        ),
        (new().with_ejection_time(2 * SECOND, SECOND), "max_ejection"),
        (new().with_max_ejected(1.5), "max_ejected"),
        (new().with_panic_below(-0.5), "panic_below"),
    ];
    for (result, field) in refused {
        let error = result.unwrap_err();
        assert_eq!(
            error.kind(),
            plimsoll_discovery_api::ErrorKind::InvalidArgument
        );
        assert_eq!(error.context().next().map(|(name, _)| name), Some(field));
    }
}

#[test]
fn small_and_weightless_sets_are_handled() {
    assert_small_sets(|| OutlierEjection::new(Random::new()));
    let one = endpoints(1);
    let mut bench = Bench::new(OutlierEjection::new(Random::new()), &one, 1);
    end(&one[0], Outcome::Failure, 50);
    assert_eq!(bench.tally(100), [100]);
}
