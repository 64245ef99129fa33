use plimsoll_discovery_api::{Clock, Outcome, Pick};

use super::*;
use crate::eligible::weights;
use crate::testing::{
    Bench, assert_shares, assert_small_sets, assert_uniform, endpoints, servers, views, weighted,
};

const MS: Duration = Duration::from_millis(1);

fn report(bench: &Bench, endpoint: &Endpoint, under_way: u64, millis: u32) {
    endpoint.report_queue(under_way, millis * MS, bench.clock.now());
}

/// A bench over endpoints that have just reported these queues and latencies in milliseconds.
fn reported(reports: &[(u64, u32)]) -> (Endpoints, Bench) {
    let all = endpoints(reports.len());
    let bench = Bench::new(Prequal::new(), &all, 1);
    for (endpoint, &(under_way, millis)) in all.iter().zip(reports) {
        report(&bench, endpoint, under_way, millis);
    }
    (all, bench)
}

#[test]
fn a_report_is_used_as_often_as_the_paper_says_and_never_for_ever() {
    assert_eq!([1, 2, 16, 24, 25].map(uses), [16.0; 5]);
    // (1 - 16 / 32) * 3 - 1 = 0.5; (1 - 16 / 100) * 3 - 1 = 1.52.
    assert!((uses(32) - 4.0).abs() < 1e-9);
    assert!((uses(100) - 2.0 / 1.52).abs() < 1e-9);
    assert!((uses(1_000_000) - 1.0).abs() < 1e-4);
}

#[test]
fn the_quickest_wins_unless_its_queue_is_hot() {
    let mut reports = [(5, 20); 12];
    reports[3] = (5, 10);
    reports[7] = (90, 1);
    let (_all, mut bench) = reported(&reports);
    // All are in the pool after 40 picks, but for a probability of 12 * 0.75^40 < 2e-4.
    bench.tally(40);
    let counts = bench.tally(12);
    assert_eq!(counts[7], 0, "{counts:?}");
    assert!(counts[3] >= 1, "{counts:?}");
}

#[test]
fn requests_sent_make_a_queue_hot() {
    let (_all, mut bench) = reported(&[(1, 10), (1, 20), (1, 30)]);
    // The quickest takes one and is then beyond the others, and so on.
    let counts = bench.tally(6);
    assert!(counts.iter().all(|&count| count == 2), "{counts:?}");
}

#[test]
fn reports_that_are_used_up_do_not_come_back() {
    let mut reports = [(5, 20); 40];
    reports[0] = (0, 1);
    let (all, mut bench) = reported(&reports);
    // (1 - 16 / 40) * 3 - 1 = 0.8: used 2.5 times, rounded at random. The others are fewer own
    // requests, and there are none.
    let used = bench.tally(100)[0];
    assert!((1..=12).contains(&used), "{used}");
    let idle = bench.tally(4000);
    assert_uniform(&idle);
    bench.advance(MS);
    report(&bench, &all[0], 0, 1);
    report(&bench, &all[1], 9, 9);
    assert!(bench.tally(100)[0] > 2);
}

#[test]
fn requests_sent_since_a_report_count_even_after_it_left_the_pool() {
    let all = endpoints(3);
    let (now, mut rng) = (Timestamp::from_nanos(7_000), Rng::from_seed(1));
    let picker = Prequal::new().picker(Arc::clone(&all), &weights(&all));
    all[1].report_queue(5, 10 * MS, now);
    let queue = || picker.report(1, now).unwrap().queue;
    assert_eq!(queue(), 5.0);
    (0..3).for_each(|place| picker.use_report(place, 1, now, &mut rng));
    assert_eq!(queue(), 8.0);
    let later = now.after(MS);
    all[1].report_queue(6, 10 * MS, later);
    assert_eq!(picker.report(1, later).unwrap().queue, 6.0);
}

#[test]
fn of_a_response_and_the_registry_the_newer_counts_if_it_is_not_too_old() {
    let servers = servers(2);
    let clock = plimsoll_discovery_api::ManualClock::new();
    let all = views(&servers);
    let picker = Prequal::new().picker(Arc::clone(&all), &weights(&all));
    let queue = || picker.report(1, clock.now()).map(|report| report.queue);
    assert_eq!(queue(), None);
    servers[1].endpoint.report_queue(5, 10 * MS, clock.now());
    clock.advance(MS);
    assert_eq!(queue(), Some(5.0));
    servers[1].publish(7, &clock);
    assert_eq!(queue(), Some(7.0), "published later");
    clock.advance(MS);
    servers[1].endpoint.report_queue(6, 10 * MS, clock.now());
    assert_eq!(queue(), Some(6.0), "said later");
    clock.advance(DEFAULT_AGE_LIMIT);
    assert_eq!(queue(), Some(7.0), "said too long ago");
    clock.advance(DEFAULT_PUBLISHED_AGE_LIMIT - DEFAULT_AGE_LIMIT - 2 * MS);
    assert_eq!(queue(), Some(7.0));
    clock.advance(MS);
    assert_eq!(queue(), None);
}

#[test]
fn old_reports_do_not_count_and_who_has_none_is_tried_once() {
    let (all, mut bench) = reported(&[(5, 20), (5, 20), (0, 1), (0, 1)]);
    bench.advance(DEFAULT_AGE_LIMIT);
    report(&bench, &all[0], 5, 20);
    report(&bench, &all[1], 5, 20);
    let tried = bench.tally(15);
    assert!(tried[2] > 0 && tried[3] > 0, "{tried:?}");
    assert_eq!(bench.tally(10)[2..], [0, 0]);
}

#[test]
fn the_published_load_is_a_report_as_well() {
    let servers = servers(3);
    let all = views(&servers);
    let mut bench = Bench::new(Prequal::new().with_quantile(0.3).unwrap(), &all, 1);
    for (server, load) in servers.iter().zip([40, 3, 40]) {
        server.publish(load, &bench.clock);
        Pick::new(&*server.endpoint).finish_after(Outcome::Success, 10 * MS);
    }
    bench.tally(3);
    assert_eq!(bench.tally(8)[1], 8, "40 is hot");
    // The newer one counts.
    bench.advance(MS);
    report(&bench, &all[1], 99, 10);
    assert_eq!(bench.tally(10)[1], 0);
}

#[test]
fn a_published_load_counts_for_a_minute_and_beyond_what_a_response_said_before() {
    let servers = servers(2);
    let all = views(&servers);
    let mut bench = Bench::new(Prequal::new().with_quantile(0.3).unwrap(), &all, 1);
    for (server, load) in servers.iter().zip([40, 3]) {
        server.publish(load, &bench.clock);
        Pick::new(&*server.endpoint).finish_after(Outcome::Success, 10 * MS);
    }
    bench.advance(MS);
    report(&bench, &all[1], 99, 10);
    assert_eq!(bench.tally(4), [4, 0]);
    bench.advance(DEFAULT_PUBLISHED_AGE_LIMIT - 2 * MS);
    assert_eq!(bench.tally(8), [0, 8]);
    bench.advance(MS);
    assert_eq!(bench.tally(2), [1, 1], "each is tried once");
}

#[test]
fn without_reports_it_is_least_request() {
    let all = endpoints(5);
    let mut bench = Bench::new(Prequal::new(), &all, 2);
    assert_eq!(bench.tally(5), [1; 5], "each is tried first");
    assert_uniform(&bench.tally(10_000));
    let _under_way: Vec<_> = (0..500).map(|_| bench.begin()).collect();
    assert!(all.iter().all(|e| e.in_flight().abs_diff(100) <= 5));
}

#[test]
fn weights_count_for_queues_and_for_draws() {
    let all = weighted(&[100, 300]);
    let mut bench = Bench::new(Prequal::new().with_quantile(0.0).unwrap(), &all, 3);
    report(&bench, &all[0], 10, 10);
    report(&bench, &all[1], 18, 10);
    // Relative to their weights 20 and 12.
    assert_eq!(bench.tally(9), [0, 9]);
    let mut bare = Bench::new(Prequal::new(), &all, 3);
    bare.advance(DEFAULT_AGE_LIMIT);
    bare.tally(10);
    assert_shares(&bare.tally(20_000), &[1.0, 3.0]);
}

/// Ten servers that serve one request after the other, a second's work each being 100 of 10 ms; the
/// first one takes `slow` times as long from 10 s to 20 s. 600 requests a second for 40 s; every
/// response carries a report. Returns the requests to the first in each ten seconds.
fn simulated(balancer: impl Balancer, slow: u64, seed: u64) -> [u64; 4] {
    let all = endpoints(10);
    let mut bench = Bench::new(balancer, &all, seed);
    let mut free_at = [0_u64; 10];
    let mut under_way: Vec<(u64, u64, usize, Pick)> = Vec::new();
    let mut counts = [0; 4];
    // Times in units of 0.1 ms.
    for now in 0..400_000_u64 {
        bench.advance(MS / 10);
        let (ended, going): (Vec<_>, Vec<_>) =
            under_way.into_iter().partition(|(end, ..)| *end <= now);
        under_way = going;
        for (_, start, index, pick) in ended {
            let latency = MS / 10 * u32::try_from(now - start).unwrap();
            pick.finish_at(Outcome::Success, latency, bench.clock.now());
            let queue = under_way
                .iter()
                .filter(|(_, _, other, _)| *other == index)
                .count();
            all[index].report_queue(queue as u64, latency, bench.clock.now());
        }
        if now % 50 < 3 {
            let pick = bench.begin();
            let index: usize = pick.endpoint().id().as_str().parse().unwrap();
            let is_slow = index == 0 && (100_000..200_000).contains(&now);
            let end = free_at[index].max(now) + 100 * if is_slow { slow } else { 1 };
            free_at[index] = end;
            under_way.push((end, now, index, pick));
            counts[usize::try_from(now / 100_000).unwrap()] += u64::from(index == 0);
        }
    }
    counts
}

#[test]
fn a_slow_server_gets_less_while_it_is_slow_and_its_share_when_it_recovers() {
    // Six runs, as one differs from the next by a third: nothing here seeks equal shares.
    let mut sums = [0; 4];
    for seed in 0..6 {
        let counts = simulated(Prequal::new(), 10, seed);
        sums.iter_mut()
            .zip(counts)
            .for_each(|(sum, count)| *sum += count);
    }
    let [before, during, recovering, after] = sums.map(|sum| sum / 6);
    // An equal share is 600 in ten seconds; a tenth as quick, it can serve 100.
    assert!((450..750).contains(&before), "{before}");
    assert!((1..100).contains(&during), "{during}");
    assert!((300..750).contains(&recovering), "{recovering}");
    assert!((450..750).contains(&after), "{after}");
}

#[test]
fn a_new_endpoint_is_tried_before_it_is_used() {
    let all = endpoints(10);
    let nine: Endpoints = all[..9].iter().map(Arc::clone).collect();
    let mut bench = Bench::new(Prequal::new(), &nine, 5);
    for _ in 0..50 {
        bench.advance(MS);
        nine.iter()
            .for_each(|endpoint| report(&bench, endpoint, 5, 10));
        bench.pick();
    }
    bench.rebuild(&all);
    let mut tried = 0;
    for _ in 0..500 {
        bench.advance(MS);
        nine.iter()
            .for_each(|endpoint| report(&bench, endpoint, 5, 10));
        tried += u32::from(bench.index() == 9);
    }
    assert_eq!(tried, 1, "it has not answered yet");
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let refused = [
        (Prequal::new().with_quantile(1.1), "quantile"),
        (Prequal::new().with_age_limit(Duration::ZERO), "age_limit"),
        (
            Prequal::new().with_published_age_limit(Duration::ZERO),
            "published_age_limit",
        ),
    ];
    for (result, field) in refused {
        let error = result.unwrap_err();
        assert_eq!(error.context().next().map(|(name, _)| name), Some(field));
    }
}

#[test]
fn small_and_weightless_sets_are_handled() {
    assert_small_sets(Prequal::new);
}
