//! What active health checks promise.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll::{
    Client, Health, HealthCheck, HealthChecker, Instance, Member, Outcome, PickRequest, TcpConnect,
};
use support::{First, Scripted, ScriptedRegistry, eventually, member, member_at, named};
use tokio::net::{TcpListener, TcpSocket};

const ANY: PickRequest<'static> = PickRequest::new();
/// The default; a check comes once in each 9 to 11 s after the first.
const INTERVAL: Duration = Duration::from_secs(10);

fn check(checker: &Scripted) -> HealthCheck {
    HealthCheck::new(checker.clone())
}

async fn client(members: &[Member], check: HealthCheck) -> (Client, ScriptedRegistry) {
    let registry = ScriptedRegistry::with(members);
    let client = Client::builder(registry.arc(), "s")
        .with_seed(1)
        .with_balancer(First::default())
        .with_health(check)
        .build()
        .await
        .unwrap();
    (client, registry)
}

/// Lets `checks` further checks of `id` end.
async fn after(checks: usize, checker: &Scripted, id: &str) {
    let wanted = checker.checks(id).len() + checks;
    while checker.checks(id).len() < wanted {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    support::settle().await;
}

fn first_picked(client: &Client) -> String {
    client.pick(&ANY).unwrap().endpoint().id().to_string()
}

#[tokio::test(start_paused = true)]
async fn the_unhealthy_leave_the_picker_but_not_the_snapshot_and_return_after_rise() {
    let checker = Scripted::default();
    let (client, _registry) = client(&named(3), check(&checker)).await;
    client.pick(&ANY).unwrap().finish(Outcome::Success);
    checker.fail("000");
    after(2, &checker, "000").await;
    assert_eq!(first_picked(&client), "000", "two failures are no verdict");
    after(1, &checker, "000").await;
    assert_eq!(first_picked(&client), "001", "three are");
    assert_eq!(client.snapshot().unwrap().members().len(), 3);
    let sick = Arc::clone(&client.endpoints()[0]);
    assert_eq!((sick.health(), sick.successes()), (Health::Unhealthy, 1));
    assert_eq!(client.stats().eligible, 2);

    checker.mend("000");
    after(1, &checker, "000").await;
    assert_eq!(first_picked(&client), "001", "one success ends nothing");
    after(1, &checker, "000").await;
    assert_eq!(first_picked(&client), "000");
    assert_eq!(sick.health(), Health::Healthy);
    assert!(
        Arc::ptr_eq(&sick, &client.endpoints()[0]),
        "statistics survived"
    );
}

#[tokio::test(start_paused = true)]
async fn too_few_healthy_ones_are_not_left_alone_with_the_load() {
    let checker = Scripted::default();
    let (client, _registry) = client(&named(4), check(&checker).with_fall(1)).await;
    checker.fail("000");
    checker.fail("001");
    tokio::time::sleep(INTERVAL * 2).await;
    assert_eq!(
        (client.stats().eligible, client.stats().failing_open),
        (2, false)
    );
    checker.fail("002");
    tokio::time::sleep(INTERVAL * 2).await;
    assert_eq!(
        (client.stats().eligible, client.stats().failing_open),
        (4, true)
    );
    checker.mend("001");
    tokio::time::sleep(INTERVAL * 3).await;
    assert_eq!(
        (client.stats().eligible, client.stats().failing_open),
        (2, false)
    );
    assert_eq!(first_picked(&client), "001");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_has_failed_when_its_time_is_up() {
    let checker = Scripted::default();
    checker.hang("000");
    let settings = check(&checker)
        .with_timeout(Duration::from_secs(2))
        .with_fall(2);
    let (client, _registry) = client(&named(2), settings).await;
    after(2, &checker, "000").await;
    assert_eq!(client.endpoints()[0].health(), Health::Unknown);
    tokio::time::sleep(Duration::from_millis(2_001)).await;
    assert_eq!(client.endpoints()[0].health(), Health::Unhealthy);
    assert_eq!(checker.running(), 0, "it was dropped");
    let [first, second] = checker.checks("000")[..] else {
        panic!("two checks")
    };
    let pause = second - first - Duration::from_secs(2);
    assert!(
        (INTERVAL.mul_f64(0.9)..INTERVAL.mul_f64(1.11)).contains(&pause),
        "{pause:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_checker_that_panics_has_failed_and_is_asked_again() {
    let checker = Scripted::default();
    checker.panic("000");
    let (client, _registry) = client(&named(2), check(&checker)).await;
    after(3, &checker, "000").await;
    assert_eq!(client.endpoints()[0].health(), Health::Unhealthy);
    checker.mend("000");
    after(2, &checker, "000").await;
    assert_eq!(client.endpoints()[0].health(), Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn checks_are_spread_over_the_interval_and_vary_by_a_tenth() {
    let checker = Scripted::default();
    let (_client, _registry) = client(&named(100), check(&checker)).await;
    let start = tokio::time::Instant::now();
    tokio::time::sleep(INTERVAL * 20).await;
    let mut pauses = HashSet::new();
    let mut tenths = [0; 10];
    for member in named(100) {
        let checks = checker.checks(member.id().as_str());
        assert!((18..=23).contains(&checks.len()), "{}", checks.len());
        tenths[usize::try_from((checks[0] - start).as_secs()).unwrap()] += 1;
        for pause in checks.windows(2).map(|pair| pair[1] - pair[0]) {
            let bounds = INTERVAL.mul_f64(0.9)..=INTERVAL.mul_f64(1.1) + Duration::from_millis(1);
            assert!(bounds.contains(&pause), "{pause:?}");
            pauses.insert(pause);
        }
    }
    // Multinomial, n = 100 over 10: one tenth is empty with p < 10 * 0.9^100 < 3e-4; seeded.
    assert!(tenths.iter().all(|count| *count > 0), "{tenths:?}");
    assert!(pauses.len() > 500, "{} different pauses", pauses.len());
}

#[tokio::test(start_paused = true)]
async fn no_more_checks_run_at_once_than_allowed_and_waiting_is_not_failing() {
    let checker = Scripted::default();
    checker.take(Duration::from_millis(900));
    let settings = check(&checker).with_max_concurrency(3);
    let (client, _registry) = client(&named(30), settings).await;
    tokio::time::sleep(INTERVAL * 10).await;
    assert_eq!(checker.most_running(), 3);
    assert!(
        client
            .endpoints()
            .iter()
            .all(|e| e.health() == Health::Healthy)
    );
}

#[tokio::test(start_paused = true)]
async fn members_that_left_are_not_checked_any_more_and_new_ones_are() {
    let checker = Scripted::default();
    let members = named(3);
    let (client, registry) = client(&members, check(&checker)).await;
    tokio::time::sleep(INTERVAL * 3).await;
    registry.publish(&[members[0].clone(), member("new")]);
    support::settle().await;
    let before = checker.checks("001").len();
    tokio::time::sleep(INTERVAL * 3).await;
    assert_eq!(checker.checks("001").len(), before);
    assert!(checker.checks("new").len() >= 2);
    assert!(before >= 2, "it was checked while it was there");
    drop(client);
    support::no_tasks_left().await;
}

#[tokio::test(start_paused = true)]
async fn first_successes_rebuild_nothing() {
    let checker = Scripted::default();
    let (client, _registry) = client(&named(50), check(&checker)).await;
    support::settle().await;
    let before = client.stats().rebuilds;
    tokio::time::sleep(INTERVAL * 4).await;
    assert!(
        client
            .endpoints()
            .iter()
            .all(|e| e.health() == Health::Healthy)
    );
    assert_eq!(client.stats().rebuilds, before);
}

#[tokio::test(start_paused = true)]
async fn the_balancer_is_told_of_a_verdict_even_while_all_may_be_picked() {
    let checker = Scripted::default();
    let balancer = First::default();
    let registry = ScriptedRegistry::with(&named(2));
    let client = Client::builder(registry.arc(), "s")
        .with_balancer(balancer.clone())
        .with_health(check(&checker))
        .with_fail_open_below(1.0)
        .build()
        .await
        .unwrap();
    support::settle().await;
    let before = balancer.built.load(Ordering::SeqCst);
    checker.fail("000");
    after(3, &checker, "000").await;
    assert_eq!(
        (client.stats().eligible, client.stats().failing_open),
        (2, true)
    );
    assert_eq!(balancer.built.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn a_connection_tells_who_listens_from_who_does_not() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let at = |port| Instance::builder("s", "127.0.0.1", port).build().unwrap();
    let checker = TcpConnect::new();
    let limit = Duration::from_secs(30);
    for (port, listens) in [(listener.local_addr(), true), (silent.local_addr(), false)] {
        let checked = checker.check(&at(port.unwrap().port()), limit).await;
        assert_eq!(checked.is_ok(), listens);
    }
}

#[tokio::test]
async fn a_server_that_stops_listening_is_found_out_and_welcomed_back() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let steady = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let steady_port = steady.local_addr().unwrap().port();
    let members = [member_at("a", address.port()), member_at("b", steady_port)];
    let settings = HealthCheck::new(TcpConnect::new()).with_interval(Duration::from_millis(20));
    let (client, _registry) = client(&members, settings).await;
    let health = || {
        client
            .endpoints()
            .iter()
            .map(|e| e.health())
            .collect::<Vec<_>>()
    };
    eventually("both are healthy", || health() == [Health::Healthy; 2]).await;
    drop(listener);
    eventually("it is found out", || {
        health() == [Health::Unhealthy, Health::Healthy]
    })
    .await;
    eventually("it is not picked", || first_picked(&client) == "b").await;
    let _again = TcpListener::bind(address).await.unwrap();
    eventually("it is welcomed back", || first_picked(&client) == "a").await;
}
