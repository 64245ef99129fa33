use plimsoll_discovery_api::Error;

use super::*;
use crate::testing::{self, Bench, Server, assert_uniform, endpoints, views};

fn set(ids: &str) -> Endpoints {
    views(
        &ids.chars()
            .map(|id| Server::new(&id.to_string()))
            .collect::<Vec<_>>(),
    )
}

fn picked(bench: &mut Bench, picks: usize) -> String {
    (0..picks).map(|_| bench.id()).collect()
}

#[test]
fn takes_turns_from_the_given_start() {
    let mut bench = Bench::new(RoundRobin::starting_at(4), &set("abc"), 1);
    assert_eq!(picked(&mut bench, 7), "bcabcab");
}

#[test]
fn the_turn_survives_joins_leaves_and_an_empty_set() {
    let mut bench = Bench::new(RoundRobin::starting_at(0), &set("bdfh"), 1);
    assert_eq!(picked(&mut bench, 2), "bd");
    bench.rebuild(&set("abcdefgh")); // Four joined: f is still next.
    assert_eq!(picked(&mut bench, 1), "f");
    bench.rebuild(&set("abcdefh")); // The next one left: the one after it.
    assert_eq!(picked(&mut bench, 1), "h");
    bench.rebuild(&set("abcdefh")); // The same again: not back to the start but round it.
    assert_eq!(picked(&mut bench, 3), "abc");
    bench.rebuild(&set(""));
    assert!(bench.pick().is_none());
    bench.rebuild(&set("ab")); // All after the one due have left.
    assert_eq!(picked(&mut bench, 3), "aba");
}

#[test]
fn a_rebuild_after_every_pick_skips_and_favours_nobody() {
    let even = set("abcdef");
    let mut bench = Bench::new(RoundRobin::starting_at(0), &even, 1);
    let mut all = String::new();
    for _ in 0..12 {
        all += &picked(&mut bench, 1);
        bench.rebuild(&even);
    }
    assert_eq!(all, "abcdefabcdef");
}

#[test]
fn a_failed_rebuild_keeps_the_turn() {
    let mut bench = Bench::new(RoundRobin::starting_at(0), &set("abc"), 1);
    assert_eq!(picked(&mut bench, 1), "a");
    let failed: Result<_, Error> = bench.balancer.build(&testing::weighted(&[0, 0]));
    assert!(failed.is_err());
    bench.rebuild(&set("abc"));
    assert_eq!(picked(&mut bench, 1), "b");
}

#[test]
fn the_first_turn_is_uniform() {
    let five = endpoints(5);
    let mut counts = [0; 5];
    for seed in 0..5000 {
        let balancer = RoundRobin::from_rng(Rng::from_seed(seed));
        counts[Bench::new(balancer, &five, 1).index()] += 1;
    }
    assert_uniform(&counts);
}

#[test]
fn small_and_weightless_sets_are_handled() {
    testing::assert_small_sets(RoundRobin::new);
}
