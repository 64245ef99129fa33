//! One id, one live owner.

use tokio::time::{Instant, timeout};

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, built, gone, life, member, ready, state_becomes};
use crate::{ErrorKind, Registration, RegistrationState, Registry};

/// An id belongs to one live owner; a second registration of it stands in `Conflict` until the
/// owner leaves.
pub async fn a_second_owner_conflicts_until_the_first_leaves(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (first, second) = (scene.process().await, scene.process().await);
    conflict_and_succession(&scene, &first, &second).await;
}

/// An id belongs to one live owner; a second registration of it stands in `Conflict` until the
/// owner leaves.
pub async fn a_second_owner_conflicts_within_one_process_too(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let process = scene.process().await;
    conflict_and_succession(&scene, &process, &process).await;
}

async fn conflict_and_succession(scene: &Scene<'_>, first: &dyn Registry, second: &dyn Registry) {
    let owner = scene.live(first, "same").await;
    let incarnation = life(&owner);
    let mut view = scene.follow(second).await;
    let settle = scene.timing.settle;
    view.until(settle, "the owner", |s| ids(s) == ["same"])
        .await;
    let rival = rival(scene, second).await;
    view.stays(scene.timing.quiet, "the owner as it was", |s| {
        s.get("same")
            .is_some_and(|m| m.incarnation() == incarnation)
    })
    .await;
    assert_eq!(
        life(&owner),
        incarnation,
        "the owner lost its place to a rival"
    );

    gone(scene.timing.removal, &owner).await;
    ready_after_conflict(scene, &rival).await;
    let seen = view
        .until(scene.timing.recovery, "the successor", |s| {
            s.get("same")
                .is_some_and(|m| *m.instance() == rival.instance())
        })
        .await;
    assert_eq!(member(&seen, "same").incarnation(), life(&rival));
    assert_ne!(
        life(&rival),
        incarnation,
        "two owners share one incarnation"
    );
    assert!(matches!(owner.state(), RegistrationState::Deregistered));
}

/// Giving up a registration in `Conflict` leaves the owner untouched.
pub async fn giving_up_in_conflict_leaves_the_owner_untouched(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (first, second) = (scene.process().await, scene.process().await);
    let owner = scene.live(&first, "same").await;
    let incarnation = life(&owner);
    let deregistered = rival(&scene, &second).await;
    gone(scene.timing.removal, &deregistered).await;
    let dropped = rival(&scene, &second).await;
    drop(dropped);
    scene
        .list_stays(&first, "the owner's record", |s| {
            s.get("same")
                .is_some_and(|m| m.incarnation() == incarnation)
        })
        .await;
    assert_eq!(life(&owner), incarnation);
    // Nor does a rival that was given up come back once the place is free.
    gone(scene.timing.removal, &owner).await;
    let settle = scene.timing.settle;
    scene
        .listed(&first, settle, "nobody", |s| s.members().is_empty())
        .await;
    scene
        .list_stays(&first, "nobody", |s| s.members().is_empty())
        .await;
}

/// Who takes up the id of an owner that died waits for it in `Conflict`, and `ready` with it; a
/// conflict that outlasts what the dead leave is an error of `ready`.
pub async fn the_id_of_a_dead_owner_is_waited_for(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (first, second) = (scene.process().await, scene.process().await);
    let owner = scene.live(&first, "same").await;
    let rival = rival(&scene, &second).await;
    scene
        .faults()
        .crash(&scene.service, &[owner.instance().id().clone()])
        .await;
    let released = scene.timing.expiry + second.capabilities().id_release.unwrap_or_default();
    ready(released + scene.timing.recovery, &rival).await;
    let seen = scene
        .listed(&second, scene.timing.settle, "the successor", |s| {
            ids(s) == ["same"]
        })
        .await;
    assert_eq!(member(&seen, "same").incarnation(), life(&rival));
}

/// Who takes up the id of an owner that died waits for it in `Conflict`, and `ready` with it; a
/// conflict that outlasts what the dead leave is an error of `ready`.
pub async fn a_conflict_with_a_living_owner_is_reported_in_the_end(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (first, second) = (scene.process().await, scene.process().await);
    let owner = scene.live(&first, "same").await;
    let began = Instant::now();
    let rival = rival(&scene, &second).await;
    let release = second.capabilities().id_release.unwrap_or_default();
    let verdict = timeout(release + scene.timing.recovery, rival.ready()).await;
    let kind = verdict
        .as_ref()
        .map(|ready| ready.as_ref().map_err(crate::Error::kind));
    assert_eq!(
        kind,
        Ok(Err(ErrorKind::Conflict)),
        "the verdict on a second owner is {verdict:?}"
    );
    let waited = began.elapsed();
    assert!(waited > release, "reported after {waited:?} of {release:?}");
    // And it goes on being tried.
    gone(scene.timing.removal, &owner).await;
    ready_after_conflict(&scene, &rival).await;
}

/// A second registration of `same`, which the registry has refused.
async fn rival(scene: &Scene<'_>, process: &dyn Registry) -> Registration {
    let instance = built(crate::Instance::builder(&scene.service, "10.9.9.9", 99).with_id("same"));
    let rival = scene.register(process, &instance).await;
    let what = "Conflict, not yet lasting";
    state_becomes(scene.timing.settle, &rival, what, |state| {
        matches!(state, RegistrationState::Conflict { lasting: false, .. })
    })
    .await;
    rival
}

/// `ready` may report the conflict until it is over, so the state is asked first.
async fn ready_after_conflict(scene: &Scene<'_>, rival: &Registration) {
    let recovery = scene.timing.recovery;
    state_becomes(recovery, rival, "Live", RegistrationState::is_live).await;
    ready(recovery, rival).await;
}
