//! An outage of the registry is not an outage of the service.

use tokio::time::{Instant, sleep, timeout};

use super::Harness;
use super::observer::{Observer, ids, show};
use super::scene::{Scene, built, gone, life, load_becomes, member, ready, state_becomes};
use crate::{Error, ErrorKind, Instance, Registration, RegistrationState, Snapshot};

/// Members enough for a loss of all of them to be a mass loss.
const MEMBERS: usize = 6;

/// In an outage the last good set stays, marked stale, and is live again afterwards.
pub async fn an_outage_keeps_the_last_good_set_marked_stale(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registrations = scene.live_many(&owner, 0..MEMBERS).await;
    let mut view = full_view(&scene, &other).await;
    view.never("an empty list", |s| s.members().is_empty());
    scene.faults().outage().await;
    let stale = |s: &Snapshot| !s.freshness().is_live() && s.members().len() == MEMBERS;
    view.until(scene.timing.detection, "the last good set, stale", stale)
        .await;
    view.stays(scene.timing.quiet, "the last good set, stale", stale)
        .await;
    // One that joins now is shown the same, and told the same.
    let mut late = scene.follow(&other).await;
    let joined = late.next(scene.timing.settle, "the last good set").await;
    assert!(stale(&joined), "{}", show(&joined));
    scene.faults().restore().await;
    for view in [&mut view, &mut late] {
        all_registered_again(&scene, view, &registrations).await;
    }
}

/// In an outage the last good set stays, marked stale, and is live again afterwards.
pub async fn what_changed_in_an_outage_is_seen_afterwards(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let leaving = scene.live(&owner, "leaving").await;
    let _staying = scene.live(&owner, "staying").await;
    let mut view = scene.follow(&other).await;
    let settle = scene.timing.settle;
    view.until(settle, "both", |s| ids(s) == ["leaving", "staying"])
        .await;
    scene.faults().outage().await;
    let stale = |s: &Snapshot| !s.freshness().is_live();
    view.until(scene.timing.detection, "a stale list", stale)
        .await;
    // Not confirmed, as nobody can: it goes on being tried.
    let _unconfirmed = timeout(scene.timing.removal, leaving.deregister()).await;
    let joining = built(scene.builder("joining"));
    let _joining = scene.register(&owner, &joining).await;
    scene.faults().restore().await;
    let end = scene.timing.recovery + scene.timing.expiry;
    view.until(end, "one joined and one gone, live", |s| {
        ids(s) == ["joining", "staying"] && s.freshness().is_live()
    })
    .await;
}

/// A watch started in an outage waits, and yields once the registry is back.
pub async fn a_watch_started_in_an_outage_yields_once_the_registry_is_back(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registrations = scene.live_many(&owner, 0..MEMBERS).await;
    scene.faults().outage().await;
    let newborn = scene.process().await;
    let mut views = [scene.follow(&other).await, scene.follow(&newborn).await];
    for view in &mut views {
        view.silent(scene.timing.quiet, "a registry it has never reached")
            .await;
        assert!(
            view.peek().is_none(),
            "a registry that was never reached has said something"
        );
    }
    scene.faults().restore().await;
    for view in &mut views {
        view.never("an empty list", |s| s.members().is_empty());
        all_registered_again(&scene, view, &registrations).await;
    }
}

/// After an outage longer than the lease, and after a loss of all data, everything is registered
/// again.
pub async fn an_outage_longer_than_the_lease_ends_with_all_registered(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registrations = scene.live_many(&owner, 0..MEMBERS).await;
    let mut view = full_view(&scene, &other).await;
    view.never("an empty list", |s| s.members().is_empty());
    let watching = view.attend();
    scene.faults().outage().await;
    sleep(scene.timing.expiry + scene.timing.detection).await;
    for registration in &registrations {
        let what = "no longer Live in an outage";
        let settle = scene.timing.settle;
        state_becomes(settle, registration, what, |state| !state.is_live()).await;
        registration.load().set(4_000);
    }
    scene.faults().restore().await;
    all_live(&scene, &registrations).await;
    let mut view = watching.report().await;
    let seen = all_registered_again(&scene, &mut view, &registrations).await;
    let bound = scene.timing.recovery + other.capabilities().load_max_age;
    for registration in &registrations {
        load_becomes(
            bound,
            member(&seen, registration.instance().id().as_str()),
            4_000,
        )
        .await;
    }
}

/// After an outage longer than the lease, and after a loss of all data, everything is registered
/// again.
pub async fn a_wiped_registry_is_filled_again(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let mut registrations = scene.live_many(&owner, 0..MEMBERS).await;
    let leaving = scene.live(&owner, "leaving").await;
    gone(scene.timing.removal, &leaving).await;
    let mut view = full_view(&scene, &other).await;
    view.never("an empty list", |s| s.members().is_empty());
    let watching = view.attend();
    let before: Vec<_> = registrations.iter().map(life).collect();
    scene.faults().wipe().await;
    for (registration, before) in registrations.iter().zip(before) {
        state_becomes(scene.timing.recovery, registration, "Live anew", |state| {
            state.is_live() && state.incarnation() != Some(before)
        })
        .await;
    }
    let mut view = watching.report().await;
    all_registered_again(&scene, &mut view, &registrations).await;
    scene
        .listed(&other, scene.timing.recovery, "all of them", |s| {
            s.members().len() == MEMBERS
        })
        .await;
    // The history has begun anew, and watches follow it.
    let joining = scene.live(&other, "zz-joining").await;
    view.until(scene.timing.settle, "one more", |s| {
        s.members().len() == MEMBERS + 1
    })
    .await;
    gone(scene.timing.removal, &joining).await;
    view.until(scene.timing.settle, "one less", |s| {
        s.members().len() == MEMBERS
    })
    .await;
    registrations.clear();
}

/// A watcher never sees an empty list because the registry has lost its data.
pub async fn a_loss_of_all_data_is_never_an_empty_list(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registrations = scene.live_many(&owner, 0..MEMBERS).await;
    let mut view = full_view(&scene, &other).await;
    view.never("an empty list", |s| s.members().is_empty());
    // Of a single member, too, the loss is the registry's.
    let lonely = scene.sibling("-lonely");
    let instance = built(Instance::builder(&lonely, "10.1.2.3", 1).with_id("alone"));
    let alone = scene.register(&owner, &instance).await;
    ready(scene.timing.settle, &alone).await;
    let mut lone_view = scene.follow_named(&other, &lonely).await;
    lone_view
        .until(scene.timing.settle, "the one member", |s| {
            ids(s) == ["alone"]
        })
        .await;
    lone_view.never("an empty list", |s| s.members().is_empty());
    for _ in 0..3 {
        let watching = (view.attend(), lone_view.attend());
        scene.faults().wipe().await;
        sleep(scene.timing.quiet).await;
        all_live(&scene, &registrations).await;
        all_live(&scene, std::slice::from_ref(&alone)).await;
        (view, lone_view) = (watching.0.report().await, watching.1.report().await);
        all_registered_again(&scene, &mut view, &registrations).await;
        all_registered_again(&scene, &mut lone_view, std::slice::from_ref(&alone)).await;
    }
}

/// An outage is an error, not an empty list.
pub async fn a_read_in_an_outage_is_an_error(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let _registration = scene.live(&owner, "one").await;
    let settle = scene.timing.settle;
    scene
        .listed(&other, settle, "the instance", |s| ids(s) == ["one"])
        .await;
    scene.faults().outage().await;
    let newborn = scene.process().await;
    let bound = scene.timing.detection;
    for process in [&owner, &other, &newborn] {
        let list = timeout(bound, process.list(&scene.service)).await;
        assert_down(
            list.map(|list| list.map(|snapshot| show(&snapshot))),
            "list",
        );
        let services = timeout(bound, process.services()).await;
        assert_down(
            services.map(|services| services.map(|all| format!("{all:?}"))),
            "services",
        );
    }
    scene.faults().restore().await;
    for process in [&owner, &other, &newborn] {
        scene
            .listed(process, scene.timing.recovery, "the instance", |s| {
                ids(s) == ["one"]
            })
            .await;
    }
}

fn assert_down(answer: Result<Result<String, Error>, tokio::time::error::Elapsed>, what: &str) {
    match answer {
        Ok(Err(error)) => assert!(
            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut),
            "{what} reports an outage as {error}"
        ),
        Ok(Ok(answer)) => panic!("{what} of a registry that is down answered {answer}"),
        Err(_) => panic!("{what} waits for a registry that is down without a bound"),
    }
}

async fn full_view(scene: &Scene<'_>, process: &dyn crate::Registry) -> Observer {
    let mut view = scene.follow(process).await;
    view.until(scene.timing.settle, "all members", |s| {
        s.members().len() == MEMBERS
    })
    .await;
    view
}

async fn all_live(scene: &Scene<'_>, registrations: &[Registration]) {
    let deadline = Instant::now() + scene.timing.recovery;
    for registration in registrations {
        ready(deadline - Instant::now(), registration).await;
    }
}

/// All owners are live, and `view` shows exactly them, in their present lives.
async fn all_registered_again(
    scene: &Scene<'_>,
    view: &mut Observer,
    registrations: &[Registration],
) -> std::sync::Arc<Snapshot> {
    all_live(scene, registrations).await;
    let in_place = |s: &Snapshot, registration: &Registration| {
        s.get(registration.instance().id().as_str())
            .is_some_and(|m| {
                let present = matches!(
                    registration.state(),
                    RegistrationState::Live { incarnation } if incarnation == m.incarnation()
                );
                present && m.standing().is_registered()
            })
    };
    view.until(
        scene.timing.recovery,
        "every member in its present life, live",
        |s| {
            s.freshness().is_live()
                && s.members().len() == registrations.len()
                && registrations
                    .iter()
                    .all(|registration| in_place(s, registration))
        },
    )
    .await
}
