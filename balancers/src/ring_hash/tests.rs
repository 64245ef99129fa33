use super::*;
use crate::testing::{
    Bench, Server, assert_keys_stay, assert_small_sets, endpoints, owners, servers, views, weighted,
};

/// Eight servers at 10.0.1.1 to 10.0.1.8 port 11211, whose ids say nothing of it.
fn memcached() -> Endpoints {
    let servers: Vec<_> = (1..=8)
        .map(|n| Server::at(&format!("id-{n}"), &format!("10.0.1.{n}"), 11_211))
        .collect();
    views(&servers)
}

#[test]
fn keys_go_where_ketama_sends_them() {
    // By an independent program, with another MD5, from the rule of libketama.
    const OWNERS: [usize; 24] = [
        2, 2, 5, 2, 5, 7, 7, 6, 7, 1, 0, 2, 0, 7, 7, 6, 7, 7, 4, 6, 0, 4, 1, 3,
    ];
    let mut bench = Bench::new(RingHash::new().with_authority(true), &memcached(), 1);
    for (number, owner) in OWNERS.into_iter().enumerate() {
        bench.key = Some(ketama_key(format!("key-{number}").as_bytes()));
        assert_eq!(bench.index(), owner, "key-{number}");
    }
    let mut counts = [0; 8];
    let mut digest = 0_u32;
    for number in 0..100_000 {
        bench.key = Some(ketama_key(number.to_string().as_bytes()));
        let owner = bench.index();
        counts[owner] += 1;
        digest = digest
            .wrapping_mul(31)
            .wrapping_add(u32::try_from(owner).unwrap());
    }
    assert_eq!(
        counts,
        [
            11_963, 11_631, 12_627, 11_340, 11_610, 12_066, 15_361, 13_402
        ]
    );
    assert_eq!(digest, 2_824_933_189);
}

#[test]
fn only_the_keys_of_the_one_that_left_move_and_no_more_than_its_share() {
    let all = servers(20);
    let before = owners(RingHash::new(), &views(&all));
    let left: Endpoints = views(&all)[1..].iter().map(Arc::clone).collect();
    let after = owners(RingHash::new(), &left);
    let mut moved = 0;
    for (before, after) in before.iter().zip(&after) {
        if before == "000000" {
            moved += 1;
        } else {
            assert_eq!(before, after);
        }
    }
    // Its due is 1 / 20 of 20,000. The spread of 160 points is 8 %, and three times that is not
    // exceeded but with probability 0.002.
    assert!((760..=1240).contains(&moved), "{moved}");
}

#[test]
fn the_most_loaded_of_a_hundred_stays_within_a_third_of_its_due() {
    // 160 points spread shares by 1 / √160 = 7.9 %; of 100 endpoints none is 4.2 standard
    // deviations above its due but with probability 0.002.
    let counts = Bench::new(RingHash::new(), &endpoints(100), 1).tally_keys(400_000);
    let most = *counts.iter().max().unwrap() as f64 / 4000.0;
    assert!(most < 1.33, "{most}");
}

#[test]
fn keys_follow_weight() {
    let counts = Bench::new(RingHash::new(), &weighted(&[100, 200, 700]), 1).tally_keys(100_000);
    for (count, due) in counts.iter().zip([10_000, 20_000, 70_000_u64]) {
        // 48, 96 and 336 points: three standard deviations of the first are 43 % of its due.
        assert!(count.abs_diff(due) < 43 * due / 100, "{counts:?}");
    }
}

#[test]
fn equal_keys_go_to_one_endpoint_across_clients_and_rebuilds() {
    assert_keys_stay(RingHash::new);
}

#[test]
fn small_and_weightless_sets_are_handled() {
    assert_small_sets(RingHash::new);
}
