//! Every permit is given back, once.

use std::future::pending;
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result, Rng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::server::{LIMIT, Server, admission};
use crate::Timings;
use crate::admission::{Admission, Class, Turn};

const MILLI: Duration = Duration::from_millis(1);

/// How many are admitted at once, when nothing else is under way.
async fn room(admission: &Admission) -> usize {
    let mut permits = Vec::new();
    while let Ok(permit) = timeout(Duration::ZERO, admission.enter(Class::Claim)).await {
        permits.push(permit);
    }
    permits.len()
}

#[tokio::test(start_paused = true)]
async fn whatever_becomes_of_a_call_its_place_is_free_again() {
    const FIRST: usize = 64;
    let ends = [
        ("answered", None, FIRST),
        ("a conflict", Some(ErrorKind::Conflict), FIRST),
        ("not connected", Some(ErrorKind::Unavailable), FIRST),
        ("its lease has ended", Some(ErrorKind::LeaseExpired), FIRST),
        ("too much", Some(ErrorKind::ResourceExhausted), FIRST / 2),
        ("late", Some(ErrorKind::TimedOut), FIRST / 2),
    ];
    for (name, end, expected) in ends {
        let mut timings = Timings::default();
        timings.admission.initial = FIRST;
        let admission = Admission::new(&timings);
        // Side by side, so that all are of one moment, for which the window is halved once.
        let mut calls = JoinSet::new();
        for _ in 0..FIRST {
            let admission = admission.clone();
            calls.spawn(async move {
                let ended: Result<()> = end.map_or(Ok(()), |kind| Err(Error::new(kind, "x")));
                let call = async {
                    sleep(MILLI).await;
                    ended
                };
                admission.call(Class::Claim, LIMIT, call).await
            });
        }
        while calls.join_next().await.is_some() {}
        assert_eq!(admission.limit(), expected, "{name}");
        sleep(LIMIT).await;
        assert_eq!(room(&admission).await, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_given_up_keeps_its_place_as_long_again_or_until_a_later_one_is_answered() {
    let admission = admission();
    let window = admission.limit();
    let given_up = |count| {
        let admission = &admission;
        async move {
            let permits: Vec<_> = {
                let mut permits = Vec::new();
                for _ in 0..count {
                    permits.push(admission.enter(Class::Claim).await);
                }
                permits
            };
            let calls = permits
                .into_iter()
                .map(|permit| permit.run(LIMIT, pending::<Result<()>>()));
            let mut calls: JoinSet<_> = calls.collect();
            sleep(LIMIT / 2).await;
            calls.shutdown().await;
        }
    };
    given_up(4).await;
    assert_eq!(room(&admission).await, window - 4);
    sleep(LIMIT / 2 - MILLI).await;
    assert_eq!(room(&admission).await, window - 4);
    sleep(MILLI * 2).await;
    assert_eq!(room(&admission).await, window);
    // However many: half of the window is for those that follow.
    given_up(window).await;
    assert_eq!(room(&admission).await, window / 2);
    let answered = admission.call(Class::Claim, LIMIT, async { Ok(()) });
    answered.await.expect("an answer");
    assert_eq!(room(&admission).await, window);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_the_queue_takes_no_place_with_him() {
    let admission = admission();
    let window = admission.limit();
    let mut held = Vec::new();
    for _ in 0..window {
        held.push(admission.enter(Class::Claim).await);
    }
    let mut waiting = JoinSet::new();
    for _ in 0..10_000 {
        let admission = admission.clone();
        waiting.spawn(async move { admission.enter(Class::Claim).await });
    }
    sleep(MILLI).await;
    // Some are dropped in the queue, and some with a permit that they have not seen.
    held.truncate(window / 2);
    waiting.abort_all();
    drop(held);
    waiting.shutdown().await;
    assert_eq!(room(&admission).await, window);
}

#[tokio::test(start_paused = true)]
async fn the_queue_holds_no_more_than_twice_as_many_as_wait() {
    let admission = admission();
    let mut held = Vec::new();
    for _ in 0..admission.limit() {
        held.push(admission.enter(Class::Load).await);
    }
    for _ in 0..10_000 {
        let waits = admission.enter(Class::Load);
        assert!(timeout(Duration::ZERO, waits).await.is_err());
    }
    let debug = format!("{admission:?}");
    let waiting = debug.rsplit(", ").next().unwrap_or_default();
    let waiting: usize = waiting.trim_matches([']', ' ', '}']).parse().unwrap();
    assert!(waiting <= 128, "{debug}");
}

#[tokio::test(start_paused = true)]
async fn no_place_is_lost_however_calls_and_waits_are_cut_off() {
    for seed in 0..20 {
        let mut rng = Rng::from_seed(seed);
        let (server, admission) = (Server::new(2, MILLI * 3, MILLI), admission());
        let mut calls = JoinSet::new();
        for _ in 0..2_000 {
            let (server, admission) = (server.clone(), admission.clone());
            let class = [
                Class::Liveness,
                Class::Claim,
                Class::Removal,
                Class::Other,
                Class::Load,
            ][usize::try_from(rng.next_u64() % 5).unwrap()];
            let limit = MILLI.mul_f64(1.0 + 400.0 * rng.next_f64());
            let cut = MILLI.mul_f64(4_000.0 * rng.next_f64());
            calls.spawn(async move {
                let _cut = timeout(cut, admission.call(class, limit, server.ask())).await;
            });
            if rng.next_f64() < 0.1 {
                sleep(MILLI * 5).await;
            }
        }
        while calls.join_next().await.is_some() {}
        sleep(LIMIT).await;
        assert_eq!(room(&admission).await, admission.limit(), "seed {seed}");
        let debug = format!("{admission:?}");
        assert!(
            debug.contains("under_way: 0, abandoned: 0, waiting: [0, 0, 0, 0, 0]"),
            "{debug}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_begins_when_it_is_sent() {
    let admission = admission();
    let mut held = Vec::new();
    for _ in 0..admission.limit() {
        held.push(admission.enter(Class::Claim).await);
    }
    let began = Instant::now();
    let call = admission.call(Class::Claim, LIMIT, async {
        sleep(LIMIT / 2).await;
        Ok(())
    });
    let waits = async {
        sleep(LIMIT * 10).await;
        held.clear();
    };
    let (answered, ()) = tokio::join!(call, waits);
    answered.expect("in time");
    assert!(began.elapsed() >= LIMIT * 10);
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_taken_at_once_waited_for_and_given_up() {
    let admission = admission();
    let window = admission.limit();
    let mut turn = Turn::new(admission.clone(), Class::Load);
    drop(turn.take().expect("at once"));
    let mut held = Vec::new();
    for _ in 0..window {
        held.push(admission.enter(Class::Claim).await);
    }
    assert!(turn.take().is_none() && turn.is_awaited());
    held.pop();
    turn.come().await;
    let permit = turn.take().expect("its turn");
    assert!(turn.take().is_none() && turn.is_awaited());
    drop(permit);
    // It is there and nobody has taken it.
    turn.give_up();
    drop(held);
    assert_eq!(room(&admission).await, window);
}
