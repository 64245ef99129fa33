//! Random interleavings of faults and orders. Whatever happens, once the faults end the desired
//! state is true within a bound, and at no time does the actor do what it must not.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{ErrorKind, Instance, Registration, Rng, Weight};
use proptest::prelude::*;
use tokio::time::{advance, sleep};

use super::world::{Mode, Script};
use crate::Timings;
use crate::handle_guard::HandleGuard;
use crate::reconciler::spawn;

/// From the end of the last fault to the desired state: a call that hangs out its time, a late one
/// that then takes effect, and the longest pause between attempts.
const HEALED: Duration = Duration::from_secs(25);

/// Renewals (20), load (30), and repairs paced by the backoff.
const CALLS_PER_MINUTE: usize = 120;

#[derive(Clone, Debug)]
enum Step {
    Run(u32),
    /// The process is stopped: the clock goes on, no task does.
    Stop(u32),
    Refuse(ErrorKind),
    Hang,
    Heal,
    Expire,
    ForeignTakes,
    ForeignLeaves,
    LoseReplies(u32),
    DelayCalls(u32),
    SetLoad(u64),
    SetWeight(u32),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let refusals = [
        ErrorKind::Unavailable,
        ErrorKind::TimedOut,
        ErrorKind::Unauthenticated,
        ErrorKind::ResourceExhausted,
        ErrorKind::Unexpected,
    ];
    prop_oneof![
        8 => (1_u32..8_000).prop_map(Step::Run),
        1 => (1_u32..60_000).prop_map(Step::Stop),
        2 => prop::sample::select(refusals.to_vec()).prop_map(Step::Refuse),
        1 => Just(Step::Hang),
        4 => Just(Step::Heal),
        3 => Just(Step::Expire),
        1 => Just(Step::ForeignTakes),
        2 => Just(Step::ForeignLeaves),
        2 => (1_u32..4).prop_map(Step::LoseReplies),
        2 => (1_u32..4).prop_map(Step::DelayCalls),
        // Few values: going back to what was before is a case of its own.
        2 => prop::sample::select(vec![0, 1, 50, 500]).prop_map(Step::SetLoad),
        2 => prop::sample::select(vec![1, 2, 100]).prop_map(Step::SetWeight),
        1 => Just(Step::Flush),
    ]
}

fn instance() -> Instance {
    Instance::builder("s", "10.0.0.1", 1)
        .with_id("a")
        .build()
        .unwrap()
}

async fn millis(n: u32) {
    sleep(Duration::from_millis(n.into())).await;
}

async fn take(step: Step, script: &Script, registration: &Registration) {
    match step {
        Step::Run(n) => millis(n).await,
        Step::Stop(n) => advance(Duration::from_millis(n.into())).await,
        Step::Refuse(kind) => script.world().mode = Mode::Refuse(kind),
        Step::Hang => script.world().mode = Mode::Hang,
        Step::Heal => script.world().mode = Mode::Up,
        Step::Expire => script.expire(),
        Step::ForeignTakes => drop(script.foreign_takes(&Arc::new(instance()))),
        Step::ForeignLeaves => script.foreign_leaves(),
        Step::LoseReplies(n) => script.world().replies_to_lose = n,
        Step::DelayCalls(n) => script.world().calls_to_delay = n,
        Step::SetLoad(load) => registration.load().set(load),
        Step::SetWeight(weight) => {
            let weight = Weight::new(weight).unwrap();
            let update = registration.instance().as_ref().clone().with_weight(weight);
            // Refused once deregistered, which is not asked here.
            let _ = registration.update(update);
        }
        Step::Flush => {
            let load = registration.load();
            tokio::spawn(async move { load.flush().await });
            millis(1).await;
        }
    }
}

fn heal(script: &Script) {
    script.foreign_leaves();
    let mut world = script.world();
    world.mode = Mode::Up;
    world.replies_to_lose = 0;
    world.calls_to_delay = 0;
}

fn in_paused_time<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(story)
}

fn start(script: &Script, seed: u64) -> Registration {
    spawn(
        Arc::new(script.clone()),
        script.admission(),
        instance(),
        super::scenarios::shared(HandleGuard::new()),
        Rng::from_seed(seed),
    )
}

fn check(script: &Script) {
    assert_eq!(script.world().violations, Vec::<String>::new());
    let busiest = script.busiest_minute();
    assert!(busiest <= CALLS_PER_MINUTE, "{busiest} calls in a minute");
}

/// Whatever happened: soon after the faults end, what stands is what is wanted.
async fn heals(seed: u64, steps: Vec<Step>) {
    let script = Script::new();
    let registration = start(&script, seed);
    for step in steps {
        take(step, &script, &registration).await;
    }
    heal(&script);
    sleep(HEALED).await;
    assert!(registration.state().is_live(), "{:?}", registration.state());
    let seen = script.visible().expect("visible");
    assert_eq!(Some(seen.incarnation), registration.state().incarnation());
    assert_eq!(seen.instance, registration.instance());
    // A small change waits its settling time.
    sleep(Timings::default().load.settle).await;
    assert_eq!(
        script.visible().unwrap().load,
        registration.load().current()
    );
    check(&script);
}

/// Whatever happened: what is given up is gone, and once confirmed stays so.
async fn stays_gone(seed: u64, before: Vec<Step>, after: Vec<Step>) {
    let script = Script::new();
    let registration = start(&script, seed);
    for step in before {
        take(step, &script, &registration).await;
    }
    let started = tokio::time::Instant::now();
    let confirmed = registration.deregister().await.is_ok();
    assert!(started.elapsed() <= Timings::default().deregister_timeout);
    script.world().must_stay_gone = confirmed;
    for step in after {
        take(step, &script, &registration).await;
        script.visible();
    }
    heal(&script);
    sleep(HEALED).await;
    script.world().must_stay_gone = true;
    for _ in 0..60 {
        millis(1_000).await;
        script.visible();
    }
    registration.deregister().await.unwrap();
    check(&script);
}

/// A claim that was given up took effect when the life that it was for had ended, and another had
/// been claimed and given up.
#[test]
fn a_claim_that_arrives_after_its_life_has_ended_leaves_no_ghost() {
    use Step::{DelayCalls, Expire, Run};
    let before = vec![
        DelayCalls(1),
        Run(1_703),
        DelayCalls(1),
        Run(4_468),
        Expire,
        Run(126),
    ];
    in_paused_time(stays_gone(0, before, vec![]));
}

/// A claim that was given up took effect when the record had been lost unseen, and showed the
/// load of long ago.
#[test]
fn a_claim_that_arrives_in_an_empty_place_is_brought_up_to_date() {
    use Step::{DelayCalls, Expire, LoseReplies, Refuse, Run, SetLoad};
    let steps = vec![
        Run(3_275),
        LoseReplies(2),
        Expire,
        Run(5_077),
        DelayCalls(1),
        Run(1_213),
        SetLoad(1),
        Run(3_402),
        Refuse(ErrorKind::Unavailable),
        Expire,
        Run(1),
    ];
    in_paused_time(heals(1_559_337_261_486, steps));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_desired_state_is_true_within_a_bound_after_the_last_fault(
        seed: u64,
        steps in prop::collection::vec(step(), 0..40),
    ) {
        in_paused_time(heals(seed, steps));
    }

    #[test]
    fn what_deregister_has_confirmed_never_comes_back(
        seed: u64,
        before in prop::collection::vec(step(), 0..25),
        after in prop::collection::vec(step(), 0..25),
    ) {
        in_paused_time(stays_gone(seed, before, after));
    }

    #[test]
    fn dropping_leaves_neither_record_nor_task(
        seed: u64,
        before in prop::collection::vec(step(), 0..25),
    ) {
        in_paused_time(async {
            let script = Script::new();
            let registration = start(&script, seed);
            for step in before {
                take(step, &script, &registration).await;
            }
            heal(&script);
            drop(registration);
            sleep(HEALED).await;
            script.world().must_stay_gone = true;
            script.visible();
            assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
            check(&script);
        });
    }
}
