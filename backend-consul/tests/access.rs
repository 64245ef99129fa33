//! Tokens, and what a handle asks for at rest.

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_consul::ConsulRegistry;
use plimsoll_discovery_api::{ErrorKind, Instance, LoadUpdater, Registry};
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, live, load_of, ready};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use support::counter::Counter;
use support::harness::{ROOT, builder};
use support::operator::put;

const MASTER: &str = "11111111-2222-3333-4444-555555555555";
const ACLS: &str = r#"acl { enabled = true default_policy = "deny" enable_key_list_policy = true
    tokens { master = "11111111-2222-3333-4444-555555555555" agent = "11111111-2222-3333-4444-555555555555" } }"#;

fn guarded() -> Server {
    block_in_place(|| Server::start_with(Data::Memory, ACLS, Some(MASTER)))
}

fn instance(id: &str) -> Instance {
    Instance::builder("orders", "10.0.0.7", 8080)
        .with_id(id)
        .build()
        .expect("an instance")
}

/// A token that may do what these rules say.
fn token(server: &Server, rules: &str) -> String {
    block_in_place(|| {
        let rules = rules.replace('"', "\\\"");
        put(
            server,
            "/v1/acl/policy",
            &format!(r#"{{"Name":"p","Rules":"{rules}"}}"#),
        );
        let token = put(server, "/v1/acl/token", r#"{"Policies":[{"Name":"p"}]}"#);
        let token: serde_json::Value = serde_json::from_str(&token).expect("JSON");
        token["SecretID"].as_str().expect("a token").to_owned()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_and_a_wrong_token_are_told_so_and_tried_no_more_than_once_a_second() {
    if !available() {
        return;
    }
    let server = guarded();
    for token in [None, Some("99999999-8888-7777-6666-555555555555")] {
        let counter = Counter::start(server.address());
        let builder = builder(counter.address());
        let stranger = match token {
            Some(token) => builder.with_token(token),
            None => builder,
        };
        let stranger = stranger.build().unwrap();
        let registration = stranger.register(instance("a")).await.unwrap();
        let refused = timeout(PATIENCE, registration.ready())
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused}");
        if let Some(token) = token {
            let listed = stranger
                .list(registration.instance().service())
                .await
                .unwrap_err();
            assert_eq!(listed.kind(), ErrorKind::Unauthenticated, "{listed}");
            let _watch = stranger
                .watch(registration.instance().service())
                .await
                .unwrap();
            let shown = format!(
                "{refused:?} {listed:?} {stranger:?} {:?}",
                registration.state()
            );
            assert!(!shown.contains(token), "{shown}");
            sleep(Duration::from_secs(1)).await;
            let attempts = counter.count("/v1/session/create");
            let queries = counter.count("/v1/health/service/");
            sleep(Duration::from_secs(5)).await;
            let attempts = counter.count("/v1/session/create") - attempts;
            let queries = counter.count("/v1/health/service/") - queries;
            assert!(
                (1..=6).contains(&attempts),
                "{attempts} attempts to register in 5 s"
            );
            assert!(
                (1..=6).contains(&queries),
                "{queries} attempts to follow in 5 s"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_documented_rights_is_enough_and_its_loss_is_told() {
    if !available() {
        return;
    }
    let server = guarded();
    let rules = format!(
        r#"service "orders" {{ policy = "write" }} session_prefix "" {{ policy = "write" }}
            key_prefix "{ROOT}/" {{ policy = "write" }} node_prefix "" {{ policy = "read" }}"#
    )
    .replace('\n', " ");
    let secret = token(&server, &rules);
    let registry = builder(server.address())
        .with_token(&secret)
        .build()
        .unwrap();
    let registration = live(&registry, instance("a")).await;
    registration.load().set(9);
    registration.load().flush().await.unwrap();
    let service = registration.instance().service().clone();
    let listed = registry.list(&service).await.unwrap();
    assert_eq!((ids(&listed), load_of(&listed, "a")), (vec!["a"], Some(9)));
    let watch = registry.watch(&service).await.unwrap();
    eventually("it in the watch", || async {
        watch.latest().filter(|s| ids(s) == ["a"])
    })
    .await;

    let elsewhere = Instance::builder("payments", "10.0.0.7", 1)
        .build()
        .unwrap();
    let refused = registry.register(elsewhere).await.unwrap();
    let refused = timeout(PATIENCE, refused.ready())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");

    let token: serde_json::Value = {
        let (_, body) = block_in_place(|| server.call("GET", "/v1/acl/tokens", ""));
        serde_json::from_str(&body).unwrap()
    };
    let accessor = token
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["Policies"][0]["Name"] == "p")
        .unwrap();
    let accessor = accessor["AccessorID"].as_str().unwrap();
    block_in_place(|| server.call("DELETE", &format!("/v1/acl/token/{accessor}"), ""));
    plimsoll_test_servers::probe::state(&registration, "not Live", |state| !state.is_live()).await;
    let cause = registration
        .state()
        .cause()
        .map(plimsoll_discovery_api::Error::kind);
    assert!(
        matches!(
            cause,
            Some(
                ErrorKind::Unauthenticated | ErrorKind::PermissionDenied | ErrorKind::LeaseExpired
            )
        ),
        "{:?}",
        registration.state()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_registrations_at_rest_cost_a_pass_each_and_one_renewal_per_half_ttl() {
    const FLEET: usize = 100;
    /// The defaults of a watch.
    const WAIT: Duration = Duration::from_secs(10);
    const POLL: Duration = Duration::from_secs(3);
    const TTL: Duration = Duration::from_secs(10);
    if !available() {
        return;
    }
    let server = block_in_place(|| Server::start(Data::Memory));
    let counter = Counter::start(server.address());
    let registry = ConsulRegistry::builder(counter.address().to_string())
        .with_ttl(TTL)
        .with_session_ttl(TTL)
        .build()
        .unwrap();
    let mut fleet = Vec::new();
    for index in 0..FLEET {
        fleet.push(
            registry
                .register(instance(&format!("i{index:03}")))
                .await
                .unwrap(),
        );
    }
    for registration in &fleet {
        ready(registration).await;
    }
    // And somebody who follows them, loads and all.
    let mut watch = registry.watch(fleet[0].instance().service()).await.unwrap();
    let followed = watch.wait_for(|s| s.members().len() == FLEET);
    timeout(PATIENCE, followed).await.unwrap().unwrap();
    // The beat that aligns them, and the first of their rhythm.
    sleep(TTL / 2).await;
    let (passes, renewals, all) = (
        counter.count("/v1/agent/check/pass/"),
        counter.count("/v1/session/renew/"),
        counter.lines().len(),
    );
    let (queries, polls) = (counter.count("index="), counter.count("recurse"));
    let started = Instant::now();
    sleep(TTL * 2).await;
    let beats = started.elapsed().as_secs_f64() / (TTL.as_secs_f64() / 2.0);
    let passes = counter.count("/v1/agent/check/pass/") - passes;
    let renewals = counter.count("/v1/session/renew/") - renewals;
    let (queries, polls) = (
        counter.count("index=") - queries,
        counter.count("recurse") - polls,
    );
    let others = counter.lines().len() - all - passes - renewals - queries - polls;
    println!(
        "{passes} passes, {renewals} renewals, {queries} queries, {polls} polls, {others} others in {beats:.1} half TTLs"
    );
    let within = |span: Duration| started.elapsed().as_secs_f64() / span.as_secs_f64();
    assert!(
        (queries as f64) <= within(WAIT) + 1.0 && queries > 0,
        "{queries} queries"
    );
    assert!(
        (polls as f64) <= within(POLL) + 1.0 && polls > 0,
        "{polls} polls"
    );
    // A beat comes up to a tenth early, and the count may begin just before one.
    let most = (beats / 0.9).ceil() + 1.0;
    let least = beats.floor() - 1.0;
    assert!(
        (renewals as f64) <= most && (renewals as f64) >= least,
        "{renewals} renewals"
    );
    assert!((passes as f64) <= most * FLEET as f64, "{passes} passes");
    assert!((passes as f64) >= least * FLEET as f64, "{passes} passes");
    assert_eq!(others, 0, "{:?}", counter.lines().split_off(all));
    for registration in &fleet {
        assert!(registration.state().is_live());
    }
}

/// Each of them asks at a pace of its own whether it still stands, and all of them through one
/// session and one beat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_registrations_in_an_outage_ask_no_more_often_than_one() {
    const FLEET: usize = 100;
    const TTL: Duration = Duration::from_secs(6);
    if !available() {
        return;
    }
    let mut server = block_in_place(|| Server::start(Data::Disk));
    let counter = Counter::start(server.address());
    let registry = ConsulRegistry::builder(counter.address().to_string())
        .with_ttl(TTL)
        .with_session_ttl(TTL)
        .build()
        .unwrap();
    let mut fleet = Vec::new();
    for index in 0..FLEET {
        let registration = registry.register(instance(&format!("i{index:03}"))).await;
        fleet.push(registration.unwrap());
    }
    for registration in &fleet {
        ready(registration).await;
    }
    block_in_place(|| server.kill());
    let lost =
        |registration: &plimsoll_discovery_api::Registration| !registration.state().is_live();
    eventually("all of them to know", || async {
        fleet.iter().all(lost).then_some(())
    })
    .await;
    let (mut attempts, mut most) = (0, 0);
    for _ in 0..15 {
        let before = counter.arrived();
        sleep(Duration::from_secs(1)).await;
        attempts += counter.arrived() - before;
        most = most.max(counter.arrived() - before);
    }
    println!("{attempts} connections in 15 s, {most} in one of them");
    // A beat that fails makes nine: eight passes abreast, and the renewal.
    assert!(attempts >= 10, "{attempts} attempts are none");
    assert!(
        attempts <= 15 * 30 && most <= 100,
        "{attempts} attempts in 15 s, {most} in one"
    );
    block_in_place(|| server.restart());
    for registration in &fleet {
        plimsoll_test_servers::probe::state(registration, "Live", |state| state.is_live()).await;
    }
}
