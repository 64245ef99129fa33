//! An agent that is not a server: what it has accepted the servers need not know.

mod support;

use std::time::{Duration, Instant};

use plimsoll_discovery_api::{RegistrationState, Registry, ServiceName};
use plimsoll_test_servers::consul::{Cluster as ServerCluster, Data, Server, available};
use plimsoll_test_servers::probe::{eventually, ids, life, live, new_life, ready, state};
use tokio::task::block_in_place;
use tokio::time::sleep;

use support::harness::builder;

struct Cluster {
    servers: Server,
    client: Server,
    service: ServiceName,
}

impl Cluster {
    fn start() -> Self {
        block_in_place(|| {
            let servers = Server::start(Data::Disk);
            let client = Server::start_client(&servers);
            let service = "orders".parse().expect("a name");
            Self {
                servers,
                client,
                service,
            }
        })
    }

    fn instance(&self, id: &str) -> plimsoll_discovery_api::Instance {
        let builder = plimsoll_discovery_api::Instance::builder(&self.service, "10.0.0.7", 8080);
        builder.with_id(id).build().expect("an instance")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_accepts_without_its_servers_is_pending_until_they_are_back() {
    if !available() {
        return;
    }
    let mut cluster = Cluster::start();
    let provider = builder(cluster.client.address()).build().unwrap();
    let standing = live(&provider, cluster.instance("standing")).await;
    block_in_place(|| cluster.servers.kill());
    let registration = provider.register(cluster.instance("new")).await.unwrap();
    state(&registration, "a cause", |state| state.cause().is_some()).await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert!(
            matches!(registration.state(), RegistrationState::Pending { .. }),
            "{:?}",
            registration.state()
        );
        sleep(Duration::from_millis(50)).await;
    }
    block_in_place(|| cluster.servers.restart());
    ready(&registration).await;
    // A server that comes back without having met the client's node again takes it out of the catalog,
    // and its session with it: then this is another life.
    state(&standing, "Live", RegistrationState::is_live).await;
    eventually("both, in their present lives", || async {
        let listed = provider.list(&cluster.service).await.ok()?;
        let present = |r: &plimsoll_discovery_api::Registration| {
            listed
                .get(r.instance().id().as_str())
                .map(|m| m.incarnation())
                == r.state().incarnation()
        };
        (ids(&listed) == ["new", "standing"] && present(&registration) && present(&standing))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_forgot_its_services_is_told_again_and_no_watcher_sees_them_all_gone() {
    if !available() {
        return;
    }
    let mut cluster = Cluster::start();
    let provider = builder(cluster.client.address()).build().unwrap();
    let consumer = builder(cluster.servers.address()).build().unwrap();
    let mut fleet = Vec::new();
    for id in ["a", "b", "c", "d", "e", "f"] {
        fleet.push(live(&provider, cluster.instance(id)).await);
    }
    let lives: Vec<_> = fleet.iter().map(life).collect();
    let watch = consumer.watch(&cluster.service).await.unwrap();
    eventually("all of them", || async {
        watch.latest().filter(|s| s.members().len() == 6)
    })
    .await;
    let mut seen = watch.clone();
    let witness = tokio::spawn(async move {
        let mut fewest = usize::MAX;
        while let Ok(Some(snapshot)) =
            tokio::time::timeout(Duration::from_secs(20), seen.next()).await
        {
            fewest = fewest.min(snapshot.members().len());
            let renewed = snapshot
                .members()
                .iter()
                .filter(|m| !lives.contains(&m.incarnation()));
            if renewed.count() == 6 {
                return Some(fewest);
            }
        }
        None
    });
    let before: Vec<_> = fleet.iter().map(life).collect();
    block_in_place(|| cluster.client.restart());
    for registration in &fleet {
        new_life(registration, &before).await;
    }
    let fewest = witness.await.unwrap();
    assert_eq!(fewest, Some(6), "a watcher was told that some had left");
}

/// One of three servers is there and answers, but there is no leader for it to ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_accepts_without_a_quorum_is_pending_until_there_is_one() {
    if !available() {
        return;
    }
    let mut servers = block_in_place(ServerCluster::start);
    let client = block_in_place(|| Server::start_client(&servers.servers()[0]));
    let service: ServiceName = "orders".parse().unwrap();
    let provider = builder(client.address()).build().unwrap();
    block_in_place(|| servers.servers_mut()[1..].iter_mut().for_each(Server::kill));
    let instance = plimsoll_discovery_api::Instance::builder(&service, "10.0.0.7", 8080);
    let instance = instance.with_id("new").build().unwrap();
    let registration = provider.register(instance).await.unwrap();
    state(&registration, "a cause", |state| state.cause().is_some()).await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let now = registration.state();
        assert!(matches!(now, RegistrationState::Pending { .. }), "{now:?}");
        sleep(Duration::from_millis(50)).await;
    }
    block_in_place(|| {
        servers.servers_mut()[1..]
            .iter_mut()
            .for_each(Server::relaunch);
        assert!(servers.servers_mut()[1..].iter_mut().all(Server::is_ready));
    });
    ready(&registration).await;
    let listed = provider.list(&service).await.unwrap();
    assert_eq!(ids(&listed), ["new"]);
}
