use super::*;
use crate::testing::{Bench, assert_small_sets, assert_uniform, endpoints, weighted};

fn bench(weights: &[u32]) -> Bench {
    Bench::new(
        WeightedRoundRobin::from_rng(Rng::from_seed(1)),
        &weighted(weights),
        1,
    )
}

/// Weights whose cycle is too long to be laid out.
fn coprime(n: u32) -> Vec<u32> {
    (0..n).map(|index| 999_983 - 7 * index).collect()
}

#[test]
fn every_cycle_gives_each_endpoint_its_exact_share() {
    let mut bench = bench(&[5, 1, 1]);
    for _ in 0..10 {
        assert_eq!(bench.tally(7), [5, 1, 1]);
    }
}

#[test]
fn the_order_is_that_of_nginx_from_any_start() {
    let mut bench = bench(&[5, 1, 1]);
    let order: String = (0..14).map(|_| ["a", "b", "c"][bench.index()]).collect();
    assert!("aabacaaaabacaaaabacaa".contains(&order), "{order}");
}

#[test]
fn equal_weights_are_plain_turns() {
    let mut bench = bench(&[100; 5]);
    let start = bench.index();
    for turn in 1..20 {
        assert_eq!(bench.index(), (start + turn) % 5);
    }
}

#[test]
fn weights_of_any_size_keep_their_proportions() {
    let weights = coprime(40);
    let sum = f64::from(weights.iter().sum::<u32>());
    let mut bench = bench(&weights);
    for (count, &weight) in bench.tally(100_000).iter().zip(&weights) {
        let due = 100_000.0 * f64::from(weight) / sum;
        assert!((*count as f64 - due).abs() < 4.0, "{count} of {due}");
    }
    // 1 in 1,000,001 turns: two in two million and two.
    let counts = self::bench(&[1_000_000, 1]).tally(2_000_002);
    assert!((1..=3).contains(&counts[1]), "{counts:?}");
}

#[test]
fn the_first_turn_is_random() {
    for weights in [vec![3, 1, 1], coprime(5)] {
        let set = weighted(&weights);
        let mut counts = vec![0; 5];
        for seed in 0..5000 {
            let balancer = WeightedRoundRobin::from_rng(Rng::from_seed(seed));
            counts[Bench::new(balancer, &set, 1).index()] += 1;
        }
        if weights.len() == 3 {
            crate::testing::assert_shares(&counts[..3], &[3.0, 1.0, 1.0]);
        } else {
            assert_uniform(&counts);
        }
    }
}

#[test]
fn a_rebuild_that_changes_no_weight_keeps_the_turn() {
    for weights in [vec![5, 1, 1], coprime(3)] {
        let (mut rebuilt, mut untouched) = (bench(&weights), bench(&weights));
        for _ in 0..50 {
            assert_eq!(rebuilt.index(), untouched.index());
            rebuilt.rebuild(&weighted(&weights));
        }
    }
}

#[test]
fn rebuilds_that_change_weights_favour_nobody() {
    // One pick between any two changes: the worst case for keeping turns.
    let sets = [weighted(&[2, 1, 1]), weighted(&[2, 1, 1, 1])];
    let mut bench = Bench::new(WeightedRoundRobin::from_rng(Rng::from_seed(2)), &sets[0], 1);
    let mut counts = [0; 4];
    for turn in 0..20_000 {
        let set = &sets[turn % 2];
        bench.rebuild(set);
        let index = bench.index();
        if set.len() == 4 {
            counts[index] += 1;
        }
    }
    crate::testing::assert_shares(&counts, &[2.0, 1.0, 1.0, 1.0]);
}

#[test]
fn a_rebuild_of_a_thousand_stays_below_a_few_milliseconds_of_work() {
    // Not timed, for a busy machine would fail it: the bound is on the size of what is laid out.
    for weights in [coprime(1000), (1..=1000).collect(), vec![7; 1000]] {
        match Order::new(&weights, &mut Rng::from_seed(1)) {
            Order::Cycle { cycle, .. } => assert!(cycle.len() * weights.len() <= 1 << 20),
            Order::Golden { .. } => {}
        }
    }
}

#[test]
fn small_and_weightless_sets_are_handled() {
    assert_small_sets(WeightedRoundRobin::new);
    assert!(bench(&[]).pick().is_none());
    assert_eq!(
        Bench::new(WeightedRoundRobin::new(), &endpoints(1), 1).tally(3),
        [3]
    );
}
