//! How long a client's tasks live, and how handles relate.

use std::time::Duration;

use plimsoll::{Client, ErrorKind, HealthCheck, NoEndpointReason, PickRequest};

use crate::support::{Scripted, ScriptedRegistry, member, named, no_tasks_left, settle};
use crate::{ANY, client_of, picked};

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_every_task_and_lets_go_of_the_registry() {
    let registry = ScriptedRegistry::with(&named(3));
    let checker = Scripted::default();
    checker.take(Duration::from_secs(3_600));
    let check = HealthCheck::new(checker.clone()).with_timeout(Duration::from_secs(7_200));
    let client = client_of(&registry)
        .with_health(check)
        .build()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(checker.running(), 3, "checks are under way");
    let (clone, local) = (client.clone(), client.local());
    drop(client);
    drop(local);
    settle().await;
    registry.publish(&[member("a")]);
    settle().await;
    assert_eq!(picked(&clone), "a", "a clone keeps the client going");

    drop(clone);
    no_tasks_left().await;
    assert_eq!((checker.running(), registry.watchers()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_local_handle_sees_a_change_at_its_next_pick_and_keeps_the_client_going() {
    let registry = ScriptedRegistry::with(&[member("a")]);
    let mut local = client_of(&registry).build().await.unwrap().local();
    for id in ["a", "b", "c"] {
        registry.publish(&[member(id)]);
        settle().await;
        let pick = local.pick(&ANY).unwrap();
        assert_eq!(
            (pick.endpoint().id().as_str(), pick.endpoint().in_flight()),
            (id, 1)
        );
        drop(pick);
        assert_eq!(local.client().endpoints()[0].in_flight(), 0);
    }
    drop(local);
    no_tasks_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_could_not_be_built_leaves_no_task() {
    let registry = ScriptedRegistry::new();
    registry.close();
    assert!(client_of(&registry).build().await.is_err());
    no_tasks_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_the_picks_and_handles_draw_apart() {
    let registry = ScriptedRegistry::with(&named(100));
    let picks = async |seed| {
        let client = Client::builder(registry.arc(), "s")
            .with_seed(seed)
            .build()
            .await
            .unwrap();
        let shared: Vec<_> = (0..50).map(|_| picked(&client)).collect();
        let mut handles = [client.local(), client.local()];
        let mut local = || {
            handles.each_mut().map(|handle| {
                let pick = |_| handle.pick(&ANY).unwrap().endpoint().id().to_string();
                (0..50).map(pick).collect::<Vec<_>>()
            })
        };
        (shared, local())
    };
    let (shared, [one, other]) = picks(7).await;
    assert_ne!(one, other);
    assert_eq!((shared, [one, other]), picks(7).await);
    assert_ne!(picks(7).await, picks(8).await);
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_local_handle_does_not_pick_in_step() {
    let registry = ScriptedRegistry::with(&named(100));
    let client = Client::builder(registry.arc(), "s").build().await.unwrap();
    let mut one = client.local();
    let mut other = one.clone();
    let ids = |handle: &mut plimsoll::LocalClient| -> Vec<_> {
        (0..50)
            .map(|_| {
                handle
                    .pick(&PickRequest::new())
                    .unwrap()
                    .endpoint()
                    .id()
                    .clone()
            })
            .collect()
    };
    // Two independent sequences of 50 among 100 are equal with p < 1e-50.
    assert_ne!(ids(&mut one), ids(&mut other));
}

#[test]
fn a_client_whose_runtime_has_ended_says_so_and_goes_on_picking() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (known, unknown) = (
        ScriptedRegistry::with(&[member("a")]),
        ScriptedRegistry::new(),
    );
    let (client, waiting) = runtime.block_on(async {
        let client = client_of(&known).build().await.unwrap();
        let waiting = client_of(&unknown).build().await.unwrap();
        settle().await;
        (client, waiting)
    });
    assert!(client.snapshot().unwrap().freshness().is_live());
    drop(runtime);
    let snapshot = client.snapshot().unwrap();
    assert!(!snapshot.freshness().is_live());
    assert_eq!(snapshot.cause().unwrap().kind(), ErrorKind::Closed);
    assert_eq!(picked(&client), "a");
    let refused = waiting.pick(&ANY).unwrap_err();
    assert_eq!(refused.reason(), NoEndpointReason::NotYetKnown);
    assert!(std::error::Error::source(&refused).is_some());
}
