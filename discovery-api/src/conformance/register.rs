//! What is registered is seen, as it was described.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, built, eventually, life, member, ready};
use crate::{ErrorKind, Instance, Metadata, RegistrationState, Registry, Status, Weight};

/// A registered instance becomes visible to every list and watch, as it was described.
pub async fn registered_instance_becomes_visible(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let mut views = [scene.follow(&owner).await, scene.follow(&other).await];
    let instance = built(scene.builder("one").with_zone("a").with_version("1.2"));
    let registration = scene.register(&owner, &instance).await;
    assert_eq!(
        *registration.instance(),
        instance,
        "the handle tells of another instance"
    );
    ready(scene.timing.settle, &registration).await;
    let incarnation = life(&registration);
    let mut seen = Vec::new();
    for view in &mut views {
        seen.push(
            view.until(scene.timing.settle, "one member", |s| ids(s) == ["one"])
                .await,
        );
    }
    for process in [&owner, &other] {
        let listed = scene
            .listed(process, scene.timing.settle, "one member", |s| {
                ids(s) == ["one"]
            })
            .await;
        seen.push(Arc::new(listed));
    }
    for snapshot in seen {
        let member = member(&snapshot, "one");
        assert_eq!(**member.instance(), instance);
        assert_eq!(
            member.incarnation(),
            incarnation,
            "the owner knows of another life"
        );
        assert!(member.standing().is_registered() && snapshot.freshness().is_live());
        assert_eq!(
            (snapshot.service(), snapshot.skipped()),
            (&scene.service, 0)
        );
    }
}

/// A registered instance becomes visible to every list and watch, as it was described.
pub async fn every_attribute_round_trips(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let mut view = scene.follow(&other).await;
    let described = descriptions(&scene);
    let mut registrations = Vec::new();
    for instance in &described {
        let registration = scene.register(&owner, instance).await;
        ready(scene.timing.settle, &registration).await;
        registrations.push(registration);
    }
    let all = described.len();
    let watched = view
        .until(scene.timing.settle, "every instance", |s| {
            s.members().len() == all
        })
        .await;
    let listed = scene
        .listed(&other, scene.timing.settle, "all", |s| {
            s.members().len() == all
        })
        .await;
    for snapshot in [&*watched, &listed] {
        for instance in &described {
            assert_eq!(
                **member(snapshot, instance.id().as_str()).instance(),
                *instance
            );
        }
    }
}

/// Each attribute at its limits and with what trips encodings.
fn descriptions(scene: &Scene<'_>) -> Vec<Instance> {
    let at = |id: &str, host: &str, port| Instance::builder(&scene.service, host, port).with_id(id);
    let tricky = "\"quotes\", \\slashes/, {braces} & <tags>; ünï=cödé 🚢 %2F";
    vec![
        built(at("plain", "10.0.0.1", 1)),
        built(at("named", "node_1.example-a.internal", 65_535).with_secure(true)),
        built(at("absolute", "node.example.", 443).with_secure(true)),
        built(at("v6", "2001:db8::7", 443).with_secure(true)),
        built(at("v6-mapped", "::ffff:10.0.0.1", 443)),
        built(at("zone", "10.0.0.1", 2).with_zone("ü".repeat(32))),
        built(at("release", "10.0.0.1", 3).with_version("2")),
        built(at("candidate", "10.0.0.1", 4).with_version("1.2.3-rc.1+build.7")),
        built(at("idle", "10.0.0.1", 5).with_weight(0).with_capacity(1)),
        built(
            at("vast", "10.0.0.1", 6)
                .with_weight(Weight::MAX.get())
                .with_capacity(u64::MAX),
        ),
        built(at("odd", "10.0.0.1", 6).with_capacity((1 << 53) + 1)),
        built(at("draining", "10.0.0.1", 7).with_status(Status::Draining)),
        built(at("out", "10.0.0.1", 8).with_status(Status::OutOfService)),
        built(
            at("tricky", "10.0.0.1", 9)
                .with_metadata("value", tricky)
                .with_metadata("empty", ""),
        ),
        // Names that a backend is likely to use for its own fields.
        built(
            [
                "id",
                "load",
                "weight",
                "zone",
                "incarnation",
                "version",
                "status",
                "Addr",
                "Metadata",
            ]
            .into_iter()
            .fold(at("owned", "10.0.0.1", 10), |b, key| {
                b.with_metadata(key, "the user's")
            }),
        ),
    ]
}

/// A registered instance becomes visible to every list and watch, as it was described.
///
/// Unless the record exceeds [`max_record_bytes`](crate::Capabilities::max_record_bytes): then it
/// is refused at once.
pub async fn the_largest_description_round_trips_or_is_refused(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let mut builder = scene.builder("large").with_zone("z".repeat(64));
    for index in 0..Metadata::MAX_PAIRS {
        let key = format!("{index:0>width$}", width = Metadata::MAX_KEY_BYTES);
        builder = builder.with_metadata(key, "v".repeat(Metadata::MAX_VALUE_BYTES));
    }
    let instance = built(builder);
    let at_least = Metadata::MAX_PAIRS * (Metadata::MAX_KEY_BYTES + Metadata::MAX_VALUE_BYTES);
    if owner
        .capabilities()
        .max_record_bytes
        .is_some_and(|most| most < at_least)
    {
        let refused = owner
            .register(instance)
            .await
            .map(drop)
            .map_err(|error| error.kind());
        assert_eq!(
            refused,
            Err(ErrorKind::InvalidArgument),
            "it cannot hold {at_least} bytes"
        );
        scene
            .list_stays(&other, "nothing", |s| s.members().is_empty())
            .await;
        return;
    }
    let registration = scene.register(&owner, &instance).await;
    ready(scene.timing.settle, &registration).await;
    let listed = scene
        .listed(&other, scene.timing.settle, "it", |s| ids(s) == ["large"])
        .await;
    assert_eq!(**member(&listed, "large").instance(), instance);
}

/// A registry that is down at the start delays visibility, never the caller.
pub async fn register_returns_while_the_registry_is_down(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let witness = scene.process().await;
    let mut view = scene.follow(&witness).await;
    view.until(scene.timing.settle, "an empty list", |s| {
        s.members().is_empty()
    })
    .await;
    scene.faults().outage().await;
    let process = scene.process().await;
    let registration = scene
        .register(&process, &built(scene.builder("early")))
        .await;
    registration.load().set(31);
    let premature = timeout(scene.timing.quiet, registration.ready()).await;
    assert!(
        premature.is_err(),
        "ready says {premature:?} although the registry is down"
    );
    // The attempt must have failed by now, and the state says why.
    let state = eventually(
        scene.timing.detection,
        "Pending with a cause",
        || match registration.state() {
            state @ RegistrationState::Pending { cause: Some(_) } => Ok(state),
            state => Err(format!("{state:?}")),
        },
    )
    .await;
    let cause = state.cause().map(crate::Error::kind);
    let expected = matches!(cause, Some(ErrorKind::Unavailable | ErrorKind::TimedOut));
    assert!(expected, "the cause of {state:?} is not the outage");
    scene.faults().restore().await;
    ready(scene.timing.recovery, &registration).await;
    let seen = view
        .until(scene.timing.recovery, "the instance", |s| {
            ids(s) == ["early"]
        })
        .await;
    assert_eq!(member(&seen, "early").incarnation(), life(&registration));
    let bound = process.capabilities().load_max_age + scene.timing.settle;
    super::scene::load_becomes(bound, member(&seen, "early"), 31).await;
}

/// A registration that is dropped before it is in the registry leaves nothing there.
pub async fn a_registration_dropped_while_pending_never_appears(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let mut view = scene.follow(&other).await;
    view.until(scene.timing.settle, "an empty list", |s| {
        s.members().is_empty()
    })
    .await;
    view.never("an instance that was given up", |s| !s.members().is_empty());
    scene.faults().outage().await;
    scene.noticed(&owner).await;
    let registration = scene.register(&owner, &built(scene.builder("ghost"))).await;
    let premature = timeout(Duration::from_millis(1), registration.ready()).await;
    assert!(
        premature.is_err(),
        "ready says {premature:?} although the registry is down"
    );
    drop(registration);
    scene.faults().restore().await;
    let live = |s: &crate::Snapshot| s.freshness().is_live();
    view.until(scene.timing.recovery, "contact again", live)
        .await;
    view.drain(scene.timing.recovery).await;
    scene
        .list_stays(&other, "nothing", |s| s.members().is_empty())
        .await;
}
