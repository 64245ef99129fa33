//! Calls of which nobody knows whether they were carried out.

use std::time::Duration;

use plimsoll_discovery_api::{ErrorKind, RegistrationState, Status, Weight};
use tokio::time::{Instant, sleep, timeout};

use super::scenarios::{SECOND, live, no_violations, start};
use super::world::{Mode, Script};
use crate::{Driver, Timings};

/// Long enough for a call to be given up and for whatever was paced by the backoff.
const SETTLED: u32 = 15;

async fn until(what: impl Fn() -> bool + Send + Sync) {
    let reached = async {
        while !what() {
            sleep(SECOND / 1_000).await;
        }
    };
    timeout(60 * SECOND, reached).await.expect("in time");
}

#[tokio::test(start_paused = true)]
async fn an_update_that_was_given_up_and_taken_back_does_not_stand() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    script.world().replies_to_lose = 1;
    registration.set_status(Status::Draining).unwrap();
    let status = || script.visible().unwrap().instance.status();
    until(|| status() == Status::Draining).await;
    registration.set_status(Status::Up).unwrap();
    sleep(SETTLED * SECOND).await;
    assert_eq!(status(), Status::Up);
    assert_eq!(script.count("update"), 2);
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_was_given_up_and_went_back_does_not_stand() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    script.world().replies_to_lose = 1;
    registration.load().set(50);
    let load = || script.visible().unwrap().load;
    until(|| load() == 50).await;
    registration.load().set(0);
    sleep(SETTLED * SECOND).await;
    assert_eq!(load(), 0, "long before it ages");
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_flush_after_a_load_that_was_given_up_confirms_what_stands() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    script.world().replies_to_lose = 1;
    registration.load().set(50);
    let flushed = registration.load().flush().await.unwrap_err();
    assert_eq!(flushed.kind(), ErrorKind::TimedOut);
    registration.load().set(0);
    registration.load().flush().await.unwrap();
    assert_eq!(script.visible().unwrap().load, 0);
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_flush_ends_with_the_soundness_of_the_registration() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    script.world().mode = Mode::Hang;
    let renewals = script.count("renew");
    until(|| script.count("renew") > renewals).await;
    let load = registration.load();
    load.set(1_000);
    until(|| script.count("publish") > 0).await;
    // Behind a publication that outlasts the renewal which fails.
    let bound = 2 * Timings::default().call_timeout;
    let flushed = timeout(bound, load.flush()).await.expect("an answer");
    assert_eq!(flushed.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_refused_makes_no_busy_loop_whatever_the_interval() {
    let script = Script::new();
    script.world().timings.load.min_interval = Duration::ZERO;
    let registration = start(&script);
    live(&registration).await;
    let renewals = script.count("renew");
    script.world().mode = Mode::Refuse(ErrorKind::TimedOut);
    registration.load().set(1_000);
    sleep(SECOND).await;
    assert_eq!(script.count("renew"), renewals, "it is sound");
    let publishes = script.count("publish");
    assert!((2..=11).contains(&publishes), "{publishes} in a second");
}

#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_the_start_of_the_claim() {
    let script = Script::new();
    script.world().wire = script.timings().call_timeout - SECOND / 2;
    let started = Instant::now();
    let registration = start(&script);
    live(&registration).await;
    assert!(started.elapsed() > 2 * SECOND);
    script.world().mode = Mode::Hang;
    let lost = |state: &RegistrationState| matches!(state, RegistrationState::Lost { .. });
    timeout(60 * SECOND, registration.states().wait_for(lost))
        .await
        .expect("lost in time");
    assert_eq!(started.elapsed(), script.timings().lease.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_the_registry_could_not_hold_is_refused_by_an_update_and_changes_nothing() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    let before = registration.instance();
    let heavy = before.as_ref().clone().with_weight(Weight::MAX);
    script.world().cannot_hold = Some(Weight::MAX);
    let error = registration.update(heavy).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        (error.backend(), error.operation()),
        (Some("script"), Some("update"))
    );
    sleep(SETTLED * SECOND).await;
    assert_eq!(registration.instance(), before);
    assert_eq!(script.count("update"), 0);
}

#[tokio::test(start_paused = true)]
async fn whatever_a_state_reports_says_who_failed_at_what() {
    let script = Script::new();
    script.world().mode = Mode::Refuse(ErrorKind::Unavailable);
    let registration = start(&script);
    let mut states = registration.states();
    let failed = |state: &RegistrationState| state.cause().is_some();
    let named = |state: Option<RegistrationState>| {
        let state = state.unwrap();
        let cause = state.cause().unwrap();
        (cause.backend().unwrap(), cause.operation().unwrap())
    };
    assert_eq!(named(states.wait_for(failed).await), ("script", "register"));
    script.world().mode = Mode::Up;
    live(&registration).await;
    script.world().mode = Mode::Refuse(ErrorKind::Unavailable);
    assert_eq!(named(states.wait_for(failed).await), ("script", "renew"));
}
