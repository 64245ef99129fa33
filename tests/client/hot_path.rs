//! Picking itself: what it allocates and what it can see.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::balancers::{LeastLoad, LeastRequest, Random, RoundRobin};
use plimsoll::{Admission, Balancer, Client, Outcome, PickRequest, View};

use crate::support::{ByKey, ScriptedRegistry, member, named};
use crate::{ANY, client_of};

fn allocations(mut work: impl FnMut()) -> u64 {
    // What a thread sets up at its first pick is not the pick's.
    work();
    allocation_counter::measure(work).count_total
}

async fn assert_no_allocation(balancer: impl Balancer) {
    let name = balancer.name();
    let registry = ScriptedRegistry::with(&named(100));
    for client in [
        Client::builder(registry.arc(), "s")
            .with_balancer(balancer)
            .build()
            .await
            .unwrap(),
        client_of(&registry)
            .with_balancer(ByKey::default())
            .build()
            .await
            .unwrap(),
    ] {
        let endpoints = client.endpoints();
        let excluding = PickRequest::keyed("user-17").with_excluded(&endpoints[10..60]);
        let excluding_all = PickRequest::new().with_excluded(&endpoints);
        let shared = allocations(|| {
            for request in [&ANY, &PickRequest::keyed("user-17"), &excluding] {
                client.pick(request).unwrap().finish(Outcome::Success);
            }
            assert!(client.pick(&excluding_all).is_err());
        });
        assert_eq!(shared, 0, "{name}, shared");
        let mut local = client.local();
        let local = allocations(|| {
            for request in [&ANY, &PickRequest::keyed("user-17"), &excluding] {
                local.pick(request).unwrap().finish(Outcome::Success);
            }
            assert!(local.pick(&excluding_all).is_err());
        });
        assert_eq!(local, 0, "{name}, local");
    }
}

#[tokio::test]
async fn a_pick_allocates_nothing_whether_it_is_granted_or_refused() {
    assert_no_allocation(LeastLoad::new()).await;
    assert_no_allocation(LeastRequest::new()).await;
    assert_no_allocation(Random::new()).await;
    assert_no_allocation(RoundRobin::new()).await;
}

/// While an endpoint is tried that had been left out, picks take another way.
#[tokio::test(start_paused = true)]
async fn a_pick_allocates_nothing_while_an_endpoint_is_tried() {
    let registry = ScriptedRegistry::with(&named(100));
    let client = client_of(&registry).build().await.unwrap();
    let sick = Arc::clone(&client.endpoints()[7]);
    plimsoll::Pick::new(&*sick).finish(Outcome::Unreachable);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sick.admission(), Admission::OnOffer);
    let mut local = client.local();
    // A trial that is given up is on offer again, for the next pick.
    let allocated = allocations(|| {
        for request in [&ANY, &PickRequest::keyed("user-17")] {
            drop(client.pick(request).unwrap());
            drop(local.pick(request).unwrap());
        }
        assert_eq!(sick.admission(), Admission::OnOffer);
    });
    assert_eq!(allocated, 0);
    let trial = client.pick(&ANY).unwrap();
    assert_eq!(sick.admission(), Admission::OnTrial);
    let beside = allocations(|| {
        client.pick(&ANY).unwrap().finish(Outcome::Success);
        local.pick(&ANY).unwrap().finish(Outcome::Success);
    });
    assert_eq!(beside, 0);
    drop(trial);
}

#[test]
fn the_counter_of_allocations_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

/// Each generation of members has ids of its own, so a mixture of two is told at a glance.
fn assert_whole(view: &View) {
    let generations: BTreeSet<&str> = view
        .snapshot()
        .into_iter()
        .flat_map(|snapshot| snapshot.members())
        .map(|member| member.id().as_str())
        .chain(view.endpoints().iter().map(|e| e.id().as_str()))
        .chain(view.eligible().iter().map(|e| e.id().as_str()))
        .map(|id| id.split_once('-').unwrap().0)
        .collect();
    assert_eq!(generations.len(), 1, "{generations:?}");
    assert_eq!(
        view.endpoints().len(),
        view.snapshot().unwrap().members().len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_that_pick_while_membership_churns_never_see_half_an_update() {
    let generation = |n: u64| -> Vec<_> {
        (0..=n % 5)
            .map(|index| member(&format!("{n}-{index}")))
            .collect()
    };
    let registry = ScriptedRegistry::with(&generation(0));
    let client = Client::builder(registry.arc(), "s").build().await.unwrap();
    let watchers = [(); 2].map(|()| {
        let (client, seen) = (client.clone(), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || pick_until(LAST, &client, &seen)
        });
        (thread, seen)
    });
    for n in 1..=LAST {
        registry.publish(&generation(n));
        // Every tenth is waited for, so that both threads meet many exchanges; the rest race.
        let both = || {
            watchers
                .iter()
                .all(|(_, seen)| seen.load(Ordering::Relaxed) >= n)
        };
        let gone = || watchers.iter().any(|(thread, _)| thread.is_finished());
        while n % 10 == 0 && !both() && !gone() {
            tokio::task::yield_now().await;
        }
    }
    for (thread, seen) in watchers {
        thread.join().unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), LAST);
    }
    assert!(client.endpoints().iter().all(|e| e.in_flight() == 0));
}

/// The last generation.
const LAST: u64 = 500;

/// Picks both ways until the view of `last` has been seen.
fn pick_until(last: u64, client: &Client, seen: &AtomicU64) {
    let mut local = client.local();
    while seen.load(Ordering::Relaxed) < last {
        drop(local.pick(&ANY).expect("there is always a member"));
        client
            .pick(&ANY)
            .expect("there is always a member")
            .finish(Outcome::Success);
        let view = client.view();
        assert_whole(&view);
        seen.store(
            view.snapshot().unwrap().revision().counter(),
            Ordering::Relaxed,
        );
    }
}
