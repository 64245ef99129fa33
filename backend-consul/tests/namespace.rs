//! Namespaces, which Consul Enterprise has and the server of these tests has not.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll_discovery_api::{ErrorKind, Registry};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, load_of, ready};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use support::counter::Counter;
use support::fake::{Asked, Fake, relayed};
use support::harness::builder;

fault! {
    async fn a_server_without_namespaces_refuses_one_by_name_and_nothing_is_done_elsewhere(bench: Memory) {
        let counter = Counter::start(bench.server.address());
        let registry = builder(counter.address()).with_namespace("team").build().unwrap();
        let watch = registry.watch(&bench.service).await.unwrap();
        let registration = registry.register(bench.instance("a")).await.unwrap();
        let refused = timeout(PATIENCE, registration.ready()).await.unwrap().unwrap_err();
        let listed = registry.list(&bench.service).await.unwrap_err();
        let named = registry.services().await.unwrap_err();
        for error in [&refused, &listed, &named] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("Namespaces are a Consul Enterprise feature"), "{error}");
        }
        // Not hotly, not silently in the default namespace.
        let before = counter.lines().len();
        sleep(Duration::from_secs(4)).await;
        let asked = counter.lines().split_off(before);
        assert!((2..=16).contains(&asked.len()), "{asked:?}");
        assert!(counter.lines().iter().all(|line| line.contains("ns=team")), "{:?}", counter.lines());
        assert_eq!(counter.count("/v1/txn"), 0, "{:?}", counter.lines());
        assert!(watch.latest().is_none());
        assert_eq!(bench.services(), 0);
        drop(registration);
    }
}

/// What is asked of an agent that has the namespace `team`: every request names it behind its path,
/// every operation of a transaction, where Consul looks for it, in its body.
fn is_of_the_team(asked: &Asked) -> bool {
    let operations = match asked.target.starts_with("/v1/txn") {
        true => serde_json::from_str(&asked.body).expect("JSON"),
        false => Vec::<Value>::new(),
    };
    let placed = |operation: &Value| {
        [&operation["KV"], &operation["Check"]["Check"]]
            .iter()
            .any(|part| part["Namespace"] == "team")
    };
    asked.query("ns") == Some("team") && operations.iter().all(placed)
}

/// The same for an agent without namespaces.
fn without_the_team(asked: &Asked) -> (String, String) {
    let target = asked.target.replace("&ns=team", "").replace("?ns=team", "");
    (target, asked.body.replace(r#","Namespace":"team""#, ""))
}

fault! {
    /// The agent behind takes away what it would not understand, and does the rest.
    async fn every_request_and_every_operation_names_the_namespace(bench: Memory) {
        let astray = Arc::new(AtomicBool::new(false));
        let (agent, found) = (bench.server.address(), Arc::clone(&astray));
        let fake = Fake::start(move |asked| {
            if !is_of_the_team(asked) {
                found.store(true, Ordering::Relaxed);
            }
            let (target, body) = without_the_team(asked);
            relayed(agent, asked, &target, &body)
        });
        let registry = builder(fake.address()).with_namespace("team").build().unwrap();
        let watch = registry.watch(&bench.service).await.unwrap();
        let registration = registry.register(bench.instance("a")).await.unwrap();
        ready(&registration).await;
        registration.load().set(7);
        registration.load().flush().await.unwrap();
        eventually("it in the watch, with its load", || async {
            watch.latest().filter(|s| load_of(s, "a") == Some(7)).map(drop)
        })
        .await;
        assert_eq!(ids(&registry.list(&bench.service).await.unwrap()), ["a"]);
        assert!(registry.services().await.unwrap().contains(&bench.service));
        // Its former life is removed, and what its session held.
        let owned = bench.owned("a").unwrap();
        let before = plimsoll_test_servers::probe::life(&registration);
        let path = format!("/v1/session/destroy/{}", owned.session);
        tokio::task::block_in_place(|| support::operator::put(&bench.server, &path, ""));
        plimsoll_test_servers::probe::new_life(&registration, &[before]).await;
        registration.deregister().await.unwrap();
        drop((registration, watch, registry));
        let endpoints = [
            "PUT /v1/session/create", "PUT /v1/session/renew/", "PUT /v1/session/destroy/",
            "PUT /v1/txn", "GET /v1/kv/", "GET /v1/health/service/", "GET /v1/catalog/services",
            "PUT /v1/agent/service/register", "PUT /v1/agent/service/deregister/",
            "PUT /v1/agent/check/pass/",
        ];
        for endpoint in endpoints {
            let (method, path) = endpoint.split_once(' ').unwrap();
            eventually(endpoint, || async {
                let asked = fake.asked();
                asked.iter().any(|asked| asked.method == method && asked.target.starts_with(path)).then_some(())
            })
            .await;
        }
        let without: Vec<_> = fake.asked().into_iter().filter(|asked| !is_of_the_team(asked)).collect();
        assert!(without.is_empty() && !astray.load(Ordering::Relaxed), "{without:?}");
    }
}
