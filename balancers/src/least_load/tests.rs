mod herd;
mod witnesses;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_discovery_api::{Clock, ManualClock, Pick};

use super::*;
use crate::eligible::weights;
use crate::testing::{self, Bench, Server, assert_shares, assert_uniform, servers, views};

fn bench(servers: &[Server]) -> Bench {
    Bench::new(LeastLoad::new(), &views(servers), 1)
}

fn publish(servers: &[Server], loads: &[u64], clock: &ManualClock) {
    servers
        .iter()
        .zip(loads)
        .for_each(|(server, &load)| server.publish(load, clock));
}

#[test]
fn the_less_loaded_of_two_is_picked() {
    let two = servers(2);
    let mut bench = bench(&two);
    publish(&two, &[11, 10], &bench.clock);
    assert_eq!(bench.tally(100), [0, 100]);
}

/// Longer than the interval within which a report counts as young.
const SETTLED: Duration = Duration::from_secs(3);

#[test]
fn own_requests_since_the_report_stand_for_everybodys() {
    let two = servers(2);
    let mut bench = bench(&two);
    let on = |index: usize, count| -> Vec<_> {
        (0..count)
            .map(|_| Pick::new(Arc::clone(&two[index].endpoint)))
            .collect()
    };
    // This client has 10 of the 210 requests there are.
    let _old = (on(0, 5), on(1, 5));
    publish(&two, &[100, 110], &bench.clock);
    bench.advance(SETTLED);
    assert_eq!(bench.tally(100), [100, 0]);
    // One more is taken for 19, at most, and 119 is more than 110.
    let new = on(0, 1);
    assert_eq!(bench.tally(100), [0, 100]);
    // The next report includes it, and all the others that were not begun.
    publish(&two, &[101, 110], &bench.clock);
    bench.advance(SETTLED);
    assert_eq!(bench.tally(100), [100, 0]);
    drop(new);
}

#[test]
fn requests_that_a_report_includes_are_not_counted_again() {
    let two = servers(2);
    let mut bench = bench(&two);
    publish(&two, &[0, 0], &bench.clock);
    bench.advance(SETTLED);
    let _own: Vec<_> = (0..4).map(|_| Pick::new(&*two[0].endpoint)).collect();
    publish(&two, &[4, 4], &bench.clock);
    bench.advance(SETTLED);
    assert_uniform(&bench.tally(10_000));
}

#[test]
fn a_young_report_is_not_compared_with_what_others_said_before() {
    let two = servers(2);
    let mut bench = bench(&two);
    publish(&two, &[50, 50], &bench.clock);
    bench.advance(SETTLED);
    // A burst has begun, and only one of the two has told of it yet.
    publish(&two[..1], &[90], &bench.clock);
    assert_uniform(&bench.tally(10_000));
    bench.advance(Duration::from_secs(2));
    assert_eq!(
        bench.tally(100),
        [0, 100],
        "the other would have told by now"
    );
}

#[test]
fn loads_are_relative_to_capacity() {
    let two = [
        Server::with("a", |b| b.with_capacity(10)),
        Server::with("b", |b| b.with_capacity(100)),
    ];
    let mut bench = bench(&two);
    publish(&two, &[6, 50], &bench.clock);
    assert_eq!(bench.tally(100), [0, 100], "60 % and 50 %");
    bench.advance(Duration::from_secs(1));
    publish(&two, &[6, 70], &bench.clock);
    bench.advance(SETTLED);
    assert_eq!(bench.tally(100), [100, 0], "60 % and 70 %");
}

#[test]
fn shares_are_weight_times_capacity_and_the_silent_have_the_mean_capacity() {
    let mixed = [
        Server::with("a", |b| b.with_capacity(50)),
        Server::with("b", |b| b.with_weight(10).with_capacity(100)),
        Server::with("c", |b| b.with_weight(200)),
    ];
    let shares_of = |all: &Endpoints| shares(all, &weights(all));
    assert_eq!(shares_of(&views(&mixed)), [5000.0, 1000.0, 15_000.0]);
    assert_eq!(shares_of(&views(&servers(2))), [100.0, 100.0]);
}

#[test]
fn idle_endpoints_share_by_capacity_and_busy_ones_fill_up_by_it() {
    let three: Vec<_> = [("a", 10), ("b", 30), ("c", 60)]
        .map(|(id, capacity)| Server::with(id, |b| b.with_capacity(capacity)))
        .into();
    let mut bench = bench(&three);
    publish(&three, &[0, 0, 0], &bench.clock);
    assert_shares(&bench.tally(20_000), &[10.0, 30.0, 60.0]);
    let _under_way: Vec<_> = (0..1000).map(|_| bench.begin()).collect();
    for (server, due) in three.iter().zip([100, 300, 600_u32]) {
        assert!(
            server.endpoint.in_flight().abs_diff(due) <= 20,
            "{:?}",
            server.endpoint
        );
    }
}

#[test]
fn ties_are_spread_evenly() {
    for choices in [2, 3, 8] {
        let seven = servers(7);
        let balancer = LeastLoad::new().with_choices(choices).unwrap();
        let mut bench = Bench::new(balancer, &views(&seven), 2);
        assert_uniform(&bench.tally(14_000));
        publish(&seven, &[3; 7], &bench.clock);
        assert_uniform(&bench.tally(14_000));
    }
}

#[test]
fn a_newcomer_without_a_report_gets_its_share_and_no_more() {
    // Nine loaded alike and one that has not published. Requests never end, as in the worst case
    // for a newcomer: nothing but this client's own count can tell it is filling up.
    let ten = servers(10);
    let mut bench = bench(&ten);
    publish(&ten[..9], &[500; 9], &bench.clock);
    let under_way: Vec<_> = (0..1000).map(|_| bench.begin()).collect();
    let newcomer = ten[9].endpoint.in_flight();
    // Its share is 100. Two choices keep every count within 5 of it but for probability < 1e-6.
    assert!((95..=105).contains(&newcomer), "{newcomer}");
    drop(under_way);
}

#[test]
fn a_newcomer_among_uneven_loads_counts_as_the_mean_of_its_rivals() {
    let three = servers(3);
    let balancer = LeastLoad::new().with_choices(3).unwrap();
    let mut bench = Bench::new(balancer, &views(&three), 1);
    publish(&three[..2], &[0, 100], &bench.clock);
    assert_eq!(
        bench.tally(100),
        [100, 0, 0],
        "the idle one is better than a stranger"
    );
    let _under_way: Vec<_> = (0..51).map(|_| Pick::new(&*three[0].endpoint)).collect();
    assert_eq!(
        bench.tally(100),
        [0, 0, 100],
        "51 above 50, the mean of 0 and 100"
    );
}

#[test]
fn belief_in_a_report_is_full_up_to_the_trust_and_then_halves() {
    // Own counts are equal, so a pick that does not believe takes either: the better endpoint is
    // chosen with probability p + (1 - p) / 2.
    let two = servers(2);
    let mut bench = bench(&two);
    publish(&two, &[1_000_000, 0], &bench.clock);
    bench.advance(Duration::from_secs(60));
    assert_eq!(bench.tally(1000), [0, 1000], "at 60 s");
    for belief in [0.5, 0.25, 0.125] {
        bench.advance(Duration::from_secs(30));
        let worse = (1.0 - belief) / 2.0;
        assert_shares(&bench.tally(20_000), &[worse, 1.0 - worse]);
    }
    bench.advance(Duration::from_secs(3600));
    assert_uniform(&bench.tally(20_000));
}

#[test]
fn the_oldest_report_of_a_pick_decides_for_all_its_candidates() {
    let two = servers(2);
    let mut bench = bench(&two);
    two[0].publish(0, &bench.clock);
    bench.advance(Duration::from_secs(3600));
    two[1].publish(900, &bench.clock);
    assert_uniform(&bench.tally(20_000));
}

#[test]
fn without_belief_own_requests_decide() {
    let two = servers(2);
    let mut bench = bench(&two);
    publish(&two, &[900, 0], &bench.clock);
    bench.advance(Duration::from_secs(3600));
    let _under_way = Pick::new(&*two[1].endpoint);
    assert_eq!(bench.tally(100), [100, 0]);
}

#[test]
fn a_longer_trust_and_half_life_keep_belief_up() {
    let two = servers(2);
    let hour = Duration::from_secs(3600);
    let balancer = LeastLoad::new()
        .with_trust(hour)
        .with_half_life(hour)
        .unwrap();
    let mut bench = Bench::new(balancer, &views(&two), 1);
    publish(&two, &[900, 0], &bench.clock);
    bench.advance(hour);
    assert_eq!(bench.tally(1000), [0, 1000]);
    bench.advance(hour);
    assert_shares(&bench.tally(20_000), &[0.25, 0.75]);
}

/// A clock that counts its readings.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        self.0.fetch_add(1, Ordering::Relaxed);
        Timestamp::ZERO
    }
}

#[test]
fn the_clock_is_read_only_where_it_could_change_the_choice() {
    let two = servers(2);
    let mut bench = bench(&two);
    let (clock, reports) = (Counting::default(), ManualClock::new());
    let mut readings = || {
        for _ in 0..100 {
            bench
                .picker
                .pick(&mut PickContext::new(&mut bench.rng, &clock))
                .unwrap();
        }
        clock.0.swap(0, Ordering::Relaxed)
    };
    assert_eq!(readings(), 0, "nothing published");
    publish(&two, &[7, 7], &reports);
    assert_eq!(readings(), 0, "reports that make no difference");
    let _under_way = Pick::new(&*two[0].endpoint);
    assert_eq!(readings(), 0, "reports that say the same as own requests");
    reports.advance(SETTLED);
    publish(&two, &[5, 7], &reports);
    assert_eq!(readings(), 100, "reports that say otherwise");
}

#[test]
fn the_largest_loads_and_ages_do_no_harm() {
    let two = servers(2);
    let mut bench = bench(&two);
    publish(&two, &[u64::MAX, 1], &bench.clock);
    assert_eq!(bench.tally(100), [0, 100]);
    bench.advance(Duration::MAX);
    assert_uniform(&bench.tally(20_000));
}

#[test]
fn out_of_range_parameters_are_refused_by_name() {
    let text = |result: Result<LeastLoad>| result.unwrap_err().to_string();
    assert_eq!(
        text(LeastLoad::new().with_choices(1)),
        "invalid argument: choices is not between 2 and 8 (choices: 1)"
    );
    assert_eq!(
        text(LeastLoad::new().with_half_life(Duration::ZERO)),
        "invalid argument: half_life is zero (half_life: 0s)"
    );
}

#[test]
fn small_and_weightless_sets_are_handled() {
    testing::assert_small_sets(LeastLoad::new);
}
