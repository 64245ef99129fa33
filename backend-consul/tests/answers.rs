//! What is made of answers that are not what was asked for, whoever gives them.

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use plimsoll_discovery_api::{ErrorKind, Instance, Registry, ServiceName};
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, live, shown, state};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use support::fake::{Answer, Fake, passed_on, relayed};
use support::harness::builder;

fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

const PAGE: &str = "<html><head><title>Sign in</title></head><body>hunter2</body></html>";

/// Each answer, and what it means to who reads a list.
fn table() -> Vec<(Answer, ErrorKind)> {
    use ErrorKind as K;
    let whole = |status, body| Answer::new(status, body);
    let to = |status| {
        Answer::with(
            status,
            "Location: http://127.0.0.1:1/v1/health/service/orders\r\n",
            "",
        )
    };
    vec![
        // No agent at all, though it says that all is well.
        (whole(200, PAGE), K::Corrupt),
        (Answer::at(7, PAGE), K::Corrupt),
        (Answer::at(7, ""), K::Corrupt),
        (Answer::at(7, "[{"), K::Corrupt),
        (Answer::at(7, r#"{"an":"object"}"#), K::Corrupt),
        (Answer::at(7, "[7]]"), K::Corrupt),
        (
            Answer::with(200, "X-Consul-Index: many\r\n", "[]"),
            K::Corrupt,
        ),
        (
            Answer::with(200, "X-Consul-Index: -1\r\n", "[]"),
            K::Corrupt,
        ),
        (whole(204, ""), K::Corrupt),
        // Cut short: by its length, within a chunk, in the head, and before the first byte.
        (
            Answer::raw("HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 500\r\n\r\n[]"),
            K::Unavailable,
        ),
        (
            Answer::raw(
                "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[{",
            ),
            K::Unavailable,
        ),
        (
            Answer::raw("HTTP/1.1 200 OK\r\nX-Consul-Ind"),
            K::Unavailable,
        ),
        (Answer::raw(""), K::Unavailable),
        (Answer::raw("SSH-2.0-OpenSSH_9.6\r\n"), K::Unavailable),
        // Sent elsewhere: nobody goes there.
        (to(301), K::InvalidConfig),
        (to(302), K::InvalidConfig),
        (to(307), K::InvalidConfig),
        (to(308), K::InvalidConfig),
        (
            whole(400, "Bad request: Invalid query parameter"),
            K::InvalidArgument,
        ),
        (
            whole(
                400,
                "Bad request: Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature",
            ),
            K::Unsupported,
        ),
        (whole(401, "ACL support disabled"), K::Unauthenticated),
        (whole(403, "Permission denied"), K::PermissionDenied),
        (whole(403, "ACL not found"), K::Unauthenticated),
        (whole(403, PAGE), K::PermissionDenied),
        (whole(403, ""), K::PermissionDenied),
        (whole(404, ""), K::NotFound),
        (whole(404, PAGE), K::NotFound),
        (whole(405, "method PUT not allowed"), K::Unsupported),
        (whole(408, ""), K::TimedOut),
        (whole(409, ""), K::Unavailable),
        (
            whole(413, "Request body too large, max size: 524288 bytes"),
            K::InvalidArgument,
        ),
        (
            whole(429, "Your IP is issuing too many concurrent connections"),
            K::ResourceExhausted,
        ),
        (whole(500, "No cluster leader"), K::Unavailable),
        (
            whole(500, "Raft leader not found in server lookup mapping"),
            K::Unavailable,
        ),
        (whole(500, "No known Consul servers"), K::Unavailable),
        (whole(500, "No path to datacenter"), K::InvalidConfig),
        (whole(500, "rpc error making call: EOF"), K::Unavailable),
        (
            whole(500, "rpc error making call: ACL not found"),
            K::Unauthenticated,
        ),
        (
            whole(
                500,
                "rpc error making call: rpc error making call: Permission denied",
            ),
            K::PermissionDenied,
        ),
        (
            whole(500, "CheckID \"service:x\" does not have associated TTL"),
            K::Unavailable,
        ),
        (whole(500, "Unknown check \"service:x\""), K::Unavailable),
        (whole(500, ""), K::Unavailable),
        (whole(501, ""), K::Unsupported),
        (whole(502, PAGE), K::Unavailable),
        (whole(503, PAGE), K::Unavailable),
        (whole(504, PAGE), K::TimedOut),
        (whole(520, ""), K::Unexpected),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_the_error_that_was_meant_for_it_and_shows_no_secret() {
    let fake = Fake::start(|_| Answer::new(500, ""));
    let registry = builder(fake.address())
        .with_token("hunter2")
        .build()
        .unwrap();
    for (answer, meant) in table() {
        let (given, expected) = (
            answer.clone(),
            String::from_utf8_lossy(&answer.0).into_owned(),
        );
        fake.set(move |_| given.clone());
        let error = timeout(PATIENCE, registry.list(&service()))
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), meant, "{expected}\n{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(error.backend(), Some("consul"), "{error}");
    }
}

/// All that is asked of an agent for a registration, one after the other, answered as one that is in
/// trouble would; then the trouble is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_registration_is_answered_with_it_is_live_once_the_answers_are_good() {
    if !available() {
        return;
    }
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let paths = [
        "/v1/session/create",
        "/v1/session/renew",
        "/v1/txn",
        "/v1/agent/service/register",
        "/v1/agent/check/pass",
        "/v1/health/service",
    ];
    let answers = [
        Answer::new(200, PAGE),
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
        Answer::raw(""),
        Answer::with(302, "Location: http://127.0.0.1:1/\r\n", ""),
        Answer::new(404, PAGE),
        Answer::new(429, "Your IP is issuing too many concurrent connections"),
        Answer::new(500, "No cluster leader"),
        Answer::new(503, PAGE),
    ];
    let fake = Fake::start(move |asked| passed_on(agent, asked));
    for (number, path) in paths.into_iter().enumerate() {
        for answer in answers.iter().skip(number % 2).step_by(2) {
            let (given, before) = (answer.clone(), fake.asked().len());
            fake.set(move |asked| match asked.target.starts_with(path) {
                true => given.clone(),
                false => passed_on(agent, asked),
            });
            // A handle of its own has a session of its own.
            let registry = builder(fake.address()).build().unwrap();
            let instance = Instance::builder(service(), "10.0.0.7", 8080);
            let registration = registry
                .register(instance.with_id("a").build().unwrap())
                .await
                .unwrap();
            eventually("it to be answered so, twice", || async {
                let asked = fake.asked().split_off(before);
                let so = asked
                    .iter()
                    .filter(|asked| asked.target.starts_with(path))
                    .count();
                (so >= 2).then_some(())
            })
            .await;
            assert!(
                !registration.state().is_live(),
                "{path}: {:?}",
                registration.state()
            );
            fake.set(move |asked| passed_on(agent, asked));
            state(&registration, "Live", |state| state.is_live()).await;
            registration.deregister().await.unwrap();
        }
    }
    let left = block_in_place(|| support::operator::agent_services(&server));
    assert!(left.is_empty(), "{left:?}");
}

/// An agent grants so many connections to one address, and closes the others with a word of why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_grants_no_more_connections_is_told_so_and_used_again_when_it_does() {
    const GRANTED: usize = 6;
    if !available() {
        return;
    }
    let settings = format!("limits {{ http_max_conns_per_client = {GRANTED} }}\n");
    let server = block_in_place(|| Server::start_with(Data::Memory, &settings, None));
    let registry = builder(server.address()).build().unwrap();
    let instance = Instance::builder(service(), "10.0.0.7", 8080).with_id("a");
    let registration = live(&registry, instance.build().unwrap()).await;
    // Somebody else on this machine takes them all, and as soon as one is free, that too.
    let others = block_in_place(|| hoard(&server, GRANTED * 2));
    let late = builder(server.address()).build().unwrap();
    let refused = eventually("a refusal", || async { late.list(&service()).await.err() }).await;
    assert!(
        matches!(
            refused.kind(),
            ErrorKind::ResourceExhausted | ErrorKind::Unavailable
        ),
        "{refused}"
    );
    assert!(refused.is_retryable());
    drop(others);
    eventually("it in the list", || async {
        late.list(&service())
            .await
            .ok()
            .filter(|s| ids(s) == ["a"])
            .map(drop)
    })
    .await;
    state(&registration, "Live", |state| state.is_live()).await;
    sleep(Duration::from_millis(100)).await;
}

/// Open connections, at least one of which was refused.
fn hoard(server: &Server, most: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..most {
        let stream = TcpStream::connect(server.address()).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("a timeout");
        let refused = (&stream).read(&mut [0; 64]).is_ok();
        streams.push(stream);
        if refused {
            return streams;
        }
    }
    panic!("{most} connections were granted");
}

/// As reverse proxies do with what is silent for as long as they were told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_cut_off_on_their_way_cost_no_list_and_the_agents_end_is_noticed() {
    const CUT: &str = "1500ms";
    if !available() {
        return;
    }
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let gateway = Fake::start(move |asked| {
        let Some(wait) = asked.query("wait").filter(|wait| *wait > CUT) else {
            return passed_on(agent, asked);
        };
        let cut = asked.target.replace(wait, CUT);
        let answer = relayed(agent, asked, &cut, &asked.body);
        let same = format!(
            "X-Consul-Index: {}\r\n",
            asked.query("index").unwrap_or_default()
        );
        if String::from_utf8_lossy(&answer.0).contains(&same) {
            return Answer::new(504, "upstream request timeout");
        }
        answer
    });
    let registry = builder(agent).build().unwrap();
    let _first = live(&registry, instance("a")).await;
    let consumer = builder(gateway.address())
        .with_load_poll(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut watch = consumer.watch(&service()).await.unwrap();
    shown(&mut watch, "the member", |s| {
        s.freshness().is_live() && ids(s) == ["a"]
    })
    .await;
    let lists = || {
        let asked = gateway.asked().into_iter();
        let health = asked.filter(|asked| asked.target.contains("/v1/health/service/"));
        health
            .filter(|asked| asked.query("index").is_none())
            .count()
    };
    let stale = watch.wait_for(|s| !s.freshness().is_live());
    let stale = timeout(Duration::from_secs(9), stale).await;
    assert!(stale.is_err(), "stale in between: {:?}", gateway.asked());
    assert_eq!(lists(), 1);
    let asked = gateway.asked();
    let waits: Vec<_> = asked
        .iter()
        .filter_map(|asked| asked.query("wait"))
        .collect();
    assert!(waits.last().is_some_and(|wait| *wait < CUT), "{waits:?}");
    let _second = live(&registry, instance("b")).await;
    shown(&mut watch, "both", |s| {
        s.freshness().is_live() && ids(s) == ["a", "b"]
    })
    .await;
    assert_eq!(lists(), 1);
    gateway.set(|_| Answer::new(502, "bad gateway"));
    shown(&mut watch, "a stale list", |s| {
        !s.freshness().is_live() && ids(s) == ["a", "b"]
    })
    .await;
}

fn instance(id: &str) -> Instance {
    let builder = Instance::builder(service(), "10.0.0.7", 8080).with_id(id);
    builder.build().expect("an instance")
}
