//! How long calls and their attempts may take.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use plimsoll::{
    Attempt, CallError, Client, ClientBuilder, Endpoint, ErrorKind, Outcome, PickRequest,
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{First, ScriptedRegistry, TokioClock, named};
use crate::{ANY, client_of};

const MS: Duration = Duration::from_millis(1);

type Answer = Result<String, Attempt<io::Error>>;

fn builder(members: usize) -> ClientBuilder {
    let registry = ScriptedRegistry::with(&named(members));
    client_of(&registry).with_clock(Arc::new(TokioClock))
}

/// The first endpoint hangs, all others answer after 2 ms.
async fn first_hangs(endpoint: Arc<Endpoint>) -> Answer {
    if endpoint.id().as_str() == "000" {
        std::future::pending::<()>().await;
    }
    sleep(2 * MS).await;
    Ok(endpoint.id().to_string())
}

fn hanging(client: &Client) -> Arc<Endpoint> {
    Arc::clone(&client.endpoints()[0])
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_call_goes_elsewhere_when_an_attempt_times_out() {
    let builder = builder(3).with_balancer(First::default());
    let client = builder
        .with_attempt_timeout(100 * MS)
        .build()
        .await
        .unwrap();
    let start = Instant::now();
    let request = PickRequest::new().idempotent();
    let answer = client.call(&request, first_hangs).await.unwrap();
    assert_ne!(answer, "000");
    assert_eq!(start.elapsed().as_millis(), 102);
    let hung = hanging(&client);
    assert_eq!(
        (hung.failures(), hung.timeouts(), hung.in_flight()),
        (1, 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn any_other_call_ends_when_an_attempt_times_out() {
    let builder = builder(3).with_balancer(First::default());
    let client = builder
        .with_attempt_timeout(100 * MS)
        .build()
        .await
        .unwrap();
    let error = client.call(&ANY, first_hangs).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(
        text,
        "the call of s at 000 (127.0.0.1:1) was not answered within 100ms"
    );
    assert!(matches!(
        error,
        CallError::TimedOut {
            attempts: 1,
            last: None,
            ..
        }
    ));
}

#[tokio::test(start_paused = true)]
async fn attempts_and_calls_are_limited_by_default() {
    let client = builder(1).build().await.unwrap();
    let start = Instant::now();
    let request = PickRequest::new().idempotent();
    let error = client.call(&request, first_hangs).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn what_the_limit_of_a_call_cuts_short_counts_as_cancelled() {
    let builder = builder(1).with_call_timeout(100 * MS);
    let client = builder.build().await.unwrap();
    client.call(&ANY, first_hangs).await.unwrap_err();
    let hung = hanging(&client);
    assert_eq!((hung.failures(), hung.cancelled()), (0, 1));
    assert_eq!(hung.given_up().map(|(count, ..)| count), Some(1));
}

#[tokio::test(start_paused = true)]
async fn without_limits_a_call_takes_as_long_as_it_takes() {
    let builder = builder(1).without_attempt_timeout().without_call_timeout();
    let client = builder.build().await.unwrap();
    let slow = async |_: Arc<Endpoint>| -> Answer {
        sleep(Duration::from_secs(3_600)).await;
        Ok(String::new())
    };
    assert!(client.call(&ANY, slow).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn limits_of_zero_are_refused_by_name() {
    for (builder, field) in [
        (
            builder(1).with_attempt_timeout(Duration::ZERO),
            "attempt_timeout",
        ),
        (builder(1).with_call_timeout(Duration::ZERO), "call_timeout"),
    ] {
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(field), "{error}");
    }
}

/// 60 calls, each bounded from outside; which of them were answered.
async fn sixty(client: &Client) -> Vec<bool> {
    let mut answered = Vec::new();
    for _ in 0..60 {
        let call = timeout(100 * MS, client.call(&ANY, first_hangs));
        answered.push(matches!(call.await, Ok(Ok(_))));
    }
    answered
}

#[tokio::test(start_paused = true)]
async fn a_hung_server_is_learned_of_through_limits_round_the_call() {
    for seed in 0..100 {
        let client = builder(3).with_seed(seed).build().await.unwrap();
        let answered = sixty(&client).await;
        let lost = (0..).zip(&answered).filter(|(_, answered)| !**answered);
        let lost: Vec<usize> = lost.map(|(call, _)| call).collect();
        // From the tenth call on none is, unless it is among the four from the first that met it.
        let still = |call: &usize| *call < 9 || *call < lost[0] + 4;
        assert!(lost.iter().all(still), "{seed}: {lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_who_all_give_up_speak_against_nobody() {
    let client = builder(3).build().await.unwrap();
    let hang = async |_: Arc<Endpoint>| -> Answer { std::future::pending().await };
    for _ in 0..60 {
        assert!(timeout(100 * MS, client.call(&ANY, hang)).await.is_err());
    }
    assert_eq!(client.stats().eligible, 3);
}

#[tokio::test(start_paused = true)]
async fn requests_given_up_at_once_speak_against_nobody() {
    let client = builder(3).build().await.unwrap();
    for _ in 0..60 {
        assert!(client.call(&ANY, answers).await.is_ok());
        let call = timeout(MS, client.call(&ANY, first_hangs));
        let _given_up_or_not = call.await;
    }
    assert_eq!(client.stats().eligible, 3);
}

async fn answers(_: Arc<Endpoint>) -> Answer {
    sleep(2 * MS).await;
    Ok(String::new())
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_bounds_the_latency_from_below() {
    let client = builder(1).build().await.unwrap();
    client.call(&ANY, answers).await.unwrap();
    let endpoint = hanging(&client);
    assert_eq!(endpoint.latency(), Some(2 * MS));
    let hang = async |_: Arc<Endpoint>| -> Answer { std::future::pending().await };
    assert!(timeout(100 * MS, client.call(&ANY, hang)).await.is_err());
    assert!(
        endpoint.latency() > Some(10 * MS),
        "{:?}",
        endpoint.latency()
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_still_read_is_in_flight_until_its_end() {
    let client = builder(1).build().await.unwrap();
    let (value, pick) = client.call_with_pick(&ANY, answers).await.unwrap();
    let endpoint = hanging(&client);
    assert_eq!((value.as_str(), endpoint.in_flight()), ("", 1));
    sleep(2_000 * MS).await;
    pick.finish(Outcome::Success);
    assert_eq!((endpoint.in_flight(), endpoint.successes()), (0, 1));
    assert_eq!(endpoint.latency(), Some(2_002 * MS), "of the whole of it");
    let dropped = client.call_with_pick(&ANY, answers).await.unwrap();
    drop(dropped);
    assert_eq!((endpoint.in_flight(), endpoint.cancelled()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_time_has_the_whole_of_it() {
    let attempts = AtomicU32::new(0);
    let builder = builder(2).with_attempt_timeout(100 * MS);
    let client = builder.build().await.unwrap();
    let just_in_time = async |_: Arc<Endpoint>| -> Answer {
        attempts.fetch_add(1, Ordering::Relaxed);
        sleep(99 * MS).await;
        Ok(String::new())
    };
    assert!(client.call(&ANY, just_in_time).await.is_ok());
    assert_eq!(attempts.into_inner(), 1);
}
