//! A registration may say something else of itself, but not become another server.

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, built, life, member};
use crate::{ErrorKind, Instance, Registration, Status};

/// An update reaches every watcher within the same incarnation.
pub async fn an_update_keeps_the_incarnation(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let incarnation = life(&registration);
    let mut views = [scene.follow(&owner).await, scene.follow(&other).await];
    for view in &mut views {
        view.until(scene.timing.settle, "the instance", |s| ids(s) == ["one"])
            .await;
    }
    let changed = built(
        scene
            .builder("one")
            .with_weight(7)
            .with_zone("b")
            .with_version("3.1")
            .with_capacity(9)
            .with_metadata("added", "later"),
    );
    assert_update(&registration, changed.clone());
    assert_eq!(
        *registration.instance(),
        changed,
        "the desired state is not the update"
    );
    for view in &mut views {
        let seen = view
            .until(scene.timing.settle, "the update", |s| {
                s.get("one").is_some_and(|m| **m.instance() == changed)
            })
            .await;
        assert_eq!(
            member(&seen, "one").incarnation(),
            incarnation,
            "an update began a new life"
        );
    }
    assert_eq!(life(&registration), incarnation);
}

/// An update reaches every watcher within the same incarnation.
pub async fn a_change_of_status_is_seen(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let incarnation = life(&registration);
    let mut view = scene.follow(&other).await;
    for status in [Status::Draining, Status::OutOfService, Status::Up] {
        if let Err(error) = registration.set_status(status) {
            panic!("set_status({status}) was refused: {error}");
        }
        view.until(scene.timing.settle, status.as_str(), |s| {
            s.get("one")
                .is_some_and(|m| m.instance().status() == status && m.incarnation() == incarnation)
        })
        .await;
    }
}

/// An update in an outage is written afterwards.
pub async fn an_update_in_an_outage_is_written_afterwards(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let mut view = scene.follow(&other).await;
    view.until(scene.timing.settle, "the instance", |s| ids(s) == ["one"])
        .await;
    scene.faults().outage().await;
    let first = built(scene.builder("one").with_weight(1));
    let second = built(scene.builder("one").with_weight(2));
    assert_update(&registration, first);
    tokio::time::sleep(scene.timing.quiet).await;
    assert_update(&registration, second.clone());
    scene.faults().restore().await;
    let is_second = |s: &crate::Snapshot| s.get("one").is_some_and(|m| **m.instance() == second);
    view.until(scene.timing.recovery, "the latest update", is_second)
        .await;
    view.stays(scene.timing.quiet, "the latest update", is_second)
        .await;
}

/// An update that would make it another server is refused.
pub async fn an_update_to_another_server_is_refused(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let as_it_was = registration.instance();
    let sibling = scene.sibling("-other");
    let at = |host: &str, port| Instance::builder(&scene.service, host, port).with_id("one");
    let others = [
        (
            "service",
            built(Instance::builder(&sibling, "10.1.2.3", 8080).with_id("one")),
        ),
        ("id", built(scene.builder("two"))),
        ("host", built(at("10.1.2.4", 8080))),
        ("port", built(at("10.1.2.3", 8081))),
        ("security", built(at("10.1.2.3", 8080).with_secure(true))),
    ];
    for (what, another) in others {
        let refused = registration.update(another).map_err(|error| error.kind());
        assert_eq!(
            refused,
            Err(ErrorKind::InvalidArgument),
            "an update took another {what}"
        );
        assert_eq!(
            registration.instance(),
            as_it_was,
            "a refused update of {what} was recorded"
        );
    }
    let untouched = |s: &crate::Snapshot| {
        ids(s) == ["one"] && s.get("one").is_some_and(|m| *m.instance() == as_it_was)
    };
    scene
        .listed(&other, scene.timing.settle, "the instance", untouched)
        .await;
    scene
        .list_stays(&other, "the instance as it was", untouched)
        .await;
}

fn assert_update(registration: &Registration, instance: Instance) {
    if let Err(error) = registration.update(instance.clone()) {
        panic!("an update to {instance:?} was refused: {error}");
    }
}
