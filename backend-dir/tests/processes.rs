//! Providers that are processes of their own, and are killed, stopped, or meet each other.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::env;
use std::future::pending;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll_discovery_api::conformance::Harness;
use plimsoll_discovery_api::{Instance, RegistrationState, Registry, ServiceName};
use plimsoll_test_servers::Process;
use plimsoll_test_servers::probe::{eventually, ids, listed, live, load_of, shown};
use tokio::time::sleep;

use support::{DirHarness, builder};

const PATH: &str = "PLIMSOLL_TEST_DIR";
const ID: &str = "PLIMSOLL_TEST_ID";

fn instance(id: &str) -> Instance {
    let instance = Instance::builder("orders", "10.0.0.7", 8080).with_id(id);
    instance.build().unwrap()
}

fn service() -> ServiceName {
    "orders".parse().unwrap()
}

#[tokio::test]
#[ignore = "a process of the tests below"]
async fn provider_process() {
    let (path, id) = (env::var(PATH).unwrap(), env::var(ID).unwrap());
    let registry = builder(Path::new(&path)).build().unwrap();
    let registration = registry.register(instance(&id)).await.unwrap();
    registration.load().set(u64::from(std::process::id()));
    pending::<()>().await;
}

/// A process that has registered `id`, or tries to.
fn provider(harness: &DirHarness, id: &str) -> Process {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "provider_process", "--ignored", "--nocapture"])
        .env(PATH, harness.path("", ""))
        .env(ID, id);
    Process::spawn(&mut command, &harness.path("..", &format!("log-{id}")))
}

/// A registry of this process in which `staying` is registered, so that nobody who dies is the last.
macro_rules! stage {
    ($harness:ident, $registry:ident, $watch:ident) => {
        let $harness = DirHarness::new(false, false);
        let $registry = $harness.registry().await;
        let _staying = live(&$registry, instance("staying")).await;
        let mut $watch = $registry.watch(&service()).await.unwrap();
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_gone_within_2_seconds_for_watchers_in_another() {
    stage!(harness, registry, watch);
    for _ in 0..3 {
        let mut provider = provider(&harness, "a");
        shown(&mut watch, "both", |s| ids(s) == ["a", "staying"]).await;
        let is_its_own = |s: &_| load_of(s, "a") == Some(u64::from(provider.id()));
        listed(&registry, &service(), "its load", is_its_own).await;
        let killed = Instant::now();
        provider.kill();
        shown(&mut watch, "the other alone", |s| ids(s) == ["staying"]).await;
        let bound = registry.capabilities().crash_detection.unwrap();
        assert!(killed.elapsed() < bound, "{:?}", killed.elapsed());
        assert_eq!(bound, Duration::from_secs(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_of_a_killed_process_is_free_at_once() {
    stage!(harness, registry, watch);
    let mut provider = provider(&harness, "a");
    shown(&mut watch, "both", |s| ids(s) == ["a", "staying"]).await;
    provider.kill();
    let heir = registry.register(instance("a")).await.unwrap();
    let mut states = heir.states();
    let first = states.wait_for(|state| !matches!(state, RegistrationState::Pending { .. }));
    let first = first.await.unwrap();
    assert!(first.is_live(), "refused by a dead owner: {first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_is_not_dead_until_it_is_killed() {
    stage!(harness, registry, watch);
    let mut provider = provider(&harness, "a");
    shown(&mut watch, "both", |s| ids(s) == ["a", "staying"]).await;
    let life = harness.life(&service(), "a");
    provider.pause();
    let rival = registry.register(instance("a")).await.unwrap();
    let refused = rival.ready().await.unwrap_err();
    assert_eq!(refused.kind(), plimsoll_discovery_api::ErrorKind::Conflict);
    // Longer than its lease would have lasted, if there were one.
    sleep(Duration::from_secs(4)).await;
    let both = |s: &plimsoll_discovery_api::Snapshot| ids(s) == ["a", "staying"];
    assert!(both(&registry.list(&service()).await.unwrap()));
    assert!(both(&watch.latest().unwrap()));
    assert_eq!(harness.life(&service(), "a"), life);
    provider.kill();
    let is_live = RegistrationState::is_live;
    eventually("the rival", || async {
        is_live(&rival.state()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_processes_that_claim_one_id_one_has_it_and_keeps_it() {
    stage!(harness, registry, watch);
    let mut rivals: Vec<_> = (0..4).map(|_| provider(&harness, "a")).collect();
    shown(&mut watch, "one of them", |s| ids(s) == ["a", "staying"]).await;
    let owner = |s: &plimsoll_discovery_api::Snapshot| load_of(s, "a").filter(|pid| *pid > 0);
    let first = eventually("its load", || async {
        owner(&registry.list(&service()).await.ok()?)
    });
    let (first, life) = (first.await, harness.life(&service(), "a"));
    // Each of them tries again some four times meanwhile.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(harness.life(&service(), "a"), life);
    assert_eq!(
        owner(&registry.list(&service()).await.unwrap()),
        Some(first)
    );
    let position = rivals
        .iter()
        .position(|rival| u64::from(rival.id()) == first);
    rivals.remove(position.unwrap()).kill();
    let another = |s: &_| owner(s).is_some_and(|pid| pid != first);
    listed(&registry, &service(), "a successor", another).await;
}
