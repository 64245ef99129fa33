//! What becomes of checks that somebody takes away, or that are refused.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_discovery_api::{Instance, Registration, RegistrationState, Registry, ServiceName};
use plimsoll_test_servers::Mode;
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{eventually, ids, life, live, new_life, state};
use tokio::task::block_in_place;
use tokio::time::sleep;

use support::fake::{Answer, Asked, Fake, passed_on};
use support::harness::{TTL, builder};
use support::operator::{get, put, service_id};

const PASS: &str = "/v1/agent/check/pass/";
const RENEW: &str = "/v1/session/renew/";

fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

fn instance() -> Instance {
    let builder = Instance::builder(service(), "10.0.0.7", 8080).with_id("a");
    builder.build().expect("an instance")
}

/// The status of the check of a registration, as its agent knows it.
fn status(server: &Server, registration: &Registration) -> Option<String> {
    let id = service_id(&service(), "a", life(registration));
    let checks = block_in_place(|| get(server, "/v1/agent/checks"));
    let status = checks[format!("service:{id}")]["Status"].as_str();
    status.map(str::to_owned)
}

fn count(asked: &[Asked], path: &str) -> usize {
    let so = asked.iter().filter(|asked| asked.target.starts_with(path));
    so.count()
}

fault! {
    /// A service without a check would stand for ever, whatever becomes of its owner.
    async fn a_check_that_an_operator_takes_away_is_registered_anew_and_lapses_with_its_owner(bench: Memory) {
        let registration = bench.live("a").await;
        let before = life(&registration);
        let id = service_id(&bench.service, "a", before);
        block_in_place(|| put(&bench.server, &format!("/v1/agent/check/deregister/service:{id}"), ""));
        assert_eq!(status(&bench.server, &registration), None);
        let removed = Instant::now();
        eventually("its check, passing", || async {
            status(&bench.server, &registration).filter(|status| status == "passing")
        })
        .await;
        assert!(removed.elapsed() < TTL, "{:?}", removed.elapsed());
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!(life(&registration), before, "nothing was lost");
        bench.proxy.set(Mode::End);
        bench.listed("nobody", |s| s.members().is_empty()).await;
    }
}

/// Whatever it is that makes the agent refuse, a service that it knows is told to it again with its
/// check, and goes on in its life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_that_is_refused_has_the_service_registered_anew_in_its_life() {
    if !available() {
        return;
    }
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let good = move |asked: &Asked| passed_on(agent, asked);
    let fake = Fake::start(good);
    let registry = builder(fake.address()).with_ttl(Duration::from_secs(3));
    let registry = registry.build().unwrap();
    let registration = live(&registry, instance()).await;
    let before = life(&registration);
    for answer in [
        Answer::new(400, "Bad request"),
        Answer::new(404, "Unknown check \"service:x\""),
        Answer::new(500, "CheckID \"service:x\" does not have associated TTL"),
        Answer::with(302, "Location: http://127.0.0.1:1/\r\n", ""),
        Answer::new(503, "<html>"),
    ] {
        let (given, first) = (answer.clone(), fake.asked().len());
        fake.set(move |asked| match asked.target.starts_with(PASS) {
            true => given.clone(),
            false => good(asked),
        });
        eventually("it to be registered anew, and passed", || async {
            let asked = fake.asked().split_off(first);
            let again = asked
                .iter()
                .position(|a| a.target.ends_with("service/register"))?;
            (count(&asked[again..], PASS) > 0).then_some(())
        })
        .await;
        fake.set(good);
        state(&registration, "Live", RegistrationState::is_live).await;
        eventually("its check, passing", || async {
            status(&server, &registration).filter(|status| status == "passing")
        })
        .await;
        assert_eq!(life(&registration), before, "{answer:?}");
    }
}

/// The servers answer nobody: they give no id to anybody either, and all that stands goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_are_passed_for_as_long_as_no_server_says_anything_of_the_session() {
    if !available() {
        return;
    }
    let (ttl, session_ttl) = (Duration::from_secs(6), Duration::from_secs(2));
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let fake = Fake::start(move |asked| passed_on(agent, asked));
    let registry = builder(fake.address())
        .with_ttl(ttl)
        .with_session_ttl(session_ttl);
    let registry = registry.build().unwrap();
    let registration = live(&registry, instance()).await;
    fake.set(move |asked| match asked.target.starts_with(RENEW) {
        true => Answer::new(500, "No cluster leader"),
        false => passed_on(agent, asked),
    });
    let id = service_id(&service(), "a", life(&registration));
    let until = Instant::now() + ttl * 2;
    let mut seen = 0;
    while Instant::now() < until {
        let checks = block_in_place(|| get(&server, "/v1/agent/checks"));
        assert_eq!(checks[format!("service:{id}")]["Status"], "passing");
        seen += 1;
        sleep(Duration::from_millis(50)).await;
    }
    assert!(seen > 10, "{seen} looks");
}

/// Whoever was held up until its check lapsed may have lost its id in the meantime: it asks before it
/// shows itself again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_lapsed_is_not_passed_before_the_session_is_known_to_live() {
    if !available() {
        return;
    }
    let (ttl, session_ttl) = (Duration::from_secs(1), Duration::from_secs(4));
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let good = move |asked: &Asked| passed_on(agent, asked);
    let fake = Fake::start(good);
    let registry = builder(fake.address())
        .with_ttl(ttl)
        .with_session_ttl(session_ttl);
    let registry = registry.build().unwrap();
    let registration = live(&registry, instance()).await;
    // The way to the agent is cut, for longer than the session is sure to last.
    fake.set(|_| Answer::raw(""));
    sleep(session_ttl + ttl).await;
    assert_eq!(status_of_any(&server), ["critical"]);
    // Now it is open again, but no server says what has become of the session.
    let first = fake.asked().len();
    let shut = Arc::new(AtomicBool::new(true));
    let is_shut = Arc::clone(&shut);
    fake.set(move |asked| {
        match asked.target.starts_with(RENEW) && is_shut.load(Ordering::Relaxed) {
            true => Answer::new(500, "No cluster leader"),
            false => good(asked),
        }
    });
    eventually("three renewals", || async {
        let asked = fake.asked().split_off(first);
        assert_eq!(count(&asked, PASS), 0, "{asked:?}");
        (count(&asked, RENEW) >= 3).then_some(())
    })
    .await;
    assert_eq!(status_of_any(&server), ["critical"]);
    shut.store(false, Ordering::Relaxed);
    state(&registration, "Live", RegistrationState::is_live).await;
    eventually("it in the list", || async {
        let listed = registry.list(&service()).await.ok()?;
        (ids(&listed) == ["a"]).then_some(())
    })
    .await;
}

/// Whoever was held up, and has lost its session, goes on in a new life alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_whose_session_is_gone_is_never_passed_again() {
    if !available() {
        return;
    }
    let (ttl, session_ttl) = (Duration::from_secs(1), Duration::from_secs(4));
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let good = move |asked: &Asked| passed_on(agent, asked);
    let fake = Fake::start(good);
    let registry = builder(fake.address())
        .with_ttl(ttl)
        .with_session_ttl(session_ttl);
    let registry = registry.build().unwrap();
    let registration = live(&registry, instance()).await;
    let before = life(&registration);
    fake.set(|_| Answer::raw(""));
    sleep(session_ttl + ttl).await;
    block_in_place(|| {
        let sessions = get(&server, "/v1/session/list");
        // It may have run out by now.
        if let Some(session) = sessions[0]["ID"].as_str() {
            put(&server, &format!("/v1/session/destroy/{session}"), "");
        }
    });
    let first = fake.asked().len();
    fake.set(good);
    new_life(&registration, &[before]).await;
    let old = format!("{before}");
    let asked = fake.asked().split_off(first);
    let passed = asked
        .iter()
        .filter(|a| a.target.starts_with(PASS) && a.target.contains(&old));
    assert_eq!(passed.count(), 0, "{asked:?}");
}

/// The status of every check of a service that the agent has.
fn status_of_any(server: &Server) -> Vec<String> {
    let checks = block_in_place(|| get(server, "/v1/agent/checks"));
    let checks = checks.as_object().expect("a map").values();
    let status = |check: &serde_json::Value| check["Status"].as_str().map(str::to_owned);
    checks.filter_map(status).collect()
}
