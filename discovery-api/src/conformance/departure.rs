//! Who leaves is gone, and who vanishes is gone if it was alone.

use tokio::time::Instant;

use super::Harness;
use super::observer::{Observer, ids, show};
use super::scene::{Scene, gone, ids_of};
use crate::{Registration, Snapshot};

/// A sudden mass loss is held down: what went missing is suspect for a grace period, then dropped.
pub async fn a_mass_loss_is_held_down(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (survivor, victim) = (scene.process().await, scene.process().await);
    let witness = scene.process().await;
    let staying = scene.live_many(&survivor, 0..4).await;
    let crashing = scene.live_many(&victim, 4..10).await;
    let mut view = view_of(&scene, &witness, 10).await;
    view.never("a member dropped within the grace", |s| {
        s.members().len() < 10
    });

    let watching = view.attend();
    let crashed = Instant::now();
    scene
        .faults()
        .crash(&scene.service, &ids_of(&crashing))
        .await;
    let bound = scene.timing.expiry + scene.timing.settle;
    let held = |s: &Snapshot| {
        s.members().len() == 10
            && staying.iter().all(|r| standing(s, r))
            && crashing.iter().all(|r| !standing(s, r))
    };

    // A list shows what the registry says, and nothing else.
    scene
        .listed(&witness, bound, "the survivors", |s| s.members().len() == 4)
        .await;
    let mut view = watching.report().await;
    view.until(bound, "six of ten suspect", held).await;
    // A second watcher of the process sees it no better and no worse.
    let joined = scene
        .follow(&witness)
        .await
        .next(scene.timing.settle, "the held list")
        .await;
    assert!(held(&joined), "a late watcher is shown {}", show(&joined));

    let end = scene.timing.grace + scene.timing.settle;
    view.allow_all();
    view.until(end, "the first to be dropped", |s| s.members().len() < 10)
        .await;
    let lasted = crashed.elapsed();
    assert!(
        lasted >= scene.timing.grace,
        "the grace period ended after {lasted:?}"
    );
    let last = view
        .until(end, "the survivors", |s| s.members().len() == 4)
        .await;
    assert!(
        staying.iter().all(|r| standing(&last, r)),
        "{}",
        show(&last)
    );
}

/// A single crash takes effect as soon as the registry knows of it.
pub async fn a_single_crash_takes_effect_at_once(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (survivor, victim) = (scene.process().await, scene.process().await);
    let witness = scene.process().await;
    let _staying = scene.live_many(&survivor, 0..9).await;
    let crashing = scene.live_many(&victim, 9..10).await;
    let mut view = view_of(&scene, &witness, 10).await;
    view.never("a suspect", any_suspect);
    let watching = view.attend();
    scene
        .faults()
        .crash(&scene.service, &ids_of(&crashing))
        .await;
    let bound = scene.timing.expiry + scene.timing.settle;
    scene
        .listed(&witness, bound, "nine members", |s| s.members().len() == 9)
        .await;
    let mut view = watching.report().await;
    view.until(bound, "nine members", |s| s.members().len() == 9)
        .await;
    view.stays(scene.timing.quiet, "nine members", |s| {
        s.members().len() == 9
    })
    .await;
}

/// A graceful departure takes effect at once, of many as of all.
pub async fn a_graceful_departure_of_many_is_immediate(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, witness) = (scene.process().await, scene.process().await);
    let mut leaving = scene.live_many(&owner, 0..10).await;
    let staying = leaving.remove(3);
    let mut view = view_of(&scene, &witness, 10).await;
    view.never("a suspect", any_suspect);
    let watching = view.attend();
    leave_at_once(&scene, leaving).await;
    let mut view = watching.report().await;
    view.until(scene.timing.settle, "one member", |s| ids(s) == ["m3"])
        .await;
    view.stays(scene.timing.quiet, "one member", |s| ids(s) == ["m3"])
        .await;
    drop(staying);
}

/// A graceful departure takes effect at once, of many as of all.
pub async fn a_deliberate_scale_to_zero_ends_empty(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, witness) = (scene.process().await, scene.process().await);
    let leaving = scene.live_many(&owner, 0..10).await;
    let mut view = view_of(&scene, &witness, 10).await;
    view.never("a suspect", any_suspect);
    let watching = view.attend();
    leave_at_once(&scene, leaving).await;
    let mut view = watching.report().await;
    let empty = |s: &Snapshot| s.members().is_empty() && s.freshness().is_live();
    view.until(scene.timing.settle, "an empty list", empty)
        .await;
    view.stays(scene.timing.quiet, "an empty list", empty).await;
}

fn any_suspect(snapshot: &Snapshot) -> bool {
    snapshot
        .members()
        .iter()
        .any(|member| !member.standing().is_registered())
}

/// Whether the member of `registration` is there and registered.
fn standing(snapshot: &Snapshot, registration: &Registration) -> bool {
    let member = snapshot.get(registration.instance().id().as_str());
    member.is_some_and(|member| member.standing().is_registered())
}

async fn view_of(scene: &Scene<'_>, process: &dyn crate::Registry, members: usize) -> Observer {
    let mut view = scene.follow(process).await;
    let settle = scene.timing.settle;
    view.until(settle, "all members", |s| s.members().len() == members)
        .await;
    view
}

async fn leave_at_once(scene: &Scene<'_>, leaving: Vec<Registration>) {
    let bound = scene.timing.removal;
    let tasks: Vec<_> = leaving
        .into_iter()
        .map(|registration| tokio::spawn(async move { gone(bound, &registration).await }))
        .collect();
    for task in tasks {
        assert!(
            task.await.is_ok(),
            "one of several deregistrations at one time failed"
        );
    }
}
