use std::time::Duration;

use plimsoll_discovery_api::{Clock, Health, Outcome, Pick, Weight};

use super::*;
use crate::testing::{Bench, Server, assert_small_sets, assert_uniform, endpoints, servers, views};
use crate::{OutlierEjection, Random, RoundRobin};

fn owners(bench: &mut Bench, keys: u64) -> Vec<String> {
    (0..keys)
        .map(|key| {
            bench.key = Some(key);
            bench.id()
        })
        .collect()
}

fn sticky() -> Sticky<Random> {
    Sticky::new(Random::new()).with_keys(1 << 14).unwrap()
}

#[test]
fn each_key_stays_and_keys_spread_as_the_algorithm_says() {
    let mut bench = Bench::new(sticky(), &endpoints(10), 1);
    let first = owners(&mut bench, 1000);
    (0..3).for_each(|_| assert_eq!(first, owners(&mut bench, 1000)));
    let count = |index| {
        first
            .iter()
            .filter(|id| **id == format!("{index:06}"))
            .count() as u64
    };
    assert_uniform(&(0..10).map(count).collect::<Vec<_>>());
}

#[test]
fn without_a_key_all_requests_stay_together() {
    let mut bench = Bench::new(sticky(), &endpoints(10), 2);
    let first = bench.id();
    assert!((0..1000).all(|_| bench.id() == first));
}

#[test]
fn who_joins_gets_nothing_and_only_those_of_one_that_leaves_move() {
    let all = endpoints(11);
    let mut bench = Bench::new(sticky(), &all[..10].iter().map(Arc::clone).collect(), 3);
    let first = owners(&mut bench, 1000);
    bench.rebuild(&all);
    assert_eq!(first, owners(&mut bench, 1000));
    bench.rebuild(&all[1..].iter().map(Arc::clone).collect());
    let second = owners(&mut bench, 1000);
    for (first, second) in first.iter().zip(&second) {
        assert!(first == second || first == "000000", "{first}, {second}");
    }
    bench.rebuild(&all);
    assert_eq!(
        second,
        owners(&mut bench, 1000),
        "the one that returns gets none back"
    );
}

#[test]
fn a_restarted_server_is_another_endpoint() {
    let all = endpoints(10);
    let mut bench = Bench::new(sticky(), &all, 4);
    let first = owners(&mut bench, 1000);
    let mut restarted: Vec<_> = all.iter().map(Arc::clone).collect();
    restarted[3] = Server::new("000003").endpoint;
    bench.rebuild(&restarted.into());
    let second = owners(&mut bench, 1000);
    let stayed = first
        .iter()
        .zip(&second)
        .filter(|(a, b)| *a == "000003" && a == b)
        .count();
    let had = first.iter().filter(|id| *id == "000003").count();
    assert!(had > 50 && stayed * 3 < had, "{stayed} of {had}");
}

#[test]
fn who_may_not_be_used_is_left_for_good() {
    let servers = servers(10);
    let all = views(&servers);
    let mut bench = Bench::new(sticky(), &all, 5);
    let first = owners(&mut bench, 1000);
    all[1].set_health(Health::Unhealthy);
    all[2].eject(plimsoll_discovery_api::Timestamp::from_nanos(1_000_000_000));
    let weightless = (*all[3].instance()).clone().with_weight(Weight::ZERO);
    let load = Arc::clone(servers[3].member().load());
    let incarnation = all[3].incarnation();
    let weightless = Arc::new(weightless);
    all[3].refresh(&plimsoll_discovery_api::Member::new(
        weightless,
        incarnation,
        load,
    ));
    bench.rebuild(&all);
    let all_bad = |id: &String| ["000001", "000002", "000003"].contains(&id.as_str());
    // Random may pick the first two again: 20 times in a row for one of 300 keys with a
    // probability of 300 * (2/9)^20 < 1e-10.
    (0..20).for_each(|_| drop(owners(&mut bench, 1000)));
    let second = owners(&mut bench, 1000);
    for (first, second) in first.iter().zip(&second) {
        assert!(!all_bad(second));
        assert!(first == second || all_bad(first));
    }
    bench.advance(Duration::from_secs(1));
    all[1].set_health(Health::Healthy);
    assert_eq!(second, owners(&mut bench, 1000));
}

#[test]
fn a_kept_pick_takes_no_turn() {
    let balancer = Sticky::new(RoundRobin::starting_at(0));
    let mut bench = Bench::new(balancer, &endpoints(5), 6);
    for key in 0..5_u32 {
        bench.key = Some(key.into());
        assert_eq!(bench.tally(100)[key as usize], 100);
    }
}

#[test]
fn beyond_its_room_it_forgets_but_goes_on() {
    let balancer = Sticky::new(Random::new()).with_keys(1).unwrap();
    let mut bench = Bench::new(balancer, &endpoints(10), 7);
    let (first, second) = (owners(&mut bench, 1000), owners(&mut bench, 1000));
    // One in ten is picked again by chance: 100 with a deviation of 9.5, and 5 of these.
    let same = first
        .iter()
        .zip(&second)
        .filter(|(one, other)| one == other)
        .count();
    assert!(same < 100 + 48, "{same}");
}

#[test]
fn with_ejection_round_it_failing_keys_and_clients_move_and_stay_there() {
    let all = endpoints(10);
    let mut bench = Bench::new(OutlierEjection::new(sticky()), &all, 8);
    for key in [None, Some(5)] {
        bench.key = key;
        let first = bench.index();
        for _ in 0..5 {
            Pick::new(&*all[first]).finish(Outcome::Failure);
        }
        assert_ne!(first, bench.index(), "ejected by this pick");
        let second = bench.index();
        assert_ne!(first, second);
        assert_eq!(bench.tally(100)[second], 100);
        bench.advance(Duration::from_secs(40));
        bench.tally(1);
        assert!(all[first].ejected_until().is_none());
    }
}

#[test]
fn room_out_of_range_is_refused() {
    for keys in [0, MAX_KEYS + 1] {
        let error = Sticky::new(Random::new()).with_keys(keys).unwrap_err();
        let text = format!("invalid argument: keys is not between 1 and 16777216 (keys: {keys})");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn small_and_weightless_sets_are_handled() {
    assert_small_sets(|| Sticky::new(Random::new()));
}

#[test]
fn an_ejection_whose_time_is_over_moves_nothing() {
    let all = endpoints(10);
    let mut bench = Bench::new(sticky(), &all, 9);
    let first = bench.index();
    all[first].eject(bench.clock.now());
    assert_eq!(bench.tally(100)[first], 100);
}
