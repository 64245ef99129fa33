//! What an endpoint counts, and keeps.

use super::*;

fn member() -> Member {
    let instance = Instance::builder("s", "h", 1).with_id("a").build().unwrap();
    Member::new(
        Arc::new(instance),
        Incarnation::from_bits(1),
        Arc::default(),
    )
}

#[test]
fn a_pick_counts_until_it_ends_and_its_outcome_is_kept_apart() {
    let endpoint = Arc::new(Endpoint::new(&member()));
    let picks: Vec<_> = (0..3).map(|_| Pick::new(Arc::clone(&endpoint))).collect();
    assert_eq!(endpoint.in_flight(), 3);
    for (pick, outcome) in
        picks
            .into_iter()
            .zip([Outcome::Failure, Outcome::Failure, Outcome::Success])
    {
        let before = endpoint.consecutive_failures();
        pick.finish(outcome);
        let after = endpoint.consecutive_failures();
        assert_eq!(
            after,
            if outcome == Outcome::Failure {
                before + 1
            } else {
                0
            }
        );
    }
    drop(Pick::new(&*endpoint));
    assert_eq!(endpoint.in_flight(), 0);
    assert_eq!(
        (
            endpoint.successes(),
            endpoint.failures(),
            endpoint.cancelled()
        ),
        (1, 2, 1)
    );
}

#[test]
fn latency_starts_at_the_first_sample_and_moves_by_an_eighth() {
    let endpoint = Endpoint::new(&member());
    assert_eq!(endpoint.latency(), None);
    Pick::new(&endpoint).finish_after(Outcome::Success, Duration::from_nanos(800));
    Pick::new(&endpoint).finish_after(Outcome::Success, Duration::from_nanos(1600));
    assert_eq!(endpoint.latency(), Some(Duration::from_nanos(900)));
}

#[test]
fn own_requests_are_not_counted_twice_once_a_report_includes_them() {
    let member = member();
    let endpoint = Endpoint::new(&member);
    let first = Pick::new(&endpoint);
    let unreported = |last, before| {
        let expected = Unreported {
            since_last: last,
            since_before: before,
        };
        assert_eq!(endpoint.unreported(), expected);
    };
    unreported(1, 1);
    member.load().store(1, Timestamp::from_nanos(10));
    unreported(0, 0);
    let second = Pick::new(&endpoint);
    unreported(1, 1);
    member.load().store(2, Timestamp::from_nanos(20));
    unreported(0, 1);
    drop((first, second));
    unreported(0, 0);
}

#[test]
fn statistics_survive_a_change_of_attributes_and_load() {
    let member = member();
    let endpoint = Endpoint::new(&member);
    endpoint.set_health(Health::Unhealthy);
    let pick = Pick::new(&endpoint);
    let heavier = Instance::clone(member.instance()).with_weight(Weight::MAX);
    let changed = Member::new(
        Arc::new(heavier),
        member.incarnation(),
        Arc::clone(member.load()),
    );
    for load in 0..100 {
        changed.load().store(load, Timestamp::from_nanos(load));
        assert_eq!(endpoint.refresh(&changed), load == 0);
    }
    assert_eq!(
        (endpoint.in_flight(), endpoint.health()),
        (1, Health::Unhealthy)
    );
    assert_eq!(endpoint.instance().weight(), Weight::MAX);
    assert_eq!(endpoint.weight(), Weight::MAX);
    let since = Timestamp::from_nanos(100);
    let suspect = changed.with_standing(Standing::Suspect { since });
    assert!(endpoint.refresh(&suspect) && !endpoint.refresh(&suspect));
    drop(pick);
}

#[test]
fn hot_counters_of_two_endpoints_share_no_cache_line() {
    assert!(align_of::<Endpoint>() >= 128);
}
