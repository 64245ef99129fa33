//! Each name is exactly one key.

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, built, gone, name, ready};
use crate::{Instance, InstanceId, Registration, Registry, ServiceName, Snapshot};

/// Names are kept byte by byte, and services whose names are prefixes of each other never mix.
pub async fn prefixes_never_mix(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let suffixes = [
        "", "bar", "/bar", "/", "//", "/bar/", "/./bar", "/..", "/../bar", ".bar", "-bar", "_bar",
        " bar", "%2Fbar", "%2fbar", "%", ":bar", ";bar", "?bar", "#bar", "*", "[a-z]", "$", "~",
        "+bar", "=bar", "\\bar", "BAR",
    ];
    let services: Vec<ServiceName> = suffixes
        .iter()
        .map(|suffix| scene.sibling(suffix))
        .collect();
    one_each(&scene, &owner, &other, &services).await;
}

/// Names are kept byte by byte, and services whose names are prefixes of each other never mix.
pub async fn unicode_and_maximal_names_round_trip(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let room = ServiceName::MAX_BYTES - scene.service.as_str().len();
    let services = [
        scene.sibling("-注文 サービス"),
        // One glyph, two spellings: composed and decomposed.
        scene.sibling("-\u{e9}"),
        scene.sibling("-e\u{301}"),
        scene.sibling("-\u{130}I\u{131}i"),
        scene.sibling("-\u{1f6a2}"),
        scene.sibling("-\u{202e}right\u{200b}to\u{feff}left"),
        scene.sibling(&"ü".repeat(room / 2)),
        scene.sibling(&"x".repeat(room)),
        // Nothing but what an escape makes longer.
        scene.sibling(&"/".repeat(room)),
        scene.sibling(&"%".repeat(room)),
    ];
    one_each(&scene, &owner, &other, &services).await;
}

/// Registers one instance in each service, with the service's place as its port and one id for
/// all, and checks that lists and watches show it there and nowhere else.
async fn one_each(
    scene: &Scene<'_>,
    owner: &dyn Registry,
    other: &dyn Registry,
    services: &[ServiceName],
) {
    let settle = scene.timing.settle;
    let mut placed: Vec<(Registration, super::observer::Observer)> = Vec::new();
    for (service, port) in services.iter().zip(1_u16..) {
        let instance = built(Instance::builder(service, "10.1.2.3", port).with_id("same"));
        let registration = scene.register(owner, &instance).await;
        placed.push((registration, scene.follow_named(other, service).await));
    }
    for (registration, view) in &mut placed {
        ready(settle, registration).await;
        let instance = registration.instance();
        let alone = |s: &Snapshot| {
            s.members().len() == 1 && s.get("same").is_some_and(|m| *m.instance() == instance)
        };
        view.until(settle, "its own instance alone", alone).await;
        let service = instance.service();
        scene
            .listed_named(other, service, settle, "its own instance alone", alone)
            .await;
    }
    names_are_listed(scene, other, services).await;
    // Each departure must leave the others alone.
    while let Some((registration, mut view)) = placed.pop() {
        gone(scene.timing.removal, &registration).await;
        view.until(settle, "nobody", |s| s.members().is_empty())
            .await;
        if let Some((before, _)) = placed.last() {
            let kept = before.instance();
            scene
                .listed_named(other, kept.service(), settle, "its own", |s| {
                    ids(s) == ["same"]
                })
                .await;
        }
    }
}

/// Names are kept byte by byte, and services whose names are prefixes of each other never mix.
pub async fn ids_of_any_form_stand_side_by_side(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let (wide, long) = (
        "ü".repeat(InstanceId::MAX_BYTES / 2),
        "%".repeat(InstanceId::MAX_BYTES),
    );
    let mut forms = vec![
        "a", "ab", "a/b", "a/", "/a", "/", "//", ".", "..", "../a", "a%2Fb", "A", "a b", "é",
        "e\u{301}", "注文", "a:b", "a?b", "a#b", "a*", "-", "_", "0", "a;b", "a=b", "a\\b", "a.b",
        &wide, &long,
    ];
    forms.sort_unstable();
    let mut view = scene.follow(&other).await;
    let mut registrations = Vec::new();
    for form in &forms {
        registrations.push(scene.register(&owner, &built(scene.builder(form))).await);
    }
    let settle = scene.timing.settle;
    for registration in &registrations {
        ready(settle, registration).await;
    }
    view.until(settle, "every id", |s| ids(s) == forms).await;
    scene
        .listed(&other, settle, "every id", |s| ids(s) == forms)
        .await;
    while let Some(registration) = registrations.pop() {
        gone(scene.timing.removal, &registration).await;
        forms.retain(|form| *form != registration.instance().id().as_str());
        scene
            .listed(&other, settle, "every other id", |s| ids(s) == forms)
            .await;
    }
}

/// Every service with an entry is named once, in order, and no other.
pub async fn services_lists_names(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let services = [
        scene.sibling("-b"),
        scene.sibling("-a"),
        scene.sibling("-a/x"),
    ];
    let mut registrations = Vec::new();
    for service in &services {
        for id in ["one", "two"] {
            let instance = built(Instance::builder(service, "10.1.2.3", 1).with_id(id));
            let registration = scene.register(&owner, &instance).await;
            ready(scene.timing.settle, &registration).await;
            registrations.push(registration);
        }
    }
    names_are_listed(&scene, &other, &services).await;
    let empty = name(&format!("{}-a", scene.service));
    for registration in &registrations {
        if *registration.instance().service() == empty {
            gone(scene.timing.removal, registration).await;
        }
    }
    names_are_listed(&scene, &other, &[services[2].clone(), services[0].clone()]).await;
}

/// Waits until the names that begin as the case's do are exactly `expected`.
async fn names_are_listed(scene: &Scene<'_>, process: &dyn Registry, expected: &[ServiceName]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let deadline = tokio::time::Instant::now() + scene.timing.settle;
    loop {
        // As with lists: on a busy machine a call may be lost with its connection, and is made again.
        let seen = match process.services().await {
            Ok(all) => {
                assert!(
                    all.is_sorted_by(|a, b| a < b),
                    "not sorted, each once: {all:?}"
                );
                let own = |name: &ServiceName| name.as_str().starts_with(scene.service.as_str());
                let found: Vec<ServiceName> = all.into_iter().filter(own).collect();
                if found == expected {
                    return;
                }
                format!("{found:?}")
            }
            Err(error) => error.to_string(),
        };
        let late = tokio::time::Instant::now() >= deadline;
        assert!(
            !late,
            "expected the services {expected:?}; last seen: {seen}"
        );
        tokio::time::sleep(scene.timing.settle / 50).await;
    }
}
