use std::sync::atomic::AtomicU32;

use plimsoll_discovery_api::{Clock, ManualClock, Pick, Rng};

use super::*;
use crate::testing::{Bench, assert_shares, assert_small_sets, assert_uniform, endpoints, moved};
use crate::{LeastConnections, Maglev, Random};

const SECOND: Duration = Duration::from_secs(1);

/// A bench at work on all but the last `new` of `n` endpoints, which then join.
fn joined(balancer: impl Balancer, n: usize, new: usize) -> (Endpoints, Bench) {
    let all = endpoints(n);
    let old = all[..n - new].iter().map(Arc::clone).collect();
    let mut bench = Bench::new(SlowStart::new(balancer), &old, 1);
    bench.tally(10);
    bench.advance(100 * SECOND);
    bench.rebuild(&all);
    (all, bench)
}

/// The shares of ten endpoints of which the last gets this part of its share.
fn shares(part: f64) -> Vec<f64> {
    // The rest goes to all others alike.
    let mut shares = vec![(10.0 - part) / 9.0; 10];
    shares[9] = part;
    shares
}

#[test]
fn a_new_endpoint_gets_a_tenth_of_its_share_and_all_of_it_after_the_window() {
    let (_all, mut bench) = joined(Random::new(), 10, 1);
    for part in [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0] {
        assert_shares(&bench.tally(50_000), &shares(part));
        // 0 s, then 3 s, which is a tenth again.
        bench.advance(3 * SECOND);
    }
}

#[test]
fn aggression_bends_the_rise() {
    for (aggression, part) in [(2.0, 0.5), (0.5, 0.0625)] {
        let all = endpoints(10);
        let balancer = SlowStart::new(Random::new())
            .with_aggression(aggression)
            .unwrap()
            .with_min_share(0.0)
            .unwrap()
            .with_window(8 * SECOND)
            .unwrap();
        let mut bench = Bench::new(balancer, &all[..9].iter().map(Arc::clone).collect(), 2);
        bench.rebuild(&all);
        assert_eq!(bench.tally(1000)[9], 0);
        bench.advance(2 * SECOND);
        assert_shares(&bench.tally(100_000), &shares(part));
    }
}

#[test]
fn an_algorithm_that_seeks_idle_endpoints_does_not_flood_it() {
    let (all, mut bench) = joined(LeastConnections::new(), 10, 1);
    let _busy: Vec<_> = all[..9].iter().map(|e| Pick::new(&**e)).collect();
    // 20,000 picks, each kept with probability 0.1: 2,000 with a deviation of 42, and 5
    // deviations have a probability below 1e-6.
    let flood = bench.tally(20_000)[9];
    assert!(flood.abs_diff(2000) < 212, "{flood}");
    bench.advance(30 * SECOND);
    assert_eq!(bench.tally(100)[9], 100);
}

#[test]
fn what_was_there_from_the_start_is_warm() {
    let all = endpoints(10);
    let mut bench = Bench::new(SlowStart::new(Random::new()), &endpoints(0), 3);
    assert!(bench.pick().is_none());
    bench.rebuild(&all);
    // A change before the first pick makes no difference.
    bench.rebuild(&all[1..].iter().map(Arc::clone).collect());
    assert_uniform(&bench.tally(20_000));
}

#[test]
fn where_most_are_new_nobody_is_eased_in_until_they_are_warm() {
    let (all, mut bench) = joined(Random::new(), 9, 5);
    assert_uniform(&bench.tally(20_000));
    let (_half, mut half) = joined(Random::new(), 10, 5);
    let counts = half.tally(20_000);
    let new: u64 = counts[5..].iter().sum();
    // 5 %, 1,000, with a deviation of 31.
    assert!(new.abs_diff(1000) < 155, "{counts:?}");
    // One more, while the others still are.
    bench.advance(29 * SECOND);
    let more: Endpoints = all
        .iter()
        .chain(&endpoints(10)[9..])
        .map(Arc::clone)
        .collect();
    bench.rebuild(&more);
    assert_uniform(&bench.tally(20_000));
    // Once they are warm it is one of ten, and has been there for 1 s.
    bench.advance(SECOND);
    assert_shares(&bench.tally(50_000), &shares(0.1));
}

#[test]
fn rebuilds_do_not_start_it_again() {
    let (all, mut bench) = joined(Random::new(), 10, 1);
    bench.pick();
    for _ in 0..15 {
        bench.advance(SECOND);
        bench.rebuild(&all);
        bench.pick();
    }
    assert_shares(&bench.tally(50_000), &shares(0.5));
}

#[test]
fn keys_move_to_it_one_by_one_and_never_back() {
    let (_all, mut bench) = joined(Maglev::new(), 10, 1);
    let owners = |bench: &mut Bench| -> Vec<String> {
        (0..2000)
            .map(|key| {
                bench.key = Some(crate::hash::mix(key));
                bench.id()
            })
            .collect()
    };
    let mut before = owners(&mut bench);
    for _ in 0..15 {
        bench.advance(2 * SECOND);
        let after = owners(&mut bench);
        let mut changed = before
            .iter()
            .zip(&after)
            .filter(|(one, other)| one != other);
        assert!(changed.all(|(_, after)| after == "000009"));
        before = after;
    }
    bench.advance(SECOND);
    assert!(moved(&before, &owners(&mut bench)) == 0.0);
    let its = before.iter().filter(|owner| *owner == "000009").count();
    // A tenth, 200, with a deviation of 13.
    assert!(its.abs_diff(200) < 65, "{its}");
}

#[derive(Debug, Default)]
struct CountingClock(AtomicU32);

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        self.0.fetch_add(1, Ordering::Relaxed);
        Timestamp::ZERO
    }
}

#[test]
fn once_all_are_warm_the_clock_is_left_alone() {
    let picker = SlowStart::new(Random::new()).build(&endpoints(5)).unwrap();
    let (mut rng, clock) = (Rng::from_seed(1), CountingClock::default());
    for _ in 0..100 {
        picker
            .pick(&mut PickContext::new(&mut rng, &clock))
            .unwrap();
    }
    assert_eq!(clock.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_time_said_before_counts() {
    let all = endpoints(10);
    let mut balancer = SlowStart::new(Random::new());
    drop(
        balancer
            .build(&all[..9].iter().map(Arc::clone).collect())
            .unwrap(),
    );
    let mut bench = Bench::new(balancer, &all, 4);
    bench.clock = Arc::new(ManualClock::new());
    all[9].mark_joined(Some(bench.clock.now()));
    bench.advance(15 * SECOND);
    assert_shares(&bench.tally(50_000), &shares(0.5));
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let new = || SlowStart::new(Random::new());
    let refused = [
        (new().with_window(Duration::ZERO), "window"),
        (new().with_min_share(1.1), "min_share"),
        (new().with_aggression(0.0), "aggression"),
        (new().with_aggression(f64::NAN), "aggression"),
    ];
    for (result, field) in refused {
        let error = result.unwrap_err();
        assert_eq!(error.context().next().map(|(name, _)| name), Some(field));
    }
}

#[test]
fn small_and_weightless_sets_are_handled() {
    assert_small_sets(|| SlowStart::new(Random::new()));
}
