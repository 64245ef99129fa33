//! Watches start complete, converge, and stay small.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Harness;
use super::observer::{Observer, ids, show};
use super::scene::{Scene, built, gone, load_becomes, member, ready};
use crate::{Incarnation, Instance, Registration, Registry, Rng, Snapshot, Weight};

/// A watch yields the present set first, whenever it starts.
pub async fn a_watch_yields_the_present_set_first(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registrations = scene.live_many(&owner, 0..5).await;
    let settle = scene.timing.settle;
    let listed = scene
        .listed(&other, settle, "five", |s| s.members().len() == 5)
        .await;
    let first = scene
        .follow(&other)
        .await
        .next(settle, "the present set")
        .await;
    assert_eq!(
        identities(&first),
        identities(&listed),
        "the first snapshot is not the set"
    );
    assert!(first.freshness().is_live());
    drop(registrations);
}

/// A watch yields the present set first, whenever it starts.
pub async fn a_late_watcher_gets_the_present_set(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let settle = scene.timing.settle;
    let mut early = scene.follow(&other).await;
    let empty = early.next(settle, "an empty list").await;
    assert!(empty.members().is_empty(), "{}", show(&empty));
    let registrations = scene.live_many(&owner, 0..5).await;
    let now = early
        .until(settle, "five members", |s| s.members().len() == 5)
        .await;
    // What the process already follows must not have passed the newcomer by.
    let first = scene
        .follow(&other)
        .await
        .next(settle, "the present set")
        .await;
    assert_eq!(identities(&first), identities(&now));
    drop(early);
    let again = scene
        .follow(&other)
        .await
        .next(settle, "the present set")
        .await;
    assert_eq!(
        identities(&again),
        identities(&now),
        "a watch after the last was dropped differs"
    );
    drop(registrations);
}

/// A watch of the members alone sees the members that a watch sees.
pub async fn a_watch_of_members_alone_sees_the_same_members(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let processes = [scene.process().await, scene.process().await];
    let settle = scene.timing.settle;
    let mut alone = scene.follow_members(&processes[1]).await;
    let mut registrations = scene.live_many(&processes[0], 0..4).await;
    alone
        .until(settle, "all of them", |s| s.members().len() == 4)
        .await;
    gone(scene.timing.removal, &registrations.remove(0)).await;
    alone
        .until(settle, "the others", |s| ids(s) == ["m1", "m2", "m3"])
        .await;
    let changed = built(scene.builder("m1").with_weight(7));
    if let Err(error) = registrations[0].update(changed) {
        panic!("an update was refused: {error}");
    }
    let is_changed = |s: &Snapshot| {
        s.get("m1")
            .is_some_and(|m| m.instance().weight().get() == 7)
    };
    let seen = alone.until(settle, "the change", is_changed).await;
    let mut both = scene.follow(&processes[0]).await;
    let truth = both.until(settle, "the change", is_changed).await;
    assert_eq!(identities(&seen), identities(&truth));
}

/// Loads are followed as soon as somebody watches them, whoever watches the members already.
pub async fn loads_are_followed_once_somebody_watches_them(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let settle = scene.timing.settle;
    let registration = scene.live(&owner, "one").await;
    let mut alone = scene.follow_members(&other).await;
    let is_there = |s: &Snapshot| ids(s) == ["one"];
    alone.until(settle, "the instance", is_there).await;
    let load = registration.load();
    load.set(3);
    let mut both = scene.follow(&other).await;
    let seen = both.until(settle, "the instance", is_there).await;
    let bound = other.capabilities().load_max_age + settle;
    for value in [3, 5, 0, 8] {
        load.set(value);
        load_becomes(bound, member(&seen, "one"), value).await;
    }
    alone
        .silent(scene.timing.quiet, "loads, which are no change of members")
        .await;
}

/// A watch converges to the truth, and two watchers agree.
pub async fn a_watch_converges_under_churn(harness: &dyn Harness) {
    const IDS: usize = 8;
    let scene = Scene::new(harness);
    let processes = [scene.process().await, scene.process().await];
    let eager = scene.follow(&processes[0]).await.attend();
    let mut lazy = scene.follow(&processes[1]).await;
    let mut rng = Rng::from_seed(20_260_214);
    let mut registered: [Option<Registration>; IDS] = Default::default();
    for _ in 0..scene.timing.rounds {
        let index = rng.below(IDS);
        let process = &processes[index % processes.len()];
        churn(&scene, process, index, &mut registered, &mut rng).await;
        if rng.below(3) == 0 {
            sleep(Duration::from_millis(30).mul_f64(rng.next_f64())).await;
        }
    }
    let mut truth = Vec::new();
    for registration in registered.iter().flatten() {
        ready(scene.timing.recovery, registration).await;
        truth.push(registration);
    }
    let mut eager = eager.report().await;
    let late = &mut scene.follow(&processes[1]).await;
    for view in [&mut eager, &mut lazy, late] {
        view.until(scene.timing.recovery, "the truth", |s| is_true(s, &truth))
            .await;
        view.stays(scene.timing.quiet, "the truth", |s| is_true(s, &truth))
            .await;
    }
    for process in &processes {
        scene
            .listed(process, scene.timing.recovery, "the truth", |s| {
                is_true(s, &truth)
            })
            .await;
    }
}

/// One random step in the life of the instance `index`.
async fn churn(
    scene: &Scene<'_>,
    process: &dyn Registry,
    index: usize,
    registered: &mut [Option<Registration>],
    rng: &mut Rng,
) {
    let id = format!("c{index}");
    #[expect(clippy::cast_possible_truncation, reason = "below 1,000")]
    let weight = rng.below(1_000) as u32;
    let instance = built(scene.builder(&id).with_weight(weight));
    let Some(registration) = &registered[index] else {
        registered[index] = Some(scene.register(process, &instance).await);
        return;
    };
    match rng.below(10) {
        0..5 => {
            if let Err(error) = registration.update(instance) {
                panic!("an update was refused: {error}");
            }
        }
        5..9 => {
            gone(scene.timing.removal, registration).await;
            registered[index] = None;
        }
        _ => {
            scene
                .faults()
                .expire(instance.service(), instance.id())
                .await
        }
    }
}

fn is_true(snapshot: &Snapshot, truth: &[&Registration]) -> bool {
    let holds = |registration: &&Registration| {
        let instance = registration.instance();
        snapshot.get(instance.id().as_str()).is_some_and(|member| {
            *member.instance() == instance
                && Some(member.incarnation()) == registration.state().incarnation()
                && member.standing().is_registered()
        })
    };
    snapshot.freshness().is_live()
        && snapshot.members().len() == truth.len()
        && truth.iter().all(holds)
}

/// A watch converges to the truth, and two watchers agree.
pub async fn two_watchers_agree(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let owner = scene.process().await;
    let (one, two) = (scene.process().await, scene.process().await);
    let mut views = [
        scene.follow(&one).await,
        scene.follow(&one).await,
        scene.follow(&two).await,
    ];
    let mut registrations = scene.live_many(&owner, 0..4).await;
    agree(&scene, &mut views, &["m0", "m1", "m2", "m3"]).await;
    let leaving = registrations.remove(1);
    gone(scene.timing.removal, &leaving).await;
    agree(&scene, &mut views, &["m0", "m2", "m3"]).await;
    registrations.push(scene.live(&two, "m4").await);
    agree(&scene, &mut views, &["m0", "m2", "m3", "m4"]).await;
}

async fn agree(scene: &Scene<'_>, views: &mut [Observer], expected: &[&str]) {
    let mut seen = Vec::new();
    for view in views {
        let what = format!("{expected:?}");
        seen.push(
            view.until(scene.timing.settle, &what, |s| ids(s) == expected)
                .await,
        );
    }
    for pair in seen.windows(2) {
        assert_eq!(
            identities(&pair[0]),
            identities(&pair[1]),
            "two watchers disagree"
        );
    }
}

/// A service that nobody registered is empty, not an error.
pub async fn an_unknown_service_is_empty(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let process = scene.process().await;
    let listed = match process.list(&scene.service).await {
        Ok(snapshot) => snapshot,
        Err(error) => panic!("a service that nobody registered is an error: {error}"),
    };
    let watched = scene
        .follow(&process)
        .await
        .next(scene.timing.settle, "an empty list")
        .await;
    for snapshot in [&listed, &*watched] {
        let as_expected = snapshot.members().is_empty()
            && snapshot.skipped() == 0
            && snapshot.freshness().is_live()
            && *snapshot.service() == scene.service;
        assert!(
            as_expected,
            "expected nothing, live; found {}",
            show(snapshot)
        );
    }
    match process.services().await {
        Ok(services) => assert!(!services.contains(&scene.service), "asking made it exist"),
        Err(error) => panic!("services failed while all is well: {error}"),
    }
}

/// An entry that cannot be understood is skipped and counted, and harms no other.
pub async fn an_entry_that_cannot_be_understood_is_skipped(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let settle = scene.timing.settle;
    let _first = scene.live(&owner, "first").await;
    let mut early = scene.follow(&other).await;
    early
        .until(settle, "the first", |s| {
            ids(s) == ["first"] && s.skipped() == 0
        })
        .await;
    scene.faults().poison(&scene.service).await;
    let both = |s: &Snapshot| ids(s) == ["first", "second"] && s.skipped() == 1;
    early
        .until(settle, "one skipped", |s| {
            ids(s) == ["first"] && s.skipped() == 1
        })
        .await;
    let second = scene.live(&owner, "second").await;
    early.until(settle, "both and one skipped", both).await;
    // One that begins with a list must read around it just as one that followed it in.
    let mut late = scene.follow(&scene.process().await).await;
    late.until(settle, "both and one skipped", both).await;
    scene
        .listed(&other, settle, "both and one skipped", both)
        .await;
    gone(scene.timing.removal, &second).await;
    early
        .until(settle, "the first again", |s| {
            ids(s) == ["first"] && s.skipped() == 1
        })
        .await;
    late.until(settle, "the first again", |s| {
        ids(s) == ["first"] && s.skipped() == 1
    })
    .await;
}

/// A slow watcher sees the latest state, in bounded memory.
pub async fn a_slow_watcher_sees_the_latest_state(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let settle = scene.timing.settle;
    let registration = scene.live(&owner, "busy").await;
    let mut slow = scene.follow(&other).await;
    slow.until(settle, "the instance", |s| ids(s) == ["busy"])
        .await;
    let mut passing = Vec::new();
    for round in 1..=scene.timing.rounds {
        let weight = round % Weight::MAX.get();
        let changed = built(scene.builder("busy").with_weight(weight));
        if let Err(error) = registration.update(changed) {
            panic!("an update was refused: {error}");
        }
        tokio::task::yield_now().await;
        // A reader that keeps nothing but what came by, for the states to be let go by the rest.
        if round % 10 == 0 {
            sleep(Duration::from_millis(1)).await;
            passing.extend(slow.peek().as_ref().map(Arc::downgrade));
        }
    }
    let last = registration.instance();
    let is_last = |s: &Snapshot| s.get("busy").is_some_and(|m| *m.instance() == last);
    super::scene::eventually(scene.timing.recovery, "the last update", || {
        match slow.peek() {
            Some(latest) if is_last(&latest) => Ok(()),
            Some(latest) => Err(show(&latest)),
            None => Err("nothing".to_owned()),
        }
    })
    .await;
    let first = slow.next(settle, "the latest state").await;
    assert!(
        is_last(&first),
        "a slow watcher is shown the past: {}",
        show(&first)
    );
    slow.silent(scene.timing.quiet, "states that it has skipped")
        .await;
    let held = passing
        .iter()
        .filter_map(std::sync::Weak::upgrade)
        .filter(|state| !is_last(state))
        .count();
    // One more may be held for the next comparison; a queue would hold them all.
    assert!(
        held <= 2,
        "{held} of {} former states are still kept",
        passing.len()
    );
    assert!(member(&first, "busy").standing().is_registered());
}

type Identity = (Arc<Instance>, Incarnation);

fn identities(snapshot: &Snapshot) -> Vec<Identity> {
    snapshot
        .members()
        .iter()
        .map(|m| (Arc::clone(m.instance()), m.incarnation()))
        .collect()
}
