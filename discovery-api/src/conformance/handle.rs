//! The handle itself.

#![expect(
    clippy::unused_async,
    reason = "some cases are as all others, and their work has runtimes of its own"
)]

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::{sleep, timeout};

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, built, eventually, gone, life, member, ready};
use crate::{ErrorKind, Registration, RegistrationState};

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
        let load = registrations.first().map(Registration::load);
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

/// What was begun in a runtime that has ended says so: registrations are `Lost`, watches stale, both
/// for good and with the cause, and the records are removed or expire.
pub async fn what_was_begun_in_a_runtime_that_has_ended_says_so(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (process, registration, mut watch) = in_a_runtime(async || {
        let process = scene.process().await;
        let registration = scene.live(&process, "one").await;
        let watch = process.watch(&scene.service).await;
        let Ok(mut watch) = watch else {
            panic!("watching was refused: {watch:?}");
        };
        let shown = watch.wait_for(|s| ids(s) == ["one"]);
        let shown = timeout(scene.timing.settle, shown).await;
        assert!(matches!(shown, Ok(Some(_))), "never shown: {shown:?}");
        (process, registration, watch)
    });
    // At once, and without a runtime.
    assert_ended(&registration);
    let last = watch.latest();
    let is_told = last
        .as_deref()
        .is_some_and(|s| !s.freshness().is_live() && s.cause().is_some() && ids(s) == ["one"]);
    assert!(is_told, "a watch of an ended runtime shows {last:?}");
    assert!(watch.last_error().is_some());
    in_a_runtime(async || {
        let settle = scene.timing.settle;
        let ready = timeout(settle, registration.ready()).await;
        let kind = ready.map(|ready| ready.map_err(|error| error.kind()));
        assert_eq!(kind, Ok(Err(ErrorKind::Closed)), "it waits for nobody");
        let same = crate::Instance::clone(&registration.instance());
        let updated = registration.update(same).map_err(|error| error.kind());
        assert_eq!(updated, Err(ErrorKind::Closed));
        let flushed = timeout(settle, registration.load().flush()).await;
        assert!(matches!(flushed, Ok(Err(_))), "flushed: {flushed:?}");
        let end = async { while watch.next().await.is_some() {} };
        assert!(timeout(settle, end).await.is_ok(), "a watch without an end");
        let other = scene.process().await;
        let released = other.capabilities().id_release.unwrap_or_default();
        let bound = scene.timing.expiry + released + scene.timing.recovery;
        let empty = |s: &crate::Snapshot| s.members().is_empty();
        scene.listed(&other, bound, "nobody", empty).await;
        gone(scene.timing.removal, &registration).await;
    });
    drop(process);
}

/// A handle goes on working in another runtime than the one that it was first used in, which may have
/// ended.
pub async fn a_handle_works_on_in_another_runtime(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (process, mut former) = in_a_runtime(async || {
        let process = scene.process().await;
        let registration = scene.live(&process, "same").await;
        (process, vec![registration])
    });
    for _ in 0..2 {
        let registration = in_a_runtime(async || {
            let instance = built(scene.builder("same"));
            let registration = scene.register(&process, &instance).await;
            let released = process.capabilities().id_release.unwrap_or_default();
            ready(released + scene.timing.recovery, &registration).await;
            let incarnation = life(&registration);
            let mut view = scene.follow(&process).await;
            let settle = scene.timing.settle;
            let what = "the one of this runtime, live";
            view.until(settle, what, |s| {
                let present = s.get("same").map(crate::Member::incarnation);
                s.freshness().is_live() && present == Some(incarnation)
            })
            .await;
            registration.load().set(7);
            let flushed = timeout(settle, registration.load().flush()).await;
            assert!(matches!(flushed, Ok(Ok(()))), "not flushed: {flushed:?}");
            // And it is kept, for longer than what was begun in the former runtime lasts.
            sleep(process.capabilities().crash_detection.unwrap_or_default()).await;
            assert_eq!(life(&registration), incarnation);
            let other = scene.process().await;
            let listed = scene.listed(&other, settle, "it", |s| ids(s) == ["same"]);
            let listed = listed.await;
            assert_eq!(member(&listed, "same").incarnation(), incarnation);
            registration
        });
        assert_ended(&registration);
        former.push(registration);
    }
}

fn assert_ended(registration: &Registration) {
    match registration.state() {
        RegistrationState::Lost { cause } if cause.kind() == ErrorKind::Closed => {}
        other => panic!("a registration of an ended runtime is {other}"),
    }
}

/// Does `work` in a runtime of its own, which ends with it.
fn in_a_runtime<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    let whole = || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(work()),
            Err(error) => panic!("no runtime: {error}"),
        }
    };
    match thread::scope(|scope| scope.spawn(whole).join()) {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}
