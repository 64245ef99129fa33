//! A thousand clients that lose their server in one instant: in a test binary of its own, as they
//! take the whole machine for a moment.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::{
    Incarnation, Instance, Registration, RegistrationState, Registry, Snapshot, Watch,
};
use plimsoll_test_servers::probe::{PATIENCE, ready, state};
use plimsoll_test_servers::zk::{Server, available};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use support::harness::ROOT;

/// Clients, with a session each.
const CLIENTS: usize = 1_000;
/// So many of them serve and watch the same service.
const SERVICE: usize = 10;
/// The client library's longest pause between two attempts to connect, that between two lists, and
/// what a busy machine may add.
const LATEST: Duration = Duration::from_secs(4 + 2 + 9);
/// In which a crowd is counted.
const MOMENT: Duration = Duration::from_millis(250);

/// With the settings of a program that sets none.
///
/// Each waits for up to 2 s between two attempts, evenly distributed: about 230 of them are due in
/// the fullest 250 ms, and more than 400 with a probability below 10⁻²⁰. Where a list takes the server
/// longer than that spreads them, it is the server that does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_find_a_restarted_server_again_each_as_it_was() {
    if !available() {
        return;
    }
    let mut server = Server::start();
    let herd = Herd::gather(&server).await;
    let before = herd.lives().await;
    tokio::task::block_in_place(|| server.kill());
    let killed = Instant::now();
    let herd = herd.each(|s| !s.freshness().is_live()).await.0;
    sleep(Duration::from_secs(3).saturating_sub(killed.elapsed())).await;
    let returns = tokio::spawn(herd.each(is_whole));
    tokio::task::block_in_place(|| server.restart());
    let started = Instant::now();
    let (herd, mut returns) = returns.await.unwrap();
    returns.sort_unstable();
    let latest = returns[CLIENTS - 1].saturating_duration_since(started);
    let crowd = (0..CLIENTS).map(|first| {
        let end = returns[first] + MOMENT;
        returns.partition_point(|at| *at <= end) - first
    });
    let crowd = crowd.max().unwrap();
    println!("all back after {latest:?}, at most {crowd} of them within {MOMENT:?}");
    assert!(latest < LATEST, "{latest:?}");
    assert!(crowd <= CLIENTS * 2 / 5, "{crowd} within {MOMENT:?}");
    assert_eq!(herd.lives().await, before, "none had to begin anew");
}

fn is_whole(snapshot: &Snapshot) -> bool {
    let registered = snapshot
        .members()
        .iter()
        .filter(|m| m.standing().is_registered());
    snapshot.freshness().is_live() && registered.count() == SERVICE
}

struct Herd(Vec<Client>);

struct Client {
    _registry: ZkRegistry,
    registration: Registration,
    watch: Watch,
}

impl Client {
    async fn join(address: String, index: usize) -> Self {
        let registry = ZkRegistry::builder([address])
            .with_root(ROOT)
            .build()
            .unwrap();
        let service = format!("s{}", index / SERVICE);
        let instance = Instance::builder(&service, "10.0.0.7", 8080).with_id(format!("i{index}"));
        let registration = registry.register(instance.build().unwrap()).await.unwrap();
        ready(&registration).await;
        let watch = registry.watch(&service.parse().unwrap()).await.unwrap();
        Self {
            _registry: registry,
            registration,
            watch,
        }
    }
}

impl Herd {
    async fn gather(server: &Server) -> Self {
        let address = server.address().to_string();
        let joining = (0..CLIENTS).map(|index| Client::join(address.clone(), index));
        let clients = joining.collect::<JoinSet<_>>().join_all().await;
        Self(clients).each(is_whole).await.0
    }

    /// Waits until each sees what is `wanted`, and says since when.
    async fn each(self, wanted: fn(&Snapshot) -> bool) -> (Self, Vec<Instant>) {
        let waiting = self.0.into_iter().map(|mut client| async move {
            let seen = timeout(2 * PATIENCE, client.watch.wait_for(wanted)).await;
            seen.unwrap().unwrap();
            (client, Instant::now())
        });
        let seen = waiting.collect::<JoinSet<_>>().join_all().await;
        let (clients, times) = seen.into_iter().unzip();
        (Self(clients), times)
    }

    async fn lives(&self) -> BTreeMap<String, Option<Incarnation>> {
        let mut lives = BTreeMap::new();
        for Client { registration, .. } in &self.0 {
            state(registration, "Live", RegistrationState::is_live).await;
            let id = registration.instance().id().to_string();
            lives.insert(id, registration.state().incarnation());
        }
        lives
    }
}
