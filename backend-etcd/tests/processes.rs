//! Providers that are processes of their own, and are killed, paused, or meet each other.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{EventType, WatchOptions};
use plimsoll_test_servers::Process;
use plimsoll_test_servers::probe::{eventually, ids, load_of};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use support::harness::TTL;
use support::operator::{PREFIX, load};
use support::stage::{Stage, live, program};

/// What servers take to notice the end of a lease, and a busy machine to tell.
const NOTICE: Duration = Duration::from_millis(2_000);

/// The example `provider`, as an own process with the id `a`.
struct Provider {
    process: Process,
    log: PathBuf,
}

impl Provider {
    fn start(stage: &Stage, name: &str) -> Self {
        let log = stage.server.dir().join(name);
        let url = format!("{}&load_interval=100ms", stage.server.url(PREFIX));
        let mut command = Command::new(program());
        command.args([&url, stage.service.as_str(), "a"]);
        Self {
            process: Process::spawn(&mut command, &log),
            log,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn says(&self, word: &str) {
        eventually(word, || async { self.log().contains(word).then_some(()) }).await;
    }
}

/// Every write of the two keys of `a`, as (is it the identity, under which lease), oldest first.
struct Witness {
    writes: Arc<Mutex<Vec<(bool, i64)>>>,
    task: JoinHandle<()>,
}

impl Witness {
    async fn of(stage: &Stage) -> Self {
        let mut client = stage.operator.0.clone();
        let options = WatchOptions::new().with_prefix();
        let mut stream = client.watch(PREFIX, Some(options)).await.unwrap();
        let writes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&writes);
        let task = tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                let puts = message
                    .events()
                    .iter()
                    .filter(|e| e.event_type() == EventType::Put);
                let kvs = puts.filter_map(etcd_client::Event::kv).map(|kv| {
                    let is_identity = kv.key_str().is_ok_and(|key| key.contains("/services/"));
                    (is_identity, kv.lease())
                });
                seen.lock().unwrap().extend(kvs);
            }
        });
        Self { writes, task }
    }

    fn writes(&self) -> Vec<(bool, i64)> {
        self.writes.lock().unwrap().clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fault! {
    async fn a_killed_process_is_removed_when_its_lease_ends_and_its_successor_takes_the_id(stage: Stage) {
        let mut provider = Provider::start(&stage, "first");
        stage.listed("the instance with a load", |s| load_of(s, "a") > Some(3)).await;
        let before = stage.key("a").await.unwrap();
        provider.process.kill();
        let killed = Instant::now();
        // Its successor starts at once, with the same id.
        let successor = Provider::start(&stage, "second");
        successor.says("Conflict").await;
        eventually("the key to go", || async {
            let kv = stage.key("a").await;
            kv.is_none_or(|kv| kv.lease() != before.lease()).then_some(())
        })
        .await;
        assert!(killed.elapsed() < TTL + NOTICE, "{:?}", killed.elapsed());
        successor.says("Live").await;
        let after = stage.key("a").await.unwrap();
        assert!(after.create_revision() > before.create_revision());
        stage.listed("its own load", |s| load_of(s, "a") > Some(0)).await;
    }
}

fault! {
    /// It has slept through the end of its lease and does not know it.
    async fn a_process_paused_past_its_lease_writes_nothing_when_it_wakes(stage: Stage) {
        let sleeper = Provider::start(&stage, "sleeper");
        stage.listed("the instance", |s| ids(s) == ["a"]).await;
        let lease = stage.key("a").await.unwrap().lease();
        sleeper.process.pause();
        let paused = Instant::now();
        eventually("the key to go", || async { stage.key("a").await.is_none().then_some(()) }).await;
        assert!(paused.elapsed() < TTL + NOTICE, "{:?}", paused.elapsed());
        let heir = live(&stage.provider, "a").await;
        let own = stage.key("a").await.unwrap();
        let witness = Witness::of(&stage).await;
        sleeper.process.resume();
        sleeper.says("Conflict").await;
        // Time for whatever was on its way, and for several publications.
        sleep(TTL).await;
        let strangers: HashSet<_> = witness.writes().into_iter().map(|(_, lease)| lease).collect();
        let heirs = HashSet::from([stage.provider.lease_id().unwrap()]);
        assert!(strangers.is_subset(&heirs), "{strangers:x?} wrote, not only {heirs:x?}");
        let kv = stage.key("a").await.unwrap();
        assert_eq!((kv.create_revision(), kv.lease()), (own.create_revision(), own.lease()));
        let value = stage.operator.get(&load(&stage.service, "a")).await.unwrap();
        assert!(value.lease() == own.lease() && value.lease() != lease);
        assert!(heir.state().is_live());
        // When the heir leaves, it may have its id back.
        heir.deregister().await.unwrap();
        stage.listed("the sleeper", |s| ids(s) == ["a"]).await;
    }
}

fault! {
    async fn two_processes_with_one_id_do_not_take_it_from_each_other(stage: Stage) {
        let witness = Witness::of(&stage).await;
        let pair = [Provider::start(&stage, "first"), Provider::start(&stage, "second")];
        stage.listed("the instance", |s| ids(s) == ["a"]).await;
        sleep(TTL * 3).await;
        let owners = witness.writes().into_iter().filter(|(is_identity, _)| *is_identity);
        let mut owners: Vec<_> = owners.map(|(_, lease)| lease).collect();
        owners.dedup();
        assert_eq!(owners.len(), 1, "{owners:x?}");
        let logs = pair.each_ref().map(Provider::log);
        let told = logs.iter().filter(|log| log.contains("Conflict")).count();
        assert_eq!(told, 1, "{logs:?}");
    }
}
