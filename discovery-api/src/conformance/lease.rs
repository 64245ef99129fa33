//! What the registry ends, the owner begins anew.

use tokio::time::timeout;

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, built, gone, life, load_becomes, member, ready, state_becomes};
use crate::{Incarnation, Instance, Registration, RegistrationState, Snapshot};

/// What expires without being given up is registered again: a new incarnation, with the current
/// load.
pub async fn an_expired_registration_returns_with_the_current_load(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let load = registration.load();
    let mut view = scene.follow(&other).await;
    view.until(scene.timing.settle, "the instance", |s| ids(s) == ["one"])
        .await;
    let mut lives = vec![life(&registration)];
    for round in 1..=5_u32 {
        load.set(u64::from(round) * 1_000);
        // The desired state lives on as well: what returns is what was wanted last.
        let changed = built(scene.builder("one").with_weight(round));
        if let Err(error) = registration.update(changed.clone()) {
            panic!("an update was refused: {error}");
        }
        expire(&scene, &registration).await;
        let incarnation = new_life(&scene, &registration, &lives).await;
        let returned = |s: &Snapshot| {
            s.get("one").is_some_and(|m| {
                m.incarnation() == incarnation
                    && m.standing().is_registered()
                    && **m.instance() == changed
            })
        };
        let seen = view
            .until(scene.timing.recovery, "the new life", returned)
            .await;
        // A busy server that returns as an idle one would be buried under new requests.
        let at_first = member(&seen, "one").load().get();
        let current = load.current();
        assert!(
            at_first.is_none_or(|at_first| at_first == current),
            "it returned as {at_first:?}"
        );
        load_becomes(scene.timing.recovery, member(&seen, "one"), current).await;
        scene
            .listed(&other, scene.timing.recovery, "the new life", returned)
            .await;
        lives.push(incarnation);
    }
}

/// An expiry shows in the state as `Lost`, then `Live`.
pub async fn an_expiry_shows_as_lost_then_live(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let owner = scene.process().await;
    let registration = scene.live(&owner, "one").await;
    let before = life(&registration);
    let mut states = registration.states();
    let is_lost = |state: &RegistrationState| matches!(state, RegistrationState::Lost { .. });
    let recovery = scene.timing.recovery;
    let witness = tokio::spawn(async move { timeout(recovery, states.wait_for(is_lost)).await });
    expire(&scene, &registration).await;
    match witness.await {
        Ok(Ok(Some(state))) => assert!(state.incarnation().is_none(), "{state:?}"),
        other => panic!("expected Lost after an expiry, found {other:?}"),
    }
    ready(recovery, &registration).await;
    assert_ne!(
        life(&registration),
        before,
        "a lost registration resumed its former life"
    );
}

/// A load write of a former incarnation is refused.
pub async fn a_load_write_of_a_former_incarnation_is_refused(harness: &dyn Harness) {
    const ZOMBIE: u64 = 999_999;
    const REPEATS: u32 = 8;
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    registration.load().set(20);
    let instance = registration.instance();
    let former = life(&registration);
    expire(&scene, &registration).await;
    let present = new_life(&scene, &registration, &[former]).await;
    let mut view = scene.follow(&other).await;
    let seen = view
        .until(scene.timing.recovery, "the new life", |s| {
            s.get("one").is_some_and(|m| m.incarnation() == present)
        })
        .await;
    load_becomes(scene.timing.recovery, member(&seen, "one"), 20).await;

    let (service, id) = (instance.service(), instance.id());
    for incarnation in [former, Incarnation::random()] {
        let written = scene
            .faults()
            .write_load(service, id, incarnation, ZOMBIE)
            .await;
        assert!(written.is_err(), "a write of another life was taken");
    }
    let deadline = tokio::time::Instant::now() + scene.timing.quiet;
    while tokio::time::Instant::now() < deadline {
        let load = member(&seen, "one").load().get();
        assert_ne!(load, Some(ZOMBIE), "a refused load was published");
        tokio::time::sleep(scene.timing.quiet / 20).await;
    }
    // The refusal says something only if the same write is taken from the present life.
    // The owner's next refresh replaces it, sooner than a busy watcher sees it perhaps.
    for attempt in 1.. {
        if let Err(error) = scene.faults().write_load(service, id, present, 77).await {
            panic!("the harness cannot write a load even for the present life: {error}");
        }
        let becomes = load_becomes(scene.timing.settle, member(&seen, "one"), 77);
        if attempt == REPEATS {
            return becomes.await;
        }
        if timeout(scene.timing.settle / REPEATS, becomes)
            .await
            .is_ok()
        {
            return;
        }
    }
}

async fn expire(scene: &Scene<'_>, registration: &Registration) {
    let instance = registration.instance();
    scene
        .faults()
        .expire(instance.service(), instance.id())
        .await;
}

/// Waits for a life that is none of `former`.
async fn new_life(
    scene: &Scene<'_>,
    registration: &Registration,
    former: &[Incarnation],
) -> Incarnation {
    let state = state_becomes(scene.timing.recovery, registration, "Live anew", |state| {
        matches!(state, RegistrationState::Live { incarnation } if !former.contains(incarnation))
    })
    .await;
    match state.incarnation() {
        Some(incarnation) => incarnation,
        None => panic!("a live registration without an incarnation: {state:?}"),
    }
}

/// A record that nothing keeps alive, such as a copy, is no member, and its id is free to take.
pub async fn a_record_that_nothing_keeps_alive_is_no_member_and_its_id_is_free(
    harness: &dyn Harness,
) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let settle = scene.timing.settle;
    let original = scene.live(&owner, "one").await;
    let copies = scene.sibling("-copied");
    let id = original.instance().id().clone();
    let mut early = scene.follow_named(&other, &copies).await;
    early.never("a copy among the members", |s| {
        s.members().iter().any(|m| m.instance().port() == 8080)
    });
    let mut skipped = 0;
    if scene.faults().copy(&scene.service, &id, &copies).await {
        skipped = 1;
    }
    let counted = |s: &Snapshot| s.members().is_empty() && s.skipped() == skipped;
    scene
        .listed_named(&other, &copies, settle, "nobody", counted)
        .await;
    early.until(settle, "nobody", counted).await;
    // Its id is anybody's.
    let taken = built(Instance::builder(&copies, "10.1.2.3", 8081).with_id("one"));
    let taken = scene.register(&other, &taken).await;
    ready(settle, &taken).await;
    let there = |s: &Snapshot| s.get("one").is_some_and(|m| m.instance().port() == 8081);
    early.until(settle, "who has taken the id", there).await;
    gone(scene.timing.removal, &taken).await;
    early
        .until(settle, "nobody", |s| s.members().is_empty())
        .await;
    let kept = scene.listed(&other, settle, "the original", |s| s.get("one").is_some());
    kept.await;
}
