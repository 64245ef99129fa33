//! One story each.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{ErrorKind, Instance, Registration, RegistrationState, Rng, Status};
use tokio::time::{Instant, advance, sleep, timeout};

use super::world::{Mode, Script};
use crate::handle_guard::HandleGuard;
use crate::log::FailureLog;
use crate::reconciler::{Shared, spawn};
use crate::unfinished::Unfinished;
use crate::{Admission, Driver, Timings};

pub(super) const SECOND: Duration = Duration::from_secs(1);

fn instance() -> Instance {
    Instance::builder("s", "10.0.0.1", 1)
        .with_id("a")
        .build()
        .unwrap()
}

pub(super) fn shared(handle_guard: HandleGuard) -> Shared {
    Shared {
        handle_guard,
        failures: FailureLog::default(),
        unfinished: Unfinished::default(),
    }
}

pub(super) fn start(script: &Script) -> Registration {
    start_admitted(script, script.admission())
}

pub(super) fn start_admitted(script: &Script, admission: Admission) -> Registration {
    spawn(
        Arc::new(script.clone()),
        admission,
        instance(),
        shared(HandleGuard::new()),
        Rng::from_seed(1),
    )
}

pub(super) async fn live(registration: &Registration) {
    timeout(
        30 * SECOND,
        registration.states().wait_for(RegistrationState::is_live),
    )
    .await
    .expect("live within the bound");
}

pub(super) fn no_violations(script: &Script) {
    assert_eq!(script.world().violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_down_at_start_delays_visibility_and_nothing_else() {
    let script = Script::new();
    script.world().mode = Mode::Refuse(ErrorKind::Unavailable);
    let registration = start(&script);
    sleep(600 * SECOND).await;
    assert!(matches!(
        registration.state(),
        RegistrationState::Pending { cause: Some(_) }
    ));
    script.world().mode = Mode::Up;
    let healed = Instant::now();
    registration.ready().await.unwrap();
    assert!(healed.elapsed() <= Timings::default().backoff.cap + SECOND);
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_settled_by_the_same_incarnation() {
    let script = Script::new();
    script.world().replies_to_lose = 1;
    let registration = start(&script);
    sleep(SECOND).await;
    let first = script
        .visible()
        .expect("the first attempt was applied")
        .incarnation;
    live(&registration).await;
    assert_eq!(registration.state().incarnation(), Some(first));
    assert_eq!(script.count("claim"), 2);
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn an_expired_record_comes_back_in_a_new_incarnation_with_the_current_load() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    let first = registration.state().incarnation();
    registration.load().set(42);
    script.expire();
    let mut states = registration.states();
    states
        .wait_for(|state| matches!(state, RegistrationState::Lost { .. }))
        .await
        .unwrap();
    live(&registration).await;
    let back = script.visible().unwrap();
    assert_eq!(back.load, 42);
    assert_ne!(Some(back.incarnation), first);
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_silent_registry_makes_it_suspect_then_lost_and_the_same_life_is_resumed() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    let life = registration.state().incarnation();
    script.world().mode = Mode::Refuse(ErrorKind::Unavailable);
    let mut states = registration.states();
    let suspect = |state: &RegistrationState| matches!(state, RegistrationState::Suspect { .. });
    states.wait_for(suspect).await.unwrap();
    let lost = |state: &RegistrationState| matches!(state, RegistrationState::Lost { .. });
    states.wait_for(lost).await.unwrap();
    script.world().mode = Mode::Up;
    // As a registry that was restarted and gave every lease its full time again.
    script.world().revive();
    live(&registration).await;
    assert_eq!(registration.state().incarnation(), life);
    assert_eq!(script.count("claim"), 1);
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_granted_shorter_is_renewed_in_time_and_believed_no_longer() {
    let script = Script::new();
    script.world().granted = Some(SECOND);
    let registration = start(&script);
    live(&registration).await;
    sleep(10 * SECOND).await;
    assert!(registration.state().is_live());
    let renewals = script.count("renew");
    assert!((25..=40).contains(&renewals), "{renewals} in 10 s");
    script.world().mode = Mode::Hang;
    let lost = |state: &RegistrationState| matches!(state, RegistrationState::Lost { .. });
    let cut = Instant::now();
    let mut states = registration.states();
    let reached = timeout(30 * SECOND, states.wait_for(lost)).await;
    reached.expect("lost within the bound");
    assert!(cut.elapsed() <= SECOND, "{:?}", cut.elapsed());
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_stopped_past_its_lease_writes_nothing_before_it_has_renewed() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    assert_eq!(script.count("publish"), 0);
    registration.load().set(1_000);
    // The clock jumps and no task runs meanwhile.
    advance(60 * SECOND).await;
    live(&registration).await;
    sleep(5 * SECOND).await;
    let world = script.world();
    let after: Vec<_> = world.calls.iter().map(|(_, name)| *name).collect();
    let claim = after.iter().rposition(|name| *name == "claim").unwrap();
    let renew = after.iter().position(|name| *name == "renew").unwrap();
    let publish = after.iter().position(|name| *name == "publish");
    assert!(renew < claim, "{after:?}");
    assert!(publish.is_none_or(|publish| publish > renew), "{after:?}");
    drop(world);
    assert_eq!(script.visible().unwrap().load, 1_000);
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_live_foreign_owner_is_a_conflict_that_ends_when_it_leaves() {
    let script = Script::new();
    assert!(script.foreign_takes(&Arc::new(instance())));
    let registration = start(&script);
    let error = registration.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    sleep(60 * SECOND).await;
    assert!(matches!(
        registration.state(),
        RegistrationState::Conflict { .. }
    ));
    assert!(
        script.busiest_minute() <= 60,
        "at most one attempt a second"
    );
    script.foreign_leaves();
    live(&registration).await;
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn the_id_of_a_former_life_is_waited_for_and_no_error() {
    let script = Script::new();
    script.world().id_release = Some(10 * SECOND);
    assert!(script.foreign_takes(&Arc::new(instance())));
    let registration = start(&script);
    let leaving = async {
        sleep(10 * SECOND).await;
        let state = registration.state();
        assert!(
            matches!(state, RegistrationState::Conflict { lasting: false, .. }),
            "{state}"
        );
        script.foreign_leaves();
    };
    let (ready, ()) = tokio::join!(registration.ready(), leaving);
    ready.unwrap();
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_reported_once_it_has_outlasted_what_the_dead_leave() {
    let script = Script::new();
    let release = 10 * SECOND;
    script.world().id_release = Some(release);
    assert!(script.foreign_takes(&Arc::new(instance())));
    let registration = start(&script);
    let began = Instant::now();
    let error = registration.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let retry = Timings::default().conflict_retry;
    let waited = began.elapsed();
    assert!(
        waited >= release + retry && waited <= release + 3 * retry,
        "{waited:?}"
    );
    // A registry that was away may have given the dead another lease.
    script.world().mode = Mode::Refuse(ErrorKind::Unavailable);
    sleep(20 * SECOND).await;
    script.world().mode = Mode::Up;
    let mut states = registration.states();
    let contested = |state: &RegistrationState| matches!(state, RegistrationState::Conflict { .. });
    let again = states.wait_for(contested).await.unwrap();
    assert!(
        matches!(again, RegistrationState::Conflict { lasting: false, .. }),
        "{again}"
    );
}

#[tokio::test(start_paused = true)]
async fn bad_credentials_surface_at_once_and_are_tried_at_most_once_a_second() {
    let script = Script::new();
    script.world().mode = Mode::Refuse(ErrorKind::Unauthenticated);
    let registration = start(&script);
    let error = timeout(SECOND, registration.ready())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    sleep(60 * SECOND).await;
    assert!(script.busiest_minute() <= 60);
    script.world().mode = Mode::Up;
    live(&registration).await;
}

#[tokio::test(start_paused = true)]
async fn credentials_that_end_are_tried_at_most_once_a_second_too() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    script.world().mode = Mode::Refuse(ErrorKind::PermissionDenied);
    let mut states = registration.states();
    let refused = |state: &RegistrationState| state.cause().is_some();
    timeout(60 * SECOND, states.wait_for(refused))
        .await
        .unwrap();
    let before = script.world().calls.len();
    sleep(3 * SECOND).await;
    let calls = script.world().calls.len() - before;
    assert!((1..=4).contains(&calls), "{calls} calls in 3 s");
    script.world().mode = Mode::Up;
    live(&registration).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_again_at_once_is_not_repaired_in_a_busy_loop() {
    let script = Script::new();
    let registration = start(&script);
    for _ in 0..600 {
        sleep(SECOND / 10).await;
        script.expire();
    }
    assert!(
        script.busiest_minute() <= 60,
        "{} calls in a minute",
        script.busiest_minute()
    );
    live(&registration).await;
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn deregister_is_bounded_and_goes_on_behind_the_callers_back() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    script.world().mode = Mode::Hang;
    let started = Instant::now();
    let error = registration.deregister().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(started.elapsed() <= Timings::default().deregister_timeout);
    assert!(matches!(
        registration.state(),
        RegistrationState::Deregistered
    ));
    script.world().mode = Mode::Up;
    script.world().revive();
    sleep(15 * SECOND).await;
    assert!(script.visible().is_none());
    registration.deregister().await.unwrap();
    assert_eq!(
        registration.load().flush().await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn deregister_during_a_claim_waits_for_it_and_removes_what_it_made() {
    let script = Script::new();
    let registration = start(&script);
    // The claim is on the wire for 2 ms.
    sleep(Duration::from_millis(1)).await;
    registration.deregister().await.unwrap();
    script.world().must_stay_gone = true;
    sleep(60 * SECOND).await;
    assert!(script.visible().is_none());
    assert_eq!((script.count("claim"), script.count("release")), (1, 1));
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn deregister_before_anything_was_written_writes_nothing() {
    let script = Script::new();
    let registration = start(&script);
    registration.deregister().await.unwrap();
    assert_eq!(script.world().calls.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_removes_and_leaves_no_task_even_while_the_registry_is_silent() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    script.world().mode = Mode::Hang;
    drop(registration);
    sleep(2 * script.timings().call_timeout + SECOND).await;
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_removal_goes_on_while_anything_of_the_registry_is_held() {
    let script = Script::new();
    let handle_guard = HandleGuard::new();
    let driver = Arc::new(script.clone());
    let held = shared(handle_guard.clone());
    let admission = script.admission();
    let registration = spawn(driver, admission, instance(), held, Rng::from_seed(1));
    live(&registration).await;
    script.world().mode = Mode::Refuse(ErrorKind::Unavailable);
    drop(registration);
    sleep(600 * SECOND).await;
    script.world().revive();
    script.world().mode = Mode::Up;
    sleep(11 * SECOND).await;
    assert!(script.visible().is_none());
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        0
    );
    drop(handle_guard);
}

#[tokio::test(start_paused = true)]
async fn an_update_is_written_in_the_same_life_and_survives_failure() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    let life = registration.state().incarnation();
    script.world().mode = Mode::Refuse(ErrorKind::ResourceExhausted);
    registration.set_status(Status::Draining).unwrap();
    sleep(5 * SECOND).await;
    script.world().mode = Mode::Up;
    sleep(11 * SECOND).await;
    let seen = script.visible().unwrap();
    assert_eq!(seen.instance.status(), Status::Draining);
    assert_eq!(Some(seen.incarnation), life);

    let other = Instance::builder("s", "10.0.0.2", 1)
        .with_id("a")
        .build()
        .unwrap();
    let error = registration.update(other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_load_is_written_at_the_publish_interval_and_ends_exact() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    let load = registration.load();
    let mut guards = Vec::new();
    for step in 0..10_000_u32 {
        guards.push(load.acquire());
        if step % 3 == 0 {
            guards.pop();
        }
        sleep(Duration::from_millis(1)).await;
    }
    let policy = Timings::default().load;
    let most = 10 / policy.min_interval.as_secs() + 1;
    assert!(
        script.count("publish") as u64 <= most,
        "{} writes",
        script.count("publish")
    );
    drop(guards);
    sleep(policy.min_interval + SECOND).await;
    assert_eq!(script.visible().unwrap().load, 0);
    sleep(600 * SECOND).await;
    let idle = script.count("publish") as u64;
    assert!(
        idle <= most + 2 + 600 / policy.max_age.as_secs(),
        "{idle} writes with an idle load"
    );
    no_violations(&script);
}

#[tokio::test(start_paused = true)]
async fn flush_confirms_the_value_of_the_call_and_says_when_it_cannot() {
    let script = Script::new();
    let registration = start(&script);
    live(&registration).await;
    let load = registration.load();
    for value in [3, 4, 5] {
        load.set(value);
        load.flush().await.unwrap();
        assert_eq!(script.visible().unwrap().load, value);
    }
    let writes = script.count("publish");
    load.flush().await.unwrap();
    assert_eq!(script.count("publish"), writes, "nothing to write");
    script.world().mode = Mode::Refuse(ErrorKind::ResourceExhausted);
    load.set(6);
    assert_eq!(
        load.flush().await.unwrap_err().kind(),
        ErrorKind::ResourceExhausted
    );
    assert!(
        script.visible().is_some(),
        "a failed load write costs no lease"
    );
}

#[test]
fn what_a_runtime_that_has_ended_leaves_is_removed_in_the_next() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let (script, shared) = (Script::new(), shared(HandleGuard::new()));
    let begin = async {
        let driver = Arc::new(script.clone());
        let (admission, shared) = (script.admission(), shared.clone());
        let registration = spawn(driver, admission, instance(), shared, Rng::from_seed(1));
        live(&registration).await;
        registration
    };
    let registration = runtime().block_on(begin);
    let state = registration.state();
    let is_told =
        matches!(&state, RegistrationState::Lost { cause } if cause.kind() == ErrorKind::Closed);
    assert!(is_told, "{state}");
    assert!(script.visible().is_some(), "nobody was there to remove it");
    let update = registration.update(instance()).unwrap_err();
    assert_eq!(update.kind(), ErrorKind::Closed);
    runtime().block_on(async {
        // Whoever does anything with the handle.
        shared.unfinished.take_up();
        sleep(SECOND).await;
        assert!(script.visible().is_none());
        registration.deregister().await.unwrap();
    });
    no_violations(&script);
}
