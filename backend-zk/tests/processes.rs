//! Providers and a consumer as processes of their own, which are killed, stopped, started twice, and
//! told the wrong time.

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
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::{Instance, RegistrationState, Registry, Snapshot, Weight};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, state};
use plimsoll_test_servers::zk::available;
use plimsoll_test_servers::{Mode, Process, WallClock};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use zookeeper_client::Stat;

use support::bench::Bench;
use support::harness::{SESSION, builder, identity, load, timing};

/// The server's tick.
const TICK: Duration = Duration::from_millis(200);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(2);

/// Where the process finds its server, and which id it is to register.
const ADDRESS: &str = "PLIMSOLL_PROVIDER_ADDRESS";
const ID: &str = "PLIMSOLL_PROVIDER_ID";
/// If it is there, the process is to be patient.
const PATIENT: &str = "PLIMSOLL_PROVIDER_PATIENT";
/// Of whom a test says that they are never disconnected, however slow the machine: they take nothing
/// for the end of a connection that is shorter than this, and nothing for that of a session.
const PATIENT_CONNECT: Duration = Duration::from_secs(7);
const PATIENT_SESSION: Duration = Duration::from_secs(12);

/// What is alive in each of so many runtimes as it ends.
const ALIVE: usize = 300;
const ENDINGS: usize = 10;

fn registry() -> ZkRegistry {
    let address = variable(ADDRESS).parse();
    let mut builder = builder(address.unwrap());
    if std::env::var_os(PATIENT).is_some() {
        builder = builder
            .with_session_timeout(PATIENT_SESSION)
            .with_connect_timeout(PATIENT_CONNECT)
            .with_timings(|timings| timings.call_timeout = PATIENT_CONNECT);
    }
    builder.build().unwrap()
}

fn variable(name: &str) -> String {
    std::env::var(name).expect("to be started by another test")
}

/// Started by the other tests as a process of its own, which they end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the other tests"]
async fn provider_process() {
    let instance = Instance::builder("orders", "10.0.0.9", 9090).with_id(variable(ID));
    let registry = registry();
    let registration = registry.register(instance.build().unwrap()).await.unwrap();
    let (mut states, mut time) = (registration.states(), WallTime::now());
    // Its load never stands still, so a write that it should not make is one that is seen.
    for load in 1_000_000.. {
        registration.load().set(load);
        if let Ok(state) = timeout(Duration::from_millis(20), states.next()).await {
            println!("state: {:?}", state.unwrap());
        }
        time.tell_of_jumps();
    }
}

/// The same, for one whose runtimes end with much that is alive and busy in them.
#[test]
#[ignore = "a process of the other tests"]
fn ending_process() {
    for round in 0..ENDINGS {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        let registry = registry();
        let alive = runtime.block_on(async {
            let mut registrations = Vec::new();
            for index in 0..ALIVE {
                let instance = Instance::builder("orders", "10.0.0.9", 9090);
                let instance = instance.with_id(format!("{round}-{index}"));
                registrations.push(registry.register(instance.build().unwrap()).await.unwrap());
            }
            for registration in &registrations {
                let is_live = RegistrationState::is_live;
                registration.states().wait_for(is_live).await.unwrap();
            }
            Arc::new(registrations)
        });
        for _ in 0..2 {
            let alive = Arc::clone(&alive);
            // Wakes all that is alive, from within: those are still run as others are dropped.
            runtime.spawn(async move {
                for weight in (1..=100).cycle() {
                    for registration in &*alive {
                        let instance = Instance::clone(&registration.instance());
                        let heavier = instance.with_weight(Weight::new(weight).unwrap());
                        let _refused_once_it_has_ended = registration.update(heavier);
                    }
                    yield_now().await;
                }
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        drop(runtime);
        println!("ended: {ALIVE}");
        drop((alive, registry));
    }
    println!("done: {ENDINGS}");
}

/// The same, for one that watches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the other tests"]
async fn consumer_process() {
    let registry = registry();
    let mut watch = registry.watch(&"orders".parse().unwrap()).await.unwrap();
    let (mut time, mut load) = (WallTime::now(), None);
    loop {
        if let Ok(snapshot) = timeout(Duration::from_millis(20), watch.next()).await {
            println!("view: {}", view(&snapshot.unwrap()));
        }
        let of_a = |s: Arc<Snapshot>| s.get("a").and_then(|m| m.load().get());
        let latest = watch.latest().and_then(of_a);
        if latest != load {
            load = latest;
            println!("load: {}", load.unwrap_or(0));
        }
        time.tell_of_jumps();
    }
}

/// All there is to a view but the loads.
fn view(snapshot: &Snapshot) -> String {
    let members = snapshot.members().iter().map(|m| {
        let standing = if m.standing().is_registered() {
            "registered"
        } else {
            "suspect"
        };
        format!("{} in {} {standing}, ", m.id(), m.incarnation())
    });
    let members: String = members.collect();
    format!("{members}live: {}", snapshot.freshness().is_live())
}

/// The wall clock, by the monotonic one.
struct WallTime {
    start: (SystemTime, Instant),
    ahead: i64,
}

impl WallTime {
    fn now() -> Self {
        Self {
            start: (SystemTime::now(), Instant::now()),
            ahead: 0,
        }
    }

    #[expect(
        clippy::print_stdout,
        reason = "what a process says to the test that started it"
    )]
    /// Says by how many minutes it is ahead of what it was in the beginning, if that has changed.
    fn tell_of_jumps(&mut self) {
        let expected = self.start.0 + self.start.1.elapsed();
        let now = SystemTime::now();
        let (sign, off) = match now.duration_since(expected) {
            Ok(ahead) => (1, ahead),
            Err(behind) => (-1, behind.duration()),
        };
        let ahead = sign * i64::try_from((off.as_secs() + 30) / 60).unwrap();
        if ahead != self.ahead {
            self.ahead = ahead;
            println!("ahead: {ahead} min");
        }
    }
}

/// A running process, and what it says.
struct Running {
    process: Process,
    log: PathBuf,
}

impl Running {
    fn provider(bench: &Bench, id: &str, name: &str) -> Self {
        let mut command = command("provider_process", bench);
        command.env(ID, id);
        Self::start(bench, name, &mut command)
    }

    fn patient_provider(bench: &Bench, id: &str, name: &str) -> Self {
        let mut command = command("provider_process", bench);
        command.env(ID, id).env(PATIENT, "");
        Self::start(bench, name, &mut command)
    }

    /// Whose wall clock is `clock`.
    fn provider_by(clock: &WallClock, bench: &Bench, id: &str) -> Self {
        let mut command = command("provider_process", bench);
        command.env(ID, id).env(PATIENT, "");
        command.envs(clock.environment());
        Self::start(bench, "provider", &mut command)
    }

    fn consumer_by(clock: &WallClock, bench: &Bench) -> Self {
        let mut command = command("consumer_process", bench);
        command.env(PATIENT, "").envs(clock.environment());
        Self::start(bench, "consumer", &mut command)
    }

    fn start(bench: &Bench, name: &str, command: &mut Command) -> Self {
        let log = bench.server.directory().join(name);
        let process = Process::spawn(command, &log);
        Self { process, log }
    }

    /// What it has said of `subject`, in its order.
    fn said(&self, subject: &str) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let whole = log.rsplit_once('\n').unwrap_or_default().0;
        let told = whole
            .lines()
            .filter_map(|line| line.strip_prefix(subject)?.strip_prefix(": "));
        told.map(str::to_owned).collect()
    }

    fn last_said(&self, subject: &str) -> Option<String> {
        self.said(subject).pop()
    }

    fn has_been(&self, state: &str) -> bool {
        self.times(state) > 0
    }

    /// How often it has come to this state.
    fn times(&self, state: &str) -> usize {
        let states = self.said("state");
        states.iter().filter(|said| said.starts_with(state)).count()
    }

    async fn comes_to(&self, state: &str) {
        let been = || async { self.has_been(state).then_some(()) };
        eventually(&format!("a process that is {state}"), been).await;
    }

    /// Waits until the last that it has said of `subject` is as `wanted`.
    async fn says(&self, subject: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually(&format!("a process with another {subject}"), || async {
            self.last_said(subject).filter(|said| wanted(said))
        })
        .await
    }

    fn load(&self) -> u64 {
        self.last_said("load")
            .map_or(0, |load| load.parse().unwrap())
    }
}

fn command(process: &str, bench: &Bench) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", process])
        .env(ADDRESS, bench.server.address().to_string());
    command
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
    let mut provider = Running::provider(&bench, "a", "provider");
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
    let provider = Running::provider(&bench, "a", "provider");
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
    let provider = Running::provider(&bench, "a", "provider");
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
    let mut first = Running::patient_provider(&bench, "a", "first");
    first.comes_to("Live").await;
    let owner = node(&bench, "the node", |_| true).await;
    let second = Running::patient_provider(&bench, "a", "second");
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
    let mut first = Running::provider(&bench, "a", "first");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_registration_and_no_view_changes_when_the_clocks_jump() {
    if !available() || !WallClock::available() {
        return;
    }
    let (bench, _other) = bench().await;
    let clocks = [WallClock::start(), WallClock::start()];
    let provider = Running::provider_by(&clocks[0], &bench, "a");
    provider.comes_to("Live").await;
    let node_before = node(&bench, "the node", |_| true).await;
    let consumer = Running::consumer_by(&clocks[1], &bench);
    consumer
        .says("view", |view| {
            view.contains("a in ") && view.contains("z in ")
        })
        .await;
    let before = (provider.said("state"), consumer.said("view"));
    // To the hour after and before, and against each other.
    for minutes in [[60, -60], [-60, 60]] {
        for (clock, minutes) in clocks.iter().zip(minutes) {
            clock.jump_to(60 * minutes);
        }
        for (process, minutes) in [&provider, &consumer].into_iter().zip(minutes) {
            process
                .says("ahead", |said| said == format!("{minutes} min"))
                .await;
        }
        let load = consumer.load();
        // Past the end of a lease that is renewed too late.
        let until = Instant::now() + PATIENT_SESSION + TICK + SLACK;
        while Instant::now() < until {
            let stat = bench.stat("a").await.map(|s| (s.czxid, s.ephemeral_owner));
            assert_eq!(stat, Some((node_before.czxid, node_before.ephemeral_owner)));
            sleep(Duration::from_millis(50)).await;
        }
        // In all that time the load has never stood still for longer than it may.
        let published = consumer.said("load").len();
        eventually("loads that go on", || async {
            (consumer.load() > load && consumer.said("load").len() > published).then_some(())
        })
        .await;
        assert_eq!((provider.said("state"), consumer.said("view")), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_suspect_stays_so_for_the_grace_however_the_clock_jumps() {
    if !available() || !WallClock::available() {
        return;
    }
    let (bench, _other) = bench().await;
    let clock = WallClock::start();
    let consumer = Running::consumer_by(&clock, &bench);
    consumer.says("view", |view| view.contains("z in ")).await;
    bench.proxy.set(Mode::End);
    // The last one of all is not believed to be gone.
    consumer.says("view", |view| view.contains("suspect")).await;
    let suspected = Instant::now();
    let before = consumer.said("view");
    let grace = timing().grace;
    for (minutes, until) in [(60, grace / 3), (-60, 2 * grace / 3)] {
        clock.jump_to(60 * minutes);
        consumer
            .says("ahead", |said| said == format!("{minutes} min"))
            .await;
        sleep(until.saturating_sub(suspected.elapsed())).await;
        assert_eq!(consumer.said("view"), before);
    }
    consumer.says("view", |view| !view.contains("z in ")).await;
    let took = suspected.elapsed();
    assert!(took < grace + SLACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_with_registrations_alive_ends_without_a_panic() {
    if !available() {
        return;
    }
    let bench = Bench::set().await;
    let mut command = command("ending_process", &bench);
    let running = Running::start(&bench, "ending", command.env(PATIENT, ""));
    running.says("done", |_| true).await;
    let log = fs::read_to_string(&running.log).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(running.said("ended").len(), ENDINGS);
}
