//! What holds while an ensemble of three loses servers and gets them back.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]
#![expect(
    clippy::future_not_send,
    reason = "a test's own future stays on its thread"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::{
    ErrorKind, Incarnation, Instance, Registration, RegistrationState, Registry, ServiceName,
    Snapshot, Watch,
};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, ready, state};
use plimsoll_test_servers::zk::{Ensemble, available};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use support::harness::{SESSION, builder_for};

const FLEET: [&str; 5] = ["a", "b", "c", "d", "e"];

/// An ensemble, a fleet that is registered in it, and somebody who watches.
struct Scene {
    ensemble: Ensemble,
    consumer: ZkRegistry,
    provider: ZkRegistry,
    fleet: Vec<Registration>,
    lives: Vec<Option<Incarnation>>,
    service: ServiceName,
    watch: Watch,
}

impl Scene {
    async fn set() -> Self {
        let ensemble = tokio::task::block_in_place(Ensemble::start);
        let handle = || {
            let members = ensemble.members().iter();
            builder_for(members.map(|server| server.address().to_string()))
                .build()
                .unwrap()
        };
        let (provider, consumer) = (handle(), handle());
        let service: ServiceName = "orders".parse().unwrap();
        let mut fleet = Vec::new();
        for id in FLEET {
            let instance = Instance::builder(&service, "10.0.0.7", 8080).with_id(id);
            let registration = provider.register(instance.build().unwrap()).await.unwrap();
            ready(&registration).await;
            fleet.push(registration);
        }
        let watch = consumer.watch(&service).await.unwrap();
        let scene = Self {
            lives: fleet.iter().map(|r| r.state().incarnation()).collect(),
            ensemble,
            consumer,
            provider,
            fleet,
            service,
            watch,
        };
        scene.sees("everybody", whole).await;
        scene
    }

    /// Waits until the watch shows what is `wanted`.
    async fn sees(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) {
        let latest = || async { self.watch.latest().filter(|s| wanted(s)).map(drop) };
        eventually(what, latest).await;
    }

    /// Everybody is live again, in the life from before, and what they carry now is seen by
    /// whoever follows and by whoever asks.
    async fn is_whole_again(&self, load: u64) {
        for registration in &self.fleet {
            state(registration, "Live", RegistrationState::is_live).await;
        }
        let lives: Vec<_> = self.fleet.iter().map(|r| r.state().incarnation()).collect();
        assert_eq!(lives, self.lives);
        let loaded = |s: &Snapshot| {
            let carries = |m: &plimsoll_discovery_api::Member| m.load().get() == Some(load);
            whole(s) && s.freshness().is_live() && s.members().iter().all(carries)
        };
        self.sees("everybody with the load of now", loaded).await;
        eventually("the same in a list", || async {
            let list = self.consumer.list(&self.service).await.ok()?;
            loaded(&list).then_some(())
        })
        .await;
    }

    fn carry(&self, load: u64) {
        self.fleet
            .iter()
            .for_each(|registration| registration.load().set(load));
    }
}

fn whole(snapshot: &Snapshot) -> bool {
    let registered = |m: &plimsoll_discovery_api::Member| m.standing().is_registered();
    ids(snapshot) == FLEET && snapshot.members().iter().all(registered)
}

/// Looks at everything that a watch shows until it is told to stop, and says what was not whole.
struct Witness {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Option<String>>,
}

impl Witness {
    async fn of(scene: &Scene) -> Self {
        let mut watch = scene.consumer.watch(&scene.service).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let next = timeout(Duration::from_millis(50), watch.next()).await;
                if let Ok(Some(snapshot)) = next
                    && !whole(&snapshot)
                {
                    return Some(format!("{snapshot:?}"));
                }
            }
            None
        });
        Self { stop, task }
    }

    async fn saw_nobody_missing(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(self.task.await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_that_loses_its_leader_loses_nobody_and_no_load() {
    if !available() {
        return;
    }
    let mut scene = Scene::set().await;
    let witness = Witness::of(&scene).await;
    for load in [7, 8] {
        let leader = scene.ensemble.leader().unwrap();
        scene.ensemble.kill(leader);
        scene.carry(load);
        eventually("another leader", || async { scene.ensemble.leader() }).await;
        scene.is_whole_again(load).await;
        tokio::task::block_in_place(|| scene.ensemble.heal());
    }
    witness.saw_nobody_missing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_without_a_quorum_empties_no_list_and_heals() {
    if !available() {
        return;
    }
    let mut scene = Scene::set().await;
    let witness = Witness::of(&scene).await;
    let leader = scene.ensemble.leader().unwrap();
    scene.ensemble.kill(leader);
    scene.ensemble.kill((leader + 1) % 3);
    let lost = Instant::now();
    scene.carry(9);
    scene
        .sees("that nothing is known any more", |s| {
            !s.freshness().is_live()
        })
        .await;
    let unread = scene.consumer.list(&scene.service).await.unwrap_err();
    assert_eq!(unread.kind(), ErrorKind::Unavailable, "{unread}");
    for registration in &scene.fleet {
        state(registration, "not Live", |state| !state.is_live()).await;
    }
    // Whoever comes meanwhile waits.
    let late = Instance::builder(&scene.service, "10.0.0.8", 8080).with_id("late");
    let late = scene
        .provider
        .register(late.build().unwrap())
        .await
        .unwrap();
    // Longer than any session would have lasted, had there been anybody to end it.
    tokio::time::sleep((SESSION + SESSION).saturating_sub(lost.elapsed())).await;
    assert!(!late.state().is_live());
    // Where no session could be had no claim was sent, and there is nothing to remove; otherwise
    // nobody can say so yet.
    let _confirmed_or_not = late.deregister().await;
    drop(late);
    tokio::task::block_in_place(|| scene.ensemble.heal());
    scene.is_whole_again(9).await;
    witness.saw_nobody_missing().await;
}

/// Which own no ephemeral node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_sessions_that_are_not_upgraded_are_told_with_what_to_change() {
    if !available() {
        return;
    }
    for (upgrades, is_told) in [(false, true), (true, false)] {
        let settings =
            format!("localSessionsEnabled=true\nlocalSessionsUpgradingEnabled={upgrades}\n");
        let ensemble = tokio::task::block_in_place(|| Ensemble::start_with(&settings));
        let members = ensemble.members().iter();
        let handle = builder_for(members.map(|server| server.address().to_string()));
        let handle = handle.build().unwrap();
        let instance = Instance::builder("orders", "10.0.0.7", 8080).with_id("a");
        let registration = handle.register(instance.build().unwrap()).await.unwrap();
        let told = timeout(PATIENCE, registration.ready()).await;
        let told = told.unwrap_or_else(|_| panic!("{upgrades}: {:?}", registration.state()));
        if !is_told {
            assert!(told.is_ok(), "{told:?}");
            continue;
        }
        let told = told.unwrap_err();
        assert_eq!(told.kind(), ErrorKind::InvalidConfig, "{told}");
        let change = "localSessionsUpgradingEnabled=true";
        assert!(told.to_string().contains(change), "{told}");
        // Who only looks is served.
        handle
            .list(registration.instance().service())
            .await
            .unwrap();
    }
}
