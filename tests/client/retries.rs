//! How often calls are repeated, and for how long.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::balancers::{Random, RandomSubset};
use plimsoll::{
    Attempt, AttemptExt, CallError, Client, ClientBuilder, Endpoint, NoEndpointReason, PickRequest,
    RetryBudget,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{ScriptedRegistry, TokioClock, named, settle};
use crate::{ANY, client_of};

const MS: Duration = Duration::from_millis(1);

type Answer = Result<(), Attempt<io::Error>>;

fn builder(registry: &ScriptedRegistry) -> ClientBuilder {
    client_of(registry).with_clock(Arc::new(TokioClock))
}

fn refused() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionRefused)
}

#[tokio::test(start_paused = true)]
async fn a_total_outage_makes_a_fifth_more_attempts_than_calls() {
    for fails in [refused, || io::Error::other("503")] {
        let registry = ScriptedRegistry::with(&named(3));
        let client = builder(&registry).build().await.unwrap();
        let attempts = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let mut calls = JoinSet::new();
        // 400 calls a second.
        for _ in 0..2_000 {
            let (client, attempts) = (client.clone(), Arc::clone(&attempts));
            calls.spawn(async move {
                let fail = async |_: Arc<Endpoint>| -> Answer {
                    attempts.fetch_add(1, Ordering::Relaxed);
                    Err(fails()).or_retry()
                };
                client.call(&ANY, fail).await.unwrap_err();
            });
            sleep(Duration::from_micros(2_500)).await;
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        let attempts = attempts.load(Ordering::Relaxed);
        assert!((2_200..=2_600).contains(&attempts), "{attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_only_instance_fails_no_call() {
    let registry = ScriptedRegistry::with(&named(1));
    let client = builder(&registry).build().await.unwrap();
    let down_until = Instant::now() + 3_000 * MS;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let client = client.clone();
        calls.spawn(async move {
            let call = async |_: Arc<Endpoint>| -> Answer {
                if Instant::now() < down_until {
                    return Err(refused()).or_retry();
                }
                Ok(())
            };
            client.call(&ANY, call).await.map(|()| Instant::now())
        });
        sleep(300 * MS).await;
    }
    for answered in calls.join_all().await {
        let late = answered.unwrap().duration_since(down_until);
        assert!(late <= 1_000 * MS, "{late:?} after the restart");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_between_two_lives_of_the_only_instance_fails_no_call() {
    let registry = ScriptedRegistry::with(&named(1));
    let client = builder(&registry).build().await.unwrap();
    registry.publish(&[]);
    settle().await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call(&ANY, async |_| -> Answer { Ok(()) }).await }
    });
    sleep(2_000 * MS).await;
    assert!(!call.is_finished());
    registry.publish(&named(1));
    assert!(timeout(MS, call).await.unwrap().unwrap().is_ok());
    assert_eq!(client.stats().refused_in_all(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_an_endpoint_for_as_long_as_it_is_told() {
    let registry = ScriptedRegistry::with(&[]);
    for (wait, took) in [(None, 5), (Some(0), 0), (Some(60), 20)] {
        let builder = builder(&registry);
        let builder = match wait {
            Some(seconds) => builder.with_endpoint_wait(Duration::from_secs(seconds)),
            None => builder,
        };
        let client = builder.build().await.unwrap();
        let start = Instant::now();
        let result = client.call(&ANY, async |_| -> Answer { Ok(()) }).await;
        let Err(CallError::NoEndpoint(error)) = result else {
            panic!("{result:?}");
        };
        assert_eq!(error.reason(), NoEndpointReason::NoneRegistered);
        assert_eq!(start.elapsed().as_secs(), took);
        assert_eq!(client.stats().refused_in_all(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_ends_the_pause_between_rounds() {
    let registry = ScriptedRegistry::with(&named(1));
    let client = builder(&registry).build().await.unwrap();
    let call = tokio::spawn({
        let client = client.clone();
        async move {
            let call = async |endpoint: Arc<Endpoint>| -> Answer {
                match endpoint.id().as_str() {
                    "000" => Err(refused()).or_retry(),
                    _ => Ok(()),
                }
            };
            client.call(&ANY, call).await
        }
    });
    // By then the pauses are between half a second and a second long.
    sleep(5_100 * MS).await;
    registry.publish(&named(2));
    assert!(timeout(MS, call).await.unwrap().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_subset_that_has_been_tried_is_tried_anew() {
    let registry = ScriptedRegistry::with(&named(9));
    let subset = RandomSubset::new(Random::new(), 2).unwrap();
    let builder = builder(&registry)
        .with_balancer(subset)
        .with_max_attempts(6);
    let client = builder.build().await.unwrap();
    let tried = Mutex::new(Vec::new());
    let fail = async |endpoint: Arc<Endpoint>| -> Answer {
        tried.lock().unwrap().push(endpoint.id().to_string());
        Err(io::Error::other("broken")).or_retry()
    };
    client.call(&ANY, fail).await.unwrap_err();
    let mut tried = tried.into_inner().unwrap();
    assert_eq!(tried.len(), 6);
    tried.sort_unstable();
    tried.dedup();
    assert_eq!(tried.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_attempt_is_one_whatever_it_meets() {
    let registry = ScriptedRegistry::with(&named(3));
    let client = builder(&registry)
        .with_max_attempts(1)
        .build()
        .await
        .unwrap();
    let attempts = AtomicU64::new(0);
    let fail = async |_: Arc<Endpoint>| -> Answer {
        attempts.fetch_add(1, Ordering::Relaxed);
        Err(refused()).or_unreachable()
    };
    client.call(&ANY, fail).await.unwrap_err();
    assert_eq!(attempts.into_inner(), 1);
}

#[tokio::test(start_paused = true)]
async fn retries_of_calls_are_not_counted_as_refused_picks() {
    let registry = ScriptedRegistry::with(&named(2));
    let client = builder(&registry).build().await.unwrap();
    let fail = async |_: Arc<Endpoint>| -> Answer { Err(io::Error::other("broken")).or_retry() };
    client.call(&ANY, fail).await.unwrap_err();
    assert_eq!(client.stats().refused_in_all(), 0);
    let all = client.endpoints();
    let none = PickRequest::new().with_excluded(&all);
    client.call(&none, fail).await.unwrap_err();
    assert_eq!(client.stats().refused(NoEndpointReason::AllExcluded), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_names_service_endpoint_and_cause() {
    let registry = ScriptedRegistry::with(&named(1));
    let client = builder(&registry)
        .with_max_attempts(2)
        .build()
        .await
        .unwrap();
    let text = async |attempt: fn(io::Error) -> Attempt<io::Error>| {
        let fail = async |_: Arc<Endpoint>| -> Answer { Err(attempt(io::Error::other("broken"))) };
        client.call(&ANY, fail).await.unwrap_err().to_string()
    };
    assert_eq!(
        text(Attempt::Retry).await,
        "the call of s at 000 (127.0.0.1:1) failed 2 times: broken"
    );
    assert_eq!(
        text(Attempt::Final).await,
        "the call of s at 000 (127.0.0.1:1) failed and must not be repeated: broken"
    );
}

#[tokio::test(start_paused = true)]
async fn a_budget_out_of_range_is_refused_before_anything_starts() {
    let registry = ScriptedRegistry::with(&named(1));
    let budget = RetryBudget::new().with_share(11.0);
    let error = builder(&registry)
        .with_retry_budget(budget)
        .build()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("retry_budget.share"), "{error}");
    assert_eq!(registry.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_every_call_makes_the_attempts_it_may() {
    let registry = ScriptedRegistry::with(&named(3));
    let client: Client = builder(&registry)
        .without_retry_budget()
        .build()
        .await
        .unwrap();
    let attempts = AtomicU64::new(0);
    for _ in 0..100 {
        let fail = async |_: Arc<Endpoint>| -> Answer {
            attempts.fetch_add(1, Ordering::Relaxed);
            Err(io::Error::other("broken")).or_retry()
        };
        client.call(&ANY, fail).await.unwrap_err();
    }
    assert_eq!(attempts.into_inner(), 300);
}
