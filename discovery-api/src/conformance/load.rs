//! The load is published as it is, and never mistaken for anything else.

use std::sync::Arc;

use tokio::time::timeout;

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, built, eventually, gone, life, load_becomes, member};
use crate::{ErrorKind, LoadHandle, Snapshot, Status};

/// The load is published as it is, without being asked.
pub async fn the_load_is_published_without_being_asked(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let load = registration.load();
    let mut view = scene.follow(&other).await;
    let seen = view
        .until(scene.timing.settle, "the instance", |s| ids(s) == ["one"])
        .await;
    let bound = other.capabilities().load_max_age + scene.timing.settle;
    // What was never touched is known to be 0.
    load_becomes(bound, member(&seen, "one"), 0).await;
    for value in [3, 4_000, 4_001, u64::MAX, (1 << 53) + 1, 0] {
        load.set(value);
        load_becomes(bound, member(&seen, "one"), value).await;
    }
}

/// Even an unchanged load is published again before it exceeds its maximum age.
pub async fn an_unchanged_load_is_published_again(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let load = registration.load();
    load.set(7);
    flushed(&scene, &load).await;
    let mut view = scene.follow(&other).await;
    let seen = view
        .until(scene.timing.settle, "the instance", |s| ids(s) == ["one"])
        .await;
    load_becomes(scene.timing.settle, member(&seen, "one"), 7).await;
    let bound = other.capabilities().load_max_age + scene.timing.settle;
    for _ in 0..2 {
        let before = member(&seen, "one").load().report();
        eventually(bound, "another report of 7", || {
            match member(&seen, "one").load().report() {
                Some(now) if now.load == 7 && before.is_some_and(|b| b.received < now.received) => {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

/// A flush publishes the load at once.
pub async fn a_flush_publishes_the_load_at_once(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let load = registration.load();
    let mut view = scene.follow(&other).await;
    let seen = view
        .until(scene.timing.settle, "the instance", |s| ids(s) == ["one"])
        .await;
    let steps: [(Change, u64); 6] = [
        (|load| load.increase(3), 3),
        (|load| load.decrease(1), 2),
        (|load| load.set(70), 70),
        (|load| load.increase(u64::MAX), u64::MAX),
        (|load| load.set(5), 5),
        (|load| load.decrease(6), 0),
    ];
    for (change, expected) in steps {
        change(&load);
        assert_eq!(load.current(), expected);
        flushed(&scene, &load).await;
        // Confirmed is confirmed: its own process finds it there without waiting.
        match owner.list(&scene.service).await {
            Ok(now) => assert_eq!(member(&now, "one").load().get(), Some(expected)),
            Err(error) => panic!("a list failed while all is well: {error}"),
        }
        let listed = |s: &Snapshot| s.get("one").and_then(|m| m.load().get()) == Some(expected);
        let what = format!("a load of {expected}");
        scene
            .listed(&other, scene.timing.settle, &what, listed)
            .await;
        load_becomes(scene.timing.settle, member(&seen, "one"), expected).await;
    }
    assert_eq!(load.underflows(), 1);
    // Of nothing new, it is still an answer.
    flushed(&scene, &load).await;
}

/// The load is 0 after the last guard drops.
pub async fn the_load_is_zero_after_the_last_guard_drops(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let load = registration.load();
    let mut view = scene.follow(&other).await;
    let seen = view
        .until(scene.timing.settle, "the instance", |s| ids(s) == ["one"])
        .await;
    let bound = other.capabilities().load_max_age + scene.timing.settle;
    let handlers: Vec<_> = (0..50)
        .map(|_| {
            let guard = load.acquire_many(2);
            tokio::spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            })
        })
        .collect();
    load_becomes(bound, member(&seen, "one"), 100).await;
    // Handlers that are cut off anywhere give back what they hold.
    for handler in handlers {
        handler.abort();
        assert!(handler.await.is_err_and(|error| error.is_cancelled()));
    }
    load_becomes(bound, member(&seen, "one"), 0).await;
    assert_eq!((load.current(), load.underflows()), (0, 0));
}

/// The load is 0 after the last guard drops.
pub async fn who_comes_and_goes_in_an_outage_leaves_no_load_behind(harness: &dyn Harness) {
    const HANDLERS: u64 = 100;
    const REQUESTS: u64 = 100;
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let load = registration.load();
    let held = load.acquire_many(HANDLERS);
    let mut view = scene.follow(&other).await;
    let seen = view
        .until(scene.timing.settle, "the instance", |s| ids(s) == ["one"])
        .await;
    let bound = other.capabilities().load_max_age + scene.timing.settle;
    load_becomes(bound, member(&seen, "one"), HANDLERS).await;

    scene.faults().outage().await;
    let handler = || {
        let load = load.clone();
        tokio::spawn(async move {
            for _ in 0..REQUESTS {
                let _guard = load.acquire();
                tokio::task::yield_now().await;
            }
        })
    };
    let handlers: Vec<_> = (0..HANDLERS).map(|_| handler()).collect();
    drop(held);
    for handler in handlers {
        assert!(handler.await.is_ok(), "a handler ended early");
    }
    assert_eq!((load.current(), load.underflows()), (0, 0));
    scene.faults().restore().await;
    let bound = bound + scene.timing.recovery + scene.timing.expiry;
    view.until(bound, "a live instance without load", |s| {
        s.freshness().is_live() && s.get("one").is_some_and(|m| m.load().get() == Some(0))
    })
    .await;
}

/// A flush fails while the registration is not live, and after it was given up; no load is lost.
pub async fn a_flush_while_not_live_is_unavailable(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    scene.faults().outage().await;
    let registration = scene.register(&owner, &built(scene.builder("one"))).await;
    let load = registration.load();
    load.set(600);
    assert_eq!(flush_kind(&scene, &load).await, Err(ErrorKind::Unavailable));
    scene.faults().restore().await;
    let mut view = scene.follow(&other).await;
    let seen = view
        .until(scene.timing.recovery, "the instance", |s| ids(s) == ["one"])
        .await;
    let bound = other.capabilities().load_max_age + scene.timing.settle;
    load_becomes(bound, member(&seen, "one"), 600).await;
}

/// A flush fails while the registration is not live, and after it was given up; no load is lost.
pub async fn a_flush_after_deregistration_is_closed(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let owner = scene.process().await;
    let registration = scene.live(&owner, "one").await;
    let load = registration.load();
    let guard = load.acquire();
    gone(scene.timing.removal, &registration).await;
    assert_eq!(flush_kind(&scene, &load).await, Err(ErrorKind::Closed));
    drop(registration);
    // The handle outlives the registration without harm.
    drop(guard);
    load.increase(4);
    assert_eq!(load.current(), 4);
    assert_eq!(flush_kind(&scene, &load).await, Err(ErrorKind::Closed));
    let settle = scene.timing.settle;
    scene
        .listed(&owner, settle, "nobody", |s| s.members().is_empty())
        .await;
    scene
        .list_stays(&owner, "nobody", |s| s.members().is_empty())
        .await;
}

/// A change of load wakes no watcher and changes no identity.
pub async fn load_updates_wake_no_watcher_and_change_no_identity(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let incarnation = life(&registration);
    let load = registration.load();
    let mut view = scene.follow(&other).await;
    let seen = view
        .until(scene.timing.settle, "the instance", |s| ids(s) == ["one"])
        .await;
    let published = Arc::clone(member(&seen, "one").load());
    view.drain(scene.timing.quiet).await;
    for value in 1..=100 {
        load.set(value * 10);
        flushed(&scene, &load).await;
    }
    eventually(scene.timing.settle, "the last load", || {
        match published.get() {
            Some(1_000) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    view.silent(scene.timing.quiet, "changes of load").await;
    // Unless asked to look, nobody looks: only now does the watcher get another snapshot.
    if let Err(error) = registration.set_status(Status::Draining) {
        panic!("set_status was refused: {error}");
    }
    let next = view.next(scene.timing.settle, "the new status").await;
    let same = member(&next, "one");
    assert_eq!(same.incarnation(), incarnation, "loads made a new life");
    assert!(
        Arc::ptr_eq(same.load(), &published),
        "the published load is another object"
    );
    assert_eq!(
        same.load().get(),
        Some(1_000),
        "a change of status lost the load"
    );
    // A second reader of the process reads the same object.
    let second = scene
        .follow(&other)
        .await
        .next(scene.timing.settle, "the present set")
        .await;
    assert!(
        Arc::ptr_eq(member(&second, "one").load(), &published),
        "two watches, two loads"
    );
}

type Change = fn(&LoadHandle);

async fn flushed(scene: &Scene<'_>, load: &LoadHandle) {
    assert_eq!(
        flush_kind(scene, load).await,
        Ok(()),
        "a flush failed while all is well"
    );
}

async fn flush_kind(scene: &Scene<'_>, load: &LoadHandle) -> Result<(), ErrorKind> {
    match timeout(scene.timing.detection, load.flush()).await {
        Ok(flushed) => flushed.map_err(|error| error.kind()),
        Err(_) => panic!("a flush kept its caller for {:?}", scene.timing.detection),
    }
}
