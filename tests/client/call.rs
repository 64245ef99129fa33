//! Retrying elsewhere.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::{
    Attempt, AttemptExt, CallError, Client, Endpoint, ManualClock, NoEndpointReason, PickRequest,
};

use crate::support::{ByKey, First, ScriptedRegistry, named, settle};
use crate::{ANY, client_of};

type Never = Result<(), Attempt<io::Error>>;

async fn client(members: usize, max_attempts: u32) -> Client {
    let registry = ScriptedRegistry::with(&named(members));
    client_of(&registry)
        .with_max_attempts(max_attempts)
        .without_retry_budget()
        .build()
        .await
        .unwrap()
}

fn broken() -> io::Error {
    io::Error::other("broken")
}

/// Runs a call whose every attempt may be repeated; returns where it went.
async fn tried(client: &Client, request: &PickRequest<'_>) -> (Vec<String>, u32) {
    let tried = Mutex::new(Vec::new());
    let result = client
        .call(request, async |endpoint: Arc<Endpoint>| -> Never {
            tried.lock().unwrap().push(endpoint.id().to_string());
            Err(broken()).or_retry()
        })
        .await;
    let Err(CallError::Exhausted { attempts, last, .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(last.to_string(), "broken");
    (tried.into_inner().unwrap(), attempts)
}

#[tokio::test(start_paused = true)]
async fn retries_go_elsewhere_each_time_and_never_exceed_the_bound() {
    for max_attempts in 1..=5 {
        let client = client(10, max_attempts).await;
        for _ in 0..50 {
            let (mut ids, attempts) = tried(&client, &ANY).await;
            assert_eq!((ids.len(), attempts), (max_attempts as usize, max_attempts));
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(
                ids.len(),
                max_attempts as usize,
                "an endpoint was tried twice"
            );
        }
        let failures: u64 = client.endpoints().iter().map(|e| e.failures()).sum();
        assert_eq!(failures, 50 * u64::from(max_attempts));
        assert!(client.endpoints().iter().all(|e| e.in_flight() == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn when_every_endpoint_has_been_tried_all_are_tried_anew() {
    let client = client(2, 4).await;
    let (mut ids, attempts) = tried(&client, &ANY).await;
    ids[..2].sort_unstable();
    ids[2..].sort_unstable();
    assert_eq!(
        (ids, attempts),
        (["000", "001", "000", "001"].map(str::to_owned).to_vec(), 4)
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_request_excludes_is_not_tried_in_any_attempt() {
    let client = client(4, 4).await;
    let endpoints = client.endpoints();
    let (mut ids, _) = tried(&client, &PickRequest::new().with_excluded(&endpoints[..2])).await;
    ids.sort_unstable();
    assert_eq!(ids, ["002", "002", "003", "003"]);
}

#[tokio::test(start_paused = true)]
async fn a_keyed_call_begins_where_its_key_leads_and_retries_elsewhere() {
    let registry = ScriptedRegistry::with(&named(4));
    let client = client_of(&registry)
        .with_balancer(ByKey::default())
        .build()
        .await
        .unwrap();
    let (ids, attempts) = tried(&client, &PickRequest::new().with_key(3)).await;
    assert_eq!((ids[0].as_str(), attempts), ("003", 3));
    assert!(ids[1..].iter().all(|id| id != "003"));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_succeeds_is_a_success() {
    let registry = ScriptedRegistry::with(&named(3));
    let clock = Arc::new(ManualClock::new());
    let builder = client_of(&registry).with_balancer(First::default());
    let client = builder
        .with_clock(Arc::clone(&clock) as _)
        .build()
        .await
        .unwrap();
    let answer = client
        .call(&ANY, async |endpoint: Arc<Endpoint>| {
            clock.advance(Duration::from_millis(5));
            if endpoint.id().as_str() == "000" {
                return Err(broken()).or_retry();
            }
            assert_eq!(endpoint.in_flight(), 1);
            Ok(endpoint.id().to_string())
        })
        .await
        .unwrap();
    let endpoints = client.endpoints();
    let served = endpoints
        .iter()
        .find(|e| e.id().as_str() == answer)
        .unwrap();
    assert_eq!(
        (served.successes(), served.failures(), served.in_flight()),
        (1, 0, 0)
    );
    assert_eq!(
        served.latency(),
        Some(Duration::from_millis(5)),
        "its own attempt alone"
    );
    assert_eq!((endpoints[0].failures(), endpoints[0].latency()), (1, None));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_not_marked_as_retryable_is_final() {
    let client = client(3, 3).await;
    let mut calls = 0;
    let result = client
        .call(&ANY, |_| {
            calls += 1;
            async {
                Err::<(), io::Error>(broken())?;
                Ok::<_, Attempt<io::Error>>(())
            }
        })
        .await;
    assert!(
        matches!(&result, Err(CallError::Final { error, .. }) if error.to_string() == "broken")
    );
    assert_eq!(calls, 1);
    let result = client
        .call(&ANY, async |_| -> Never { Err(broken()).or_final() })
        .await;
    assert!(matches!(result, Err(CallError::Final { .. })));
    assert_eq!(
        client.endpoints().iter().map(|e| e.failures()).sum::<u64>(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_without_endpoints_is_not_tried() {
    let client = client(0, 3).await;
    let result = client
        .call(&ANY, async |_| -> Never { unreachable!("there is none") })
        .await;
    let Err(CallError::NoEndpoint(error)) = result else {
        panic!("{result:?}")
    };
    assert_eq!(error.reason(), NoEndpointReason::NoneRegistered);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_counts_as_cancelled() {
    let client = client(1, 3).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .call(&ANY, async |_| -> Never { std::future::pending().await })
                .await
        }
    });
    settle().await;
    let endpoint = Arc::clone(&client.endpoints()[0]);
    assert_eq!(endpoint.in_flight(), 1);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(
        (
            endpoint.in_flight(),
            endpoint.cancelled(),
            endpoint.failures()
        ),
        (0, 1, 0)
    );
}
