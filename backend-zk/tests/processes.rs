//! Providers as processes of their own, which are killed, stopped, and started twice.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]
#![expect(
    clippy::future_not_send,
    reason = "a test's own future stays on its thread"
)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll_discovery_api::{Instance, LoadUpdater, RegistrationState, Registry, Snapshot};
use plimsoll_test_servers::Process;
use plimsoll_test_servers::zk::available;
use tokio::time::{sleep, timeout};
use zookeeper_client::Stat;

use support::bench::{Bench, PATIENCE, eventually, ids, state};
use support::harness::{SESSION, builder, identity, load};

/// The server's tick.
const TICK: Duration = Duration::from_millis(200);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(2);

/// Where the process finds its server, and which id it is to register.
const ADDRESS: &str = "PLIMSOLL_PROVIDER_ADDRESS";
const ID: &str = "PLIMSOLL_PROVIDER_ID";

/// Started by the other tests as a process of its own, which they end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the other tests"]
async fn provider_process() {
    let variable = |name| std::env::var(name).expect("to be started by another test");
    let address: SocketAddr = variable(ADDRESS).parse().unwrap();
    let registry = builder(address).build().unwrap();
    let instance = Instance::builder("orders", "10.0.0.9", 9090).with_id(variable(ID));
    let registration = registry.register(instance.build().unwrap()).await.unwrap();
    let mut states = registration.states();
    // Its load never stands still, so a write that it should not make is one that is seen.
    for load in 1_000_000.. {
        registration.load().set(load);
        if let Ok(state) = timeout(Duration::from_millis(20), states.next()).await {
            println!("state: {:?}", state.unwrap());
        }
    }
}

/// A running provider.
struct Provider {
    process: Process,
    log: PathBuf,
}

impl Provider {
    fn start(bench: &Bench, id: &str, name: &str) -> Self {
        let log = bench.server.directory().join(name);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "--nocapture", "provider_process"])
            .env(ADDRESS, bench.server.address().to_string())
            .env(ID, id);
        let process = Process::spawn(&mut command, &log);
        Self { process, log }
    }

    fn has_been(&self, state: &str) -> bool {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.contains(&format!("state: {state}"))
    }

    /// How often it has come to this state.
    fn times(&self, state: &str) -> usize {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.matches(&format!("state: {state}")).count()
    }

    async fn comes_to(&self, state: &str) {
        let been = || async { self.has_been(state).then_some(()) };
        eventually(&format!("a process that is {state}"), been).await;
    }
}

/// A bench with somebody else on it, so that nobody is ever the last.
async fn bench() -> (Bench, plimsoll_discovery_api::Registration) {
    let bench = Bench::set().await;
    let other = bench.live("z").await;
    (bench, other)
}

async fn node(bench: &Bench, what: &str, wanted: impl Fn(&Stat) -> bool) -> Stat {
    eventually(what, || async { bench.stat("a").await.filter(&wanted) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_removed_within_its_session_timeout_and_a_tick() {
    if !available() {
        return;
    }
    let (bench, _other) = bench().await;
    let mut provider = Provider::start(&bench, "a", "provider");
    node(&bench, "the node of a process", |_| true).await;
    let watch = bench.consumer.watch(&bench.service).await.unwrap();
    let shows = |wanted: &'static [&str]| {
        let watch = &watch;
        move || async move { watch.latest().filter(|s| ids(s) == wanted).map(drop) }
    };
    eventually("both", shows(&["a", "z"])).await;
    provider.process.kill();
    let killed = Instant::now();
    eventually("the one that is left", shows(&["z"])).await;
    let took = killed.elapsed();
    // It was last heard of up to a third of its timeout before.
    assert!(took > SESSION / 2, "{took:?}");
    assert!(took <= SESSION + TICK + SLACK, "{took:?}");
    println!("removed {took:?} after it was killed; its session timeout is {SESSION:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_stopped_past_its_session_writes_nothing_over_its_successor() {
    if !available() {
        return;
    }
    let (bench, _other) = bench().await;
    let provider = Provider::start(&bench, "a", "provider");
    provider.comes_to("Live").await;
    provider.process.pause();
    eventually("its node to go", || async {
        bench.stat("a").await.is_none().then_some(())
    })
    .await;
    let successor = bench.live("a").await;
    successor.load().set(7);
    successor.load().flush().await.unwrap();
    let stats = || async {
        let of_load = bench
            .operator
            .check_stat(&load(&bench.service, "a"))
            .await
            .unwrap();
        (bench.stat("a").await.unwrap(), of_load.unwrap())
    };
    let (identity_before, load_before) = stats().await;
    provider.process.resume();
    provider.comes_to("Conflict").await;
    let until = Instant::now() + SESSION;
    while Instant::now() < until {
        let (identity, load) = stats().await;
        assert_eq!(
            (identity.czxid, identity.mzxid),
            (identity_before.czxid, identity_before.mzxid)
        );
        assert_eq!(
            (load.czxid, load.ephemeral_owner),
            (load_before.czxid, load_before.ephemeral_owner)
        );
        let seven = bench
            .operator
            .get_data(&support::harness::load(&bench.service, "a"))
            .await
            .unwrap();
        assert_eq!(seven.0, b"7");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(successor.state().is_live());
    // It has not given up either.
    successor.deregister().await.unwrap();
    node(&bench, "the first again", |stat| {
        stat.czxid != identity_before.czxid
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_stopped_past_its_session_registers_anew_when_it_runs_again() {
    if !available() {
        return;
    }
    let (bench, _other) = bench().await;
    let provider = Provider::start(&bench, "a", "provider");
    provider.comes_to("Live").await;
    let before = node(&bench, "the node", |_| true).await;
    provider.process.pause();
    eventually("its node to go", || async {
        bench.stat("a").await.is_none().then_some(())
    })
    .await;
    provider.process.resume();
    let resumed = Instant::now();
    let after = node(&bench, "a node of another session", |stat| {
        stat.ephemeral_owner != before.ephemeral_owner
    });
    after.await;
    let took = resumed.elapsed();
    assert!(took <= SESSION + SLACK, "{took:?}");
    println!("registered {took:?} after it ran again");
    let loaded = |s: &Snapshot| {
        s.get("a")
            .and_then(|m| m.load().get())
            .is_some_and(|l| l > 1_000_000)
    };
    bench.listed("its load", loaded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_with_one_id_do_not_take_turns() {
    if !available() {
        return;
    }
    let (bench, _other) = bench().await;
    let mut first = Provider::start(&bench, "a", "first");
    first.comes_to("Live").await;
    let owner = node(&bench, "the node", |_| true).await;
    let second = Provider::start(&bench, "a", "second");
    second.comes_to("Conflict").await;
    let (mut changes, mut owned_by) = (0, owner.ephemeral_owner);
    let until = Instant::now() + 3 * SESSION;
    while Instant::now() < until {
        let now = bench
            .operator
            .check_stat(&identity(&bench.service, "a"))
            .await
            .unwrap();
        let now = now.map_or(0, |stat| stat.ephemeral_owner);
        changes += usize::from(now != owned_by);
        owned_by = now;
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        (changes, owned_by),
        (0, owner.ephemeral_owner),
        "changes of the owner"
    );
    assert!(!second.has_been("Live") && first.times("Live") == 1);
    first.process.kill();
    second.comes_to("Live").await;
    let heir = node(&bench, "the node of the second", |_| true).await;
    assert_ne!(heir.ephemeral_owner, owner.ephemeral_owner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_started_again_with_its_id_waits_for_its_former_session_and_then_lives() {
    if !available() {
        return;
    }
    let (bench, _other) = bench().await;
    let mut first = Provider::start(&bench, "a", "first");
    first.comes_to("Live").await;
    first.process.kill();
    let again = bench.provider.register(bench.instance("a")).await.unwrap();
    state(&again, "Live", RegistrationState::is_live).await;
    let life = again.state().incarnation();
    // Nothing of the first takes it away, and its load is that of the second.
    sleep(SESSION).await;
    let holds = |s: &Snapshot| {
        s.get("a")
            .is_some_and(|m| Some(m.incarnation()) == life && m.load().get() == Some(0))
    };
    timeout(PATIENCE, bench.listed("the second, idle", holds))
        .await
        .unwrap();
}
