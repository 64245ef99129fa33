//! The handle itself.

use std::time::Duration;

use tokio::runtime::Handle;

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, eventually, gone};
use crate::LoadUpdater;

/// The bounds agree with one another.
pub async fn capabilities_are_sane(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let process = scene.process().await;
    let bounds = process.capabilities();
    let name = bounds.backend;
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    assert!(
        plain,
        "the backend's name cannot be a URL scheme: {bounds:?}"
    );
    assert!(
        bounds.load_interval <= bounds.load_max_age,
        "the load ages unpublished: {bounds:?}"
    );
    assert!(
        bounds.load_max_age > Duration::ZERO,
        "no load is ever young enough: {bounds:?}"
    );
    assert!(
        bounds.propagation <= scene.timing.settle,
        "slower than its harness: {bounds:?}"
    );
    assert!(
        bounds.max_record_bytes != Some(0),
        "nothing can be registered: {bounds:?}"
    );
    let other = scene.process().await;
    assert_eq!(
        bounds,
        other.capabilities(),
        "two handles on one registry differ"
    );
}

/// Registrations and watches outlive the handle they came from.
pub async fn registrations_and_watches_outlive_their_handle(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, watcher) = (scene.process().await, scene.process().await);
    let kept = scene.live(&owner, "kept").await;
    let mut view = scene.follow(&watcher).await;
    drop(owner);
    drop(watcher);
    let settle = scene.timing.settle;
    view.until(settle, "the instance of a dropped handle", |s| {
        ids(s) == ["kept"]
    })
    .await;
    let rest = scene.timing.expiry + scene.timing.quiet;
    view.stays(rest, "the instance of a dropped handle", |s| {
        ids(s) == ["kept"]
    })
    .await;
    gone(scene.timing.removal, &kept).await;
    view.until(settle, "the end of it", |s| s.members().is_empty())
        .await;
}

/// Once everything is dropped, no task is left behind.
pub async fn dropping_everything_leaves_no_task(harness: &dyn Harness) {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let scene = Scene::new(harness);
    for round in 0..3 {
        let (owner, watcher) = (scene.process().await, scene.process().await);
        // What was dropped may still be on its way out, so each round has ids of its own.
        let ids = round * 4..round * 4 + 4;
        let registrations = scene.live_many(&owner, ids).await;
        let mut view = scene.follow(&watcher).await;
        let mut second = scene.follow(&watcher).await;
        let settle = scene.timing.settle;
        view.until(settle, "four members", |s| s.members().len() == 4)
            .await;
        second
            .until(settle, "four members", |s| s.members().len() == 4)
            .await;
        let load = registrations.first().map(crate::Registration::load);
        if let Some(load) = &load {
            load.set(1_000);
        }
        gone(
            scene.timing.removal,
            registrations.last().expect("four were registered"),
        )
        .await;
        drop((owner, view, registrations));
        drop((watcher, second));
    }
    eventually(
        scene.timing.recovery,
        "no more tasks than before",
        || match alive() {
            now if now <= before => Ok(()),
            now => Err(format!("{now} tasks, {before} before")),
        },
    )
    .await;
}
