//! Why nothing can be picked, and what cannot be built.

use std::error::Error as _;
use std::time::Duration;

use plimsoll::{
    Client, ClientBuilder, Constant, Error, ErrorKind, Health, HealthCheck, NoEndpointReason,
    PickRequest, Status,
};

use crate::support::{First, Mood, Moody, ScriptedRegistry, member, named, settle, with_status};
use crate::{ANY, client_of, picked};

fn refusal(client: &Client, request: &PickRequest<'_>) -> NoEndpointReason {
    let before = client.stats();
    let error = client.pick(request).map(drop).unwrap_err();
    let reason = error.reason();
    let local = client.local().pick(request).map(drop).unwrap_err();
    assert_eq!(local.reason(), reason, "both ways of picking agree");
    assert_eq!(client.stats().refused(reason), before.refused(reason) + 2);
    assert_eq!(client.stats().refused_in_all(), before.refused_in_all() + 2);
    assert_eq!(error.service().as_str(), "s");
    reason
}

#[tokio::test(start_paused = true)]
async fn before_the_first_answer_nothing_is_known() {
    let registry = ScriptedRegistry::new();
    let client = client_of(&registry).build().await.unwrap();
    settle().await;
    assert_eq!(refusal(&client, &ANY), NoEndpointReason::NotYetKnown);
    assert!(client.snapshot().is_none() && client.endpoints().is_empty());
}

#[cfg(feature = "memory")]
#[tokio::test(start_paused = true)]
async fn a_registry_that_never_answers_is_the_source_of_what_is_not_yet_known() {
    let registry = plimsoll::memory::MemoryRegistry::new();
    registry.faults().outage();
    let client = Client::builder(std::sync::Arc::new(registry.clone()), "s");
    let client = client.build().await.unwrap();
    settle().await;
    for error in [
        client.pick(&ANY).unwrap_err(),
        client.local().pick(&ANY).unwrap_err(),
        client
            .ready_within(Duration::from_secs(1))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.reason(), NoEndpointReason::NotYetKnown);
        let source = error.source().map(ToString::to_string).unwrap();
        assert_eq!(source, client.last_error().unwrap().to_string());
        assert!(source.contains("memory watch: unavailable"), "{source}");
    }
    registry.faults().restore();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(refusal(&client, &ANY), NoEndpointReason::NoneRegistered);
    assert!(client.last_error().is_none());
}

#[tokio::test(start_paused = true)]
async fn waiting_to_be_ready_ends_with_the_first_endpoint_or_the_limit() {
    let registry = ScriptedRegistry::with(&[]);
    let client = client_of(&registry).build().await.unwrap();
    let limit = Duration::from_secs(5);
    let refused = client.ready_within(limit).await.unwrap_err();
    assert_eq!(refused.reason(), NoEndpointReason::NoneRegistered);
    assert_eq!(client.stats().refused_in_all(), 0, "nothing was picked");
    let (ready, ()) = tokio::join!(client.ready_within(limit), async {
        tokio::time::sleep(limit / 2).await;
        registry.publish(&named(1));
    });
    assert!(ready.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_empty_service_has_none_registered() {
    let client = client_of(&ScriptedRegistry::with(&[]))
        .build()
        .await
        .unwrap();
    assert_eq!(refusal(&client, &ANY), NoEndpointReason::NoneRegistered);
}

#[tokio::test(start_paused = true)]
async fn members_that_want_no_traffic_are_all_unavailable() {
    let members = [
        with_status(&member("a"), Status::Draining),
        with_status(&member("b"), Status::OutOfService),
    ];
    let client = client_of(&ScriptedRegistry::with(&members))
        .build()
        .await
        .unwrap();
    assert_eq!(refusal(&client, &ANY), NoEndpointReason::AllUnavailable);
}

#[tokio::test(start_paused = true)]
async fn members_that_the_filter_refuses_are_all_filtered() {
    let registry = ScriptedRegistry::with(&named(2));
    let client = client_of(&registry)
        .with_filter(|_| false)
        .build()
        .await
        .unwrap();
    assert_eq!(refusal(&client, &ANY), NoEndpointReason::AllFiltered);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_fails_open_may_find_all_unhealthy() {
    let registry = ScriptedRegistry::with(&named(2));
    let check = HealthCheck::new(Constant::unhealthy()).with_fall(1);
    let client = client_of(&registry)
        .with_health(check)
        .with_fail_open_below(0.0)
        .build()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(
        client
            .endpoints()
            .iter()
            .all(|e| e.health() == Health::Unhealthy)
    );
    assert_eq!(refusal(&client, &ANY), NoEndpointReason::AllUnhealthy);
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_cannot_build_is_the_source_of_the_refusal() {
    let registry = ScriptedRegistry::with(&named(2));
    let balancer = Moody::default();
    balancer.set(Mood::Refuse);
    let client = client_of(&registry)
        .with_balancer(balancer.clone())
        .build()
        .await
        .unwrap();
    assert_eq!(refusal(&client, &ANY), NoEndpointReason::Unbalanceable);
    let error = client.pick(&ANY).map(drop).unwrap_err();
    assert!(
        error
            .source()
            .unwrap()
            .to_string()
            .contains("not in the mood")
    );

    balancer.set(Mood::PickNone);
    registry.publish(&named(3));
    settle().await;
    assert_eq!(refusal(&client, &ANY), NoEndpointReason::Unbalanceable);

    balancer.set(Mood::Good);
    registry.publish(&named(4));
    settle().await;
    assert_eq!(picked(&client), "000");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_excludes_all_is_refused_and_one_that_excludes_some_gets_another() {
    let registry = ScriptedRegistry::with(&named(8));
    let client = client_of(&registry).build().await.unwrap();
    let endpoints = client.endpoints();
    let all = PickRequest::new().with_excluded(&endpoints);
    assert_eq!(refusal(&client, &all), NoEndpointReason::AllExcluded);

    let all_but_one = PickRequest::new().with_excluded(&endpoints[1..]);
    for _ in 0..100 {
        let pick = client.pick(&all_but_one).unwrap();
        assert_eq!(pick.endpoint().id().as_str(), "000");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_becomes_the_common_error_and_keeps_its_reason() {
    let client = client_of(&ScriptedRegistry::with(&[]))
        .build()
        .await
        .unwrap();
    let error = Error::from(client.pick(&ANY).map(drop).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("none_registered"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn ready_waits_until_something_can_be_picked() {
    let registry = ScriptedRegistry::new();
    let client = client_of(&registry)
        .with_balancer(First::default())
        .build()
        .await
        .unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.ready().await }
    });
    registry.publish(&[]);
    settle().await;
    let member = member("a");
    registry.publish(&[with_status(&member, Status::OutOfService)]);
    settle().await;
    assert!(!waiting.is_finished());
    registry.publish(&[member]);
    let waited = tokio::time::timeout(Duration::from_secs(1), waiting).await;
    waited.expect("it is told").unwrap();
    assert_eq!(picked(&client), "a");
    client.ready().await;
}

#[tokio::test]
async fn each_bad_setting_is_refused_by_name_and_value_before_the_registry_is_asked() {
    let registry = ScriptedRegistry::new();
    let good = || Client::builder(registry.arc(), "s");
    let health = || HealthCheck::new(Constant::healthy());
    let checked = |check| good().with_health(check);
    let cases: [(&str, &str, ClientBuilder); 11] = [
        ("service", "", Client::builder(registry.arc(), "")),
        ("fail_open_below", "1.5", good().with_fail_open_below(1.5)),
        ("fail_open_below", "-0.1", good().with_fail_open_below(-0.1)),
        (
            "fail_open_below",
            "NaN",
            good().with_fail_open_below(f64::NAN),
        ),
        ("max_attempts", "0", good().with_max_attempts(0)),
        (
            "connect_timeout",
            "0s",
            good().with_connect_timeout(Duration::ZERO),
        ),
        (
            "health.interval",
            "0",
            checked(health().with_interval(Duration::ZERO)),
        ),
        (
            "health.timeout",
            "0",
            checked(health().with_timeout(Duration::ZERO)),
        ),
        ("health.rise", "0", checked(health().with_rise(0))),
        ("health.fall", "0", checked(health().with_fall(0))),
        (
            "health.max_concurrency",
            "0",
            checked(health().with_max_concurrency(0)),
        ),
    ];
    for (field, value, builder) in cases {
        let error = builder.build().await.unwrap_err();
        let expected = if field == "service" {
            ErrorKind::InvalidArgument
        } else {
            ErrorKind::InvalidConfig
        };
        assert_eq!(error.kind(), expected, "{field}");
        assert_eq!(error.context().next(), Some((field, value)));
    }
    assert_eq!(registry.watchers(), 0);
}
