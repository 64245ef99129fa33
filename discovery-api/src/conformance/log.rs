//! What an operator is told.

use tokio::time::{Instant, sleep, sleep_until};
use tracing::Level;

use super::Harness;
use super::observer::ids;
use super::recorder::{Line, Recorder};
use super::scene::{Scene, built, eventually, state_becomes};
use crate::{RegistrationState, Snapshot};

/// Every change of a registration's state and of a watch's freshness is one line on the log, at
/// `WARN` if it is for the worse and at `INFO` if for the better, that names the service and the
/// cause.
pub async fn every_change_of_state_is_one_line(harness: &dyn Harness) {
    let recorder = Recorder::global();
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "one").await;
    let mut view = scene.follow(&other).await;
    let settle = scene.timing.settle;
    view.until(settle, "the instance, live", |s| {
        ids(s) == ["one"] && s.freshness().is_live()
    })
    .await;
    scene.faults().outage().await;
    let began = Instant::now();
    let stale = |s: &Snapshot| !s.freshness().is_live();
    let seen = view
        .until(scene.timing.detection, "a stale list", stale)
        .await;
    assert!(seen.cause().is_some(), "a stale list does not tell why");
    let bound = scene.timing.expiry + scene.timing.detection;
    if owner.capabilities().crash_detection.is_some() {
        state_becomes(bound, &registration, "Lost", |state| {
            matches!(state, RegistrationState::Lost { .. })
        })
        .await;
    } else {
        // Without a lease nobody knows before the registry is back that the record has ended.
        let what = "no longer Live in an outage";
        state_becomes(bound, &registration, what, |state| !state.is_live()).await;
        sleep_until(began + scene.timing.expiry).await;
    }
    sleep(scene.timing.quiet).await;
    scene.faults().restore().await;
    let live = RegistrationState::is_live;
    state_becomes(scene.timing.recovery, &registration, "Live", live).await;
    view.until(scene.timing.recovery, "a live list", |s| !stale(s))
        .await;

    let service = scene.service.as_str();
    let changes = |what: &str| -> Vec<Line> {
        let is = format!("{what} is ");
        let lines = recorder.of(service).into_iter();
        lines.filter(|line| line.message.starts_with(&is)).collect()
    };
    for (what, id, first, worst) in [
        ("registration", Some("one"), "pending", "lost"),
        ("watch", None, "unknown", "stale"),
    ] {
        let lines = changes(what);
        let shown: Vec<_> = lines.iter().map(ToString::to_string).collect();
        let mut was = first.to_owned();
        for line in &lines {
            let is = line.message.rsplit(' ').next().unwrap_or_default();
            let is_good = is == "live";
            assert_eq!(line.field("was"), Some(was.as_str()), "in {shown:#?}");
            assert_ne!(is, was, "no change, in {shown:#?}");
            assert_eq!(line.field("id"), id, "in {shown:#?}");
            assert!(line.field("lasted").is_some(), "in {shown:#?}");
            assert_eq!(line.field("cause").is_none(), is_good, "in {shown:#?}");
            let level = if is_good { Level::INFO } else { Level::WARN };
            assert_eq!(line.level, level, "in {shown:#?}");
            is.clone_into(&mut was);
        }
        assert_eq!(was, "live", "the last of {shown:#?}");
        let has_worst = lines.iter().any(|line| line.message.ends_with(worst));
        assert!(has_worst, "in {shown:#?}");
        // However often it was tried in between.
        let rest = recorder.of(service).len() - changes("registration").len();
        assert!(rest <= changes("watch").len() + 8, "too much is said");
    }
}

/// A registry that has never answered is told of on the log at the first attempt that fails, and by
/// the watch.
pub async fn a_registry_that_never_answers_is_told_of(harness: &dyn Harness) {
    let recorder = Recorder::global();
    let scene = Scene::new(harness);
    scene.faults().outage().await;
    let process = scene.process().await;
    let instance = built(scene.builder("one"));
    let registration = scene.register(&process, &instance).await;
    let watch = process.watch(&scene.service).await;
    let Ok(watch) = watch else {
        panic!("watching was refused: {watch:?}");
    };
    let bound = scene.timing.detection;
    let error = eventually(bound, "a watch's last error", || {
        watch.last_error().ok_or_else(|| "none".to_owned())
    })
    .await;
    assert!(error.is_retryable(), "an outage is told as {error}");
    state_becomes(bound, &registration, "Pending with a cause", |state| {
        state.cause().is_some()
    })
    .await;
    eventually(bound, "a warning", || {
        let lines = recorder.of(scene.service.as_str());
        let warned = |what: &str| {
            let fails = format!("{what} fails");
            lines.iter().any(|line| {
                let cause = line.field("cause").unwrap_or_default();
                line.level == Level::WARN
                    && line.message.starts_with(&fails)
                    && cause.contains(error.kind().as_str())
            })
        };
        if warned("registration") || warned("watch") {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    })
    .await;
    scene.faults().restore().await;
    let live = RegistrationState::is_live;
    state_becomes(scene.timing.recovery, &registration, "Live", live).await;
    eventually(scene.timing.recovery, "no error any more", || {
        match watch.last_error() {
            None => Ok(()),
            Some(error) => Err(error.to_string()),
        }
    })
    .await;
}
