//! What the log says of it.

use plimsoll_discovery_api::ErrorKind;
use plimsoll_discovery_api::conformance::{Line, Recorder};
use tokio::time::sleep;
use tracing::Level;

use super::scenarios::{SECOND, live, start};
use super::world::{Mode, Script};

fn number(line: &Line, field: &str) -> usize {
    line.field(field).unwrap().parse().unwrap()
}

fn said(lines: &[Line]) -> Vec<(Level, &str)> {
    let said = lines.iter().map(|line| (line.level, line.message.as_str()));
    said.collect()
}

#[tokio::test(start_paused = true)]
async fn each_change_is_one_line_and_the_failures_between_are_summed_up() {
    let recorder = Recorder::default();
    let _reading = tracing::subscriber::set_default(recorder.clone());
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    script.world().mode = Mode::Refuse(ErrorKind::Unavailable);
    let renewed = script.count("renew");
    sleep(600 * SECOND).await;
    let refused = script.count("renew") - renewed;
    script.world().mode = Mode::Up;
    live(&registration).await;
    registration.deregister().await.unwrap();

    let (changes, failures): (Vec<_>, Vec<_>) = recorder
        .of("s")
        .into_iter()
        .partition(|line| line.message.starts_with("registration is"));
    assert_eq!(
        said(&changes),
        [
            (Level::INFO, "registration is live"),
            (Level::WARN, "registration is suspect"),
            (Level::WARN, "registration is lost"),
            (Level::INFO, "registration is live"),
            (Level::INFO, "registration is deregistered"),
        ]
    );
    let was: Vec<_> = changes.iter().map(|line| line.field("was")).collect();
    let states = ["pending", "live", "suspect", "lost", "live"];
    assert_eq!(was, states.map(Some));
    assert!(changes.iter().all(|line| line.field("id") == Some("a")));
    let causes: Vec<_> = changes
        .iter()
        .map(|line| line.field("cause").is_some())
        .collect();
    assert_eq!(causes, [false, true, true, false, false]);
    // The first failure has made it suspect; the others were counted, and told once a minute, with the
    // one that told that the record was gone.
    let between: usize = changes.iter().map(|line| number(line, "failures")).sum();
    assert_eq!(between, refused - 1 + 1);
    assert!((9..=11).contains(&failures.len()), "{failures:#?}");
    let told: usize = failures.iter().map(|line| number(line, "failures")).sum();
    assert!(told <= between && told > between / 2, "{told} of {between}");
    let lasted = changes[3].field("lasted").unwrap();
    assert!(
        lasted.starts_with("59") || lasted.starts_with("60"),
        "{lasted}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_down_at_the_start_is_told_of_at_the_first_attempt() {
    let recorder = Recorder::default();
    let _reading = tracing::subscriber::set_default(recorder.clone());
    let script = Script::new();
    script.world().mode = Mode::Refuse(ErrorKind::Unavailable);
    let registration = start(&script);
    sleep(SECOND / 10).await;
    let lines = recorder.of("s");
    assert_eq!(
        said(&lines),
        [(Level::WARN, "registration fails; trying again")]
    );
    let cause = lines[0].field("cause").unwrap();
    assert!(cause.contains("script register: unavailable"), "{cause}");
    script.world().mode = Mode::Refuse(ErrorKind::PermissionDenied);
    sleep(30 * SECOND).await;
    let lines = recorder.of("s");
    assert_eq!(lines.len(), 2, "another cause: {lines:#?}");
    drop(registration);
}

#[tokio::test(start_paused = true)]
async fn loads_that_cannot_be_published_are_told_of_once_a_minute() {
    let recorder = Recorder::default();
    let _reading = tracing::subscriber::set_default(recorder.clone());
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    script.world().refuses_loads = Some(ErrorKind::ResourceExhausted);
    registration.load().set(1_000);
    sleep(601 * SECOND).await;
    let lines = recorder.of("s");
    let told = lines
        .iter()
        .filter(|line| line.message.starts_with("publication of the load fails"));
    assert!((9..=11).contains(&told.count()), "{lines:#?}");
    assert!(registration.state().is_live());
}
