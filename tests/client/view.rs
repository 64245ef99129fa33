//! How snapshots and verdicts become views.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use plimsoll::{
    Freshness, NoEndpointReason, Outcome, Pick, Status, Timestamp, Weight, balancers::Random,
};

use crate::support::{
    First, Mood, Moody, ScriptedRegistry, changed, heavier, member, named, settle, suspect,
    with_status,
};
use crate::{ANY, client_of, picked};

#[tokio::test(start_paused = true)]
async fn statistics_survive_changes_of_membership_attributes_and_load() {
    let members = named(3);
    let registry = ScriptedRegistry::with(&members);
    let client = client_of(&registry)
        .with_balancer(First::default())
        .build()
        .await
        .unwrap();
    let held = client.pick(&ANY).unwrap();
    let endpoint = Arc::clone(held.endpoint());
    client.pick(&ANY).unwrap().finish(Outcome::Failure);

    for round in 0..100 {
        members[0]
            .load()
            .store(round.into(), Timestamp::from_nanos(round.into()));
        let first = changed(&members[0], |i| {
            i.with_weight(Weight::new(1 + round).unwrap())
        });
        let others = &members[1..][..usize::from(round % 2 == 0)];
        registry.publish(&[&[first], others].concat());
        settle().await;
    }
    assert!(Arc::ptr_eq(&client.endpoints()[0], &endpoint));
    assert_eq!((endpoint.in_flight(), endpoint.failures()), (1, 1));
    assert_eq!(endpoint.instance().weight().get(), 100);
    assert_eq!(
        endpoint.published_load().map(|report| report.load),
        Some(99)
    );
    held.finish(Outcome::Success);
    assert_eq!((endpoint.in_flight(), endpoint.successes()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_joins_later_is_told_apart_from_those_who_were_there() {
    let members = named(2);
    let registry = ScriptedRegistry::with(&members[..1]);
    let client = client_of(&registry).build().await.unwrap();
    registry.publish(&members);
    settle().await;
    let joined: Vec<_> = client
        .endpoints()
        .iter()
        .map(|e| e.joined_at().is_some())
        .collect();
    assert_eq!(joined, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn another_incarnation_begins_with_a_clean_slate() {
    let registry = ScriptedRegistry::with(&[member("a")]);
    let client = client_of(&registry).build().await.unwrap();
    let held = client.pick(&ANY).unwrap();
    registry.publish(&[member("a")]);
    settle().await;
    let endpoints = client.endpoints();
    assert!(!Arc::ptr_eq(held.endpoint(), &endpoints[0]));
    assert_eq!(
        (held.endpoint().in_flight(), endpoints[0].in_flight()),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn draining_and_out_of_service_get_no_new_picks_and_stay_in_the_snapshot() {
    for status in [Status::Draining, Status::OutOfService] {
        let members = named(2);
        let registry = ScriptedRegistry::with(&members);
        let client = client_of(&registry).build().await.unwrap();
        let held: Vec<Pick> = (0..50).map(|_| client.pick(&ANY).unwrap()).collect();
        registry.publish(&[with_status(&members[0], status), members[1].clone()]);
        settle().await;
        assert!((0..100).all(|_| picked(&client) == "001"), "{status}");
        assert_eq!(client.snapshot().unwrap().members().len(), 2);
        let leaving = &client.endpoints()[0];
        let to_it = held
            .iter()
            .filter(|pick| Arc::ptr_eq(pick.endpoint(), leaving))
            .count();
        assert!(
            to_it > 0 && leaving.in_flight() as usize == to_it,
            "what is in flight counts on"
        );

        registry.publish(&members);
        settle().await;
        // All 100 miss it with p = 2^-100.
        assert!((0..100).any(|_| picked(&client) == "000"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_suspect_are_left_out_until_too_few_others_remain() {
    let members = named(4);
    let registry = ScriptedRegistry::with(&members);
    let client = client_of(&registry)
        .with_balancer(Random::new())
        .build()
        .await
        .unwrap();
    for (suspects, failing_open, eligible) in [(2, false, 2), (3, true, 4), (0, false, 4)] {
        let now: Vec<_> = members
            .iter()
            .enumerate()
            .map(|(n, m)| if n < suspects { suspect(m) } else { m.clone() })
            .collect();
        registry.publish(&now);
        settle().await;
        let stats = client.stats();
        assert_eq!(
            (stats.members, stats.eligible),
            (4, eligible),
            "{suspects} suspect"
        );
        assert_eq!(stats.failing_open, failing_open, "{suspects} suspect");
        // One of at most 4 is missed by all 400 picks with p < 4 * (3/4)^400 < 1e-49.
        let seen: HashSet<_> = (0..400).map(|_| picked(&client)).collect();
        assert_eq!(seen.len(), eligible, "{suspects} suspect");
    }
}

#[tokio::test(start_paused = true)]
async fn weight_zero_gets_no_traffic_and_fails_nothing_open() {
    let members = named(2);
    let idle = changed(&members[0], |i| i.with_weight(Weight::ZERO));
    let registry = ScriptedRegistry::with(&[idle, members[1].clone()]);
    let client = client_of(&registry)
        .with_fail_open_below(1.0)
        .build()
        .await
        .unwrap();
    assert!((0..100).all(|_| picked(&client) == "001"));
    assert!(!client.stats().failing_open);
}

#[tokio::test(start_paused = true)]
async fn a_filter_sees_changed_attributes() {
    let members = named(2);
    let registry = ScriptedRegistry::with(&members);
    let heavy = |i: &plimsoll::Instance| i.weight() == Weight::MAX;
    let client = client_of(&registry)
        .with_filter(heavy)
        .build()
        .await
        .unwrap();
    assert_eq!(client.view().nothing(), Some(NoEndpointReason::AllFiltered));
    registry.publish(&[members[0].clone(), heavier(&members[1])]);
    settle().await;
    assert_eq!(picked(&client), "001");
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_the_last_good_set_is_picked_from_and_nothing_is_rebuilt() {
    let members = named(3);
    let registry = ScriptedRegistry::with(&members);
    let balancer = First::default();
    let client = client_of(&registry)
        .with_balancer(balancer.clone())
        .build()
        .await
        .unwrap();
    settle().await;
    let before = balancer.built.load(Ordering::SeqCst);
    registry.publish_stale(
        &members,
        Freshness::Stale {
            since: Timestamp::from_nanos(7),
        },
    );
    settle().await;
    let freshness = client.snapshot().unwrap().freshness();
    assert_eq!(
        freshness,
        Freshness::Stale {
            since: Timestamp::from_nanos(7)
        }
    );
    assert_eq!(picked(&client), "000");
    registry.publish(&members);
    settle().await;
    assert!(client.snapshot().unwrap().freshness().is_live());
    assert_eq!(balancer.built.load(Ordering::SeqCst), before);
    assert_eq!(client.stats().rebuilds, before);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_stops_for_good_leaves_the_last_set_marked_stale() {
    let registry = ScriptedRegistry::with(&named(2));
    let client = client_of(&registry)
        .with_balancer(First::default())
        .build()
        .await
        .unwrap();
    registry.close();
    settle().await;
    assert!(!client.snapshot().unwrap().freshness().is_live());
    assert_eq!(picked(&client), "000");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_load_rebuilds_nothing() {
    let members = named(3);
    let registry = ScriptedRegistry::with(&members);
    let client = client_of(&registry).build().await.unwrap();
    settle().await;
    let (view, rebuilds) = (client.view(), client.stats().rebuilds);
    for load in 0..100 {
        members[0].load().store(load, Timestamp::from_nanos(load));
        settle().await;
    }
    assert!(Arc::ptr_eq(&view, &client.view()));
    assert_eq!(client.stats().rebuilds, rebuilds);
}

#[tokio::test(start_paused = true)]
async fn the_balancer_is_told_when_weights_or_members_change() {
    let members = named(2);
    let registry = ScriptedRegistry::with(&members);
    let balancer = First::default();
    let client = client_of(&registry)
        .with_balancer(balancer.clone())
        .build()
        .await
        .unwrap();
    settle().await;
    for now in [
        vec![heavier(&members[0]), members[1].clone()],
        vec![members[1].clone()],
        vec![],
    ] {
        let before = balancer.built.load(Ordering::SeqCst);
        registry.publish(&now);
        settle().await;
        assert_eq!(balancer.built.load(Ordering::SeqCst), before + 1, "{now:?}");
    }
    assert_eq!(
        client.view().nothing(),
        Some(NoEndpointReason::NoneRegistered)
    );
}

#[tokio::test(start_paused = true)]
async fn a_panicking_balancer_leaves_the_view_before_and_the_updater_alive() {
    let registry = ScriptedRegistry::with(&named(1));
    let balancer = Moody::default();
    let client = client_of(&registry)
        .with_balancer(balancer.clone())
        .build()
        .await
        .unwrap();
    settle().await;
    balancer.set(Mood::Panic);
    registry.publish(&[member("b")]);
    settle().await;
    assert_eq!(
        (picked(&client).as_str(), client.stats().panics),
        ("000", 1)
    );
    assert_eq!(
        client.snapshot().unwrap().members()[0].id().as_str(),
        "000",
        "no half update"
    );

    balancer.set(Mood::Good);
    registry.publish(&[member("c")]);
    settle().await;
    assert_eq!((picked(&client).as_str(), client.stats().panics), ("c", 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_panic_kept_from_view_comes_with_the_next_news() {
    let registry = ScriptedRegistry::with(&named(1));
    let balancer = Moody::default();
    let client = client_of(&registry)
        .with_balancer(balancer.clone())
        .build()
        .await
        .unwrap();
    settle().await;
    let next = [member("b")];
    balancer.set(Mood::Panic);
    registry.publish(&next);
    settle().await;
    balancer.set(Mood::Good);
    registry.publish(&next);
    settle().await;
    assert_eq!(picked(&client), "b");
}

#[tokio::test(start_paused = true)]
async fn a_panicking_filter_leaves_the_view_before_and_the_updater_alive() {
    let registry = ScriptedRegistry::with(&named(1));
    let picky = |i: &plimsoll::Instance| {
        assert_ne!(i.id().as_str(), "bad", "cannot stand it");
        true
    };
    let client = client_of(&registry)
        .with_filter(picky)
        .build()
        .await
        .unwrap();
    registry.publish(&[member("bad")]);
    settle().await;
    assert_eq!(
        (picked(&client).as_str(), client.stats().panics),
        ("000", 1)
    );
    registry.publish(&[member("good")]);
    settle().await;
    assert_eq!(picked(&client), "good");
}
