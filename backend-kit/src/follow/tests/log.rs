//! What the log says of a watch, and what the watch says of the registry.

use plimsoll_discovery_api::conformance::Recorder;
use plimsoll_discovery_api::{ErrorKind, Registry};
use tokio::time::{sleep, timeout};
use tracing::Level;

use super::scenarios::{SECOND, lost, next, watched};
use super::source::{Scripted, service};
use crate::Backend;

#[tokio::test(start_paused = true)]
async fn going_stale_and_coming_back_is_a_line_each_with_a_sum_of_failures_between() {
    let recorder = Recorder::default();
    let _reading = tracing::subscriber::set_default(recorder.clone());
    let (script, _backend, mut watch) = watched(&["a"]).await;
    assert!(watch.last_error().is_none());
    script.source().down = true;
    script.source().cut(Some(lost()));
    let stale = next(&mut watch).await;
    let cause = stale.cause().expect("a cause").to_string();
    assert!(cause.contains("script watch: unavailable"), "{cause}");
    sleep(600 * SECOND).await;
    script.source().refuses = Some(ErrorKind::PermissionDenied);
    let refused = |error| matches!(error, ErrorKind::PermissionDenied);
    timeout(20 * SECOND, async {
        while !refused(watch.next_error().await.unwrap().kind()) {}
    })
    .await
    .expect("the latest error");
    assert!(watch.last_error().is_some_and(|e| refused(e.kind())));
    script.source().refuses = None;
    script.source().down = false;
    let live = next(&mut watch).await;
    assert!(live.freshness().is_live() && live.cause().is_none());
    assert!(watch.last_error().is_none());

    let lines = recorder.of("s");
    let (changes, failures): (Vec<_>, Vec<_>) = lines
        .iter()
        .partition(|line| line.message.starts_with("watch is"));
    let said: Vec<_> = changes
        .iter()
        .map(|line| (line.level, line.message.as_str(), line.field("was")))
        .collect();
    assert_eq!(
        said,
        [
            (Level::INFO, "watch is live", Some("unknown")),
            (Level::WARN, "watch is stale", Some("live")),
            (Level::INFO, "watch is live", Some("stale")),
        ]
    );
    // One a minute, and one of another cause.
    assert!((9..=11).contains(&failures.len()), "{failures:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_never_answers_is_told_of_at_the_first_attempt() {
    let recorder = Recorder::default();
    let _reading = tracing::subscriber::set_default(recorder.clone());
    let script = Scripted::new();
    script.source().down = true;
    let backend = Backend::new(script.clone());
    let mut watch = backend.watch(&service()).await.unwrap();
    let error = watch.next_error().await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let late = backend.watch(&service()).await.unwrap();
    assert!(late.last_error().is_some() && late.latest().is_none());
    let lines = recorder.of("s");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0].message, "watch fails; trying again");
    assert_eq!(lines[0].level, Level::WARN);
}
