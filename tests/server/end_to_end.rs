//! Servers and clients that meet in the embedded registry.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::{CallError, Client, PickRequest, Registry, Server, balancers::RoundRobin};
use plimsoll_backend_memory::MemoryRegistry;
use tokio::task::JoinHandle;

use crate::drain::request;
use crate::support::{eventually, no_tasks_left};
use crate::{echo, ping};

const ANY: PickRequest<'static> = PickRequest::new();

async fn server(registry: &MemoryRegistry, id: &str) -> Server {
    Server::builder(registry.clone(), "s")
        .with_id(id)
        .start(echo)
        .await
        .unwrap()
}

/// A client of its own process, as it were: it shares nothing with the servers but the registry.
async fn client(registry: &MemoryRegistry) -> Client {
    client_of(registry, "s").await
}

async fn client_of(registry: &MemoryRegistry, service: &str) -> Client {
    // One attempt: a retry would hide what must not happen.
    Client::builder(registry.sibling(), service)
        .with_max_attempts(1)
        .build()
        .await
        .unwrap()
}

fn ids(client: &Client) -> Vec<String> {
    client
        .endpoints()
        .iter()
        .map(|e| e.id().to_string())
        .collect()
}

/// Requests one after the other, until told to stop or one fails.
fn traffic(client: &Client) -> Traffic {
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let worker = |_| {
        let (client, stop, served) = (client.clone(), Arc::clone(&stop), Arc::clone(&served));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                client.call(&ANY, request).await?;
                served.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let workers = (0..4).map(worker).collect();
    Traffic {
        stop,
        served,
        workers,
    }
}

struct Traffic {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Result<(), CallError<std::io::Error>>>>,
}

impl Traffic {
    async fn flows(&self) {
        let before = self.served.load(Ordering::Relaxed);
        let failed = || self.workers.iter().any(JoinHandle::is_finished);
        let flowed = || failed() || self.served.load(Ordering::Relaxed) > before + 100;
        eventually("traffic flows", flowed).await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.unwrap().expect("no request fails");
        }
    }
}

#[tokio::test]
async fn clients_find_servers_and_the_load_they_carry() {
    let registry = MemoryRegistry::new();
    let client = client(&registry).await;
    let servers = [server(&registry, "a").await, server(&registry, "b").await];
    eventually("both are found", || ids(&client) == ["a", "b"]).await;
    client.ready().await;
    let view = client.view();

    let mut connections = Vec::new();
    let mut seen = HashSet::new();
    for open in 1..=10 {
        let mut connection = client.connect().await.unwrap();
        let there = connection.endpoint().instance();
        let server = servers
            .iter()
            .find(|s| s.instance().id() == there.id())
            .unwrap();
        assert_eq!(there.authority(), server.local_addr().to_string());
        tokio::io::AsyncWriteExt::write_u8(&mut connection, 7)
            .await
            .unwrap();
        assert_eq!(
            tokio::io::AsyncReadExt::read_u8(&mut connection)
                .await
                .unwrap(),
            7
        );
        seen.insert(there.id().clone());
        connections.push(connection);
        let carried: u64 = servers.iter().map(|server| server.load().current()).sum();
        assert_eq!(carried, open);
        // Each sees the load before the next chooses: so the loads never differ by more than one.
        let published = |n: usize| client.endpoints()[n].published_load().map(|r| r.load);
        let up_to_date = || {
            [0, 1]
                .iter()
                .all(|n| published(*n) == Some(servers[*n].load().current()))
        };
        eventually("the loads are published", up_to_date).await;
        let [a, b] = [0, 1].map(|n: usize| servers[n].load().current());
        assert!(a.abs_diff(b) <= 1, "{a} and {b}");
    }
    assert_eq!(seen.len(), 2);
    assert!(
        Arc::ptr_eq(&view, &client.view()),
        "loads came without a new view"
    );
    drop(connections);
    let zero = |e: &Arc<plimsoll::Endpoint>| e.published_load().is_some_and(|r| r.load == 0);
    eventually("zero is published", || client.endpoints().iter().all(zero)).await;
    assert!(
        client
            .endpoints()
            .iter()
            .all(|e| e.in_flight() == 0 && e.successes() == 5)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_servers_are_replaced_one_by_one() {
    let registry = MemoryRegistry::new();
    let mut servers = Vec::new();
    for n in 0..3 {
        servers.push(server(&registry, &format!("old-{n}")).await);
    }
    let client = client(&registry).await;
    client.ready().await;
    let traffic = traffic(&client);
    traffic.flows().await;
    for n in 0..3 {
        let replacement = server(&registry, &format!("new-{n}")).await;
        replacement.registration().ready().await.unwrap();
        let report = servers.remove(0).drain().await;
        assert_eq!(report.aborted, 0);
        servers.push(replacement);
        traffic.flows().await;
    }
    assert_eq!(ids(&client), ["new-0", "new-1", "new-2"]);
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_registry_is_not_an_outage_of_the_service() {
    let registry = MemoryRegistry::new();
    let _servers = [server(&registry, "a").await, server(&registry, "b").await];
    let client = client(&registry).await;
    eventually("both are found", || ids(&client) == ["a", "b"]).await;
    let traffic = traffic(&client);
    traffic.flows().await;
    registry.faults().outage();
    let is_live = || client.snapshot().unwrap().freshness().is_live();
    eventually("the outage is noticed", || !is_live()).await;
    traffic.flows().await;
    let late = server(&registry, "late").await;
    assert_eq!(
        ping(&mut crate::connect(late.local_addr()).await)
            .await
            .unwrap(),
        7
    );
    assert_eq!(
        ids(&client),
        ["a", "b"],
        "it serves, though nobody can find it yet"
    );

    registry.faults().restore();
    eventually("the late one is found", || {
        ids(&client) == ["a", "b", "late"]
    })
    .await;
    eventually("the set is live again", is_live).await;
    traffic.flows().await;
    traffic.end().await;
}

#[tokio::test]
async fn a_server_that_is_dropped_is_left_by_its_clients() {
    let registry = MemoryRegistry::new();
    let (gone, stays) = (server(&registry, "a").await, server(&registry, "b").await);
    let registry_handle: Arc<dyn Registry> = Arc::new(registry.sibling());
    // The rest of the attempts bridges the time until the client knows.
    let client = Client::builder(registry_handle, "s")
        .with_balancer(RoundRobin::new())
        .build()
        .await
        .unwrap();
    eventually("both are found", || ids(&client) == ["a", "b"]).await;
    drop(gone);
    for _ in 0..20 {
        client.call(&ANY, request).await.unwrap();
    }
    eventually("one is left", || ids(&client) == ["b"]).await;
    drop((client, stays, registry));
    no_tasks_left().await;
}

#[tokio::test]
async fn a_drained_server_is_gone_from_the_registry_when_the_drain_ends() {
    let registry = MemoryRegistry::new();
    let server = server(&registry, "a").await;
    server.registration().ready().await.unwrap();
    let service = server.instance().service().clone();
    assert_eq!(registry.list(&service).await.unwrap().members().len(), 1);
    let bound = tokio::time::timeout(Duration::from_secs(5), server.drain());
    bound.await.expect("nothing is in flight");
    assert!(registry.list(&service).await.unwrap().members().is_empty());
}

#[tokio::test]
async fn several_services_behind_one_listener_are_registered_counted_and_drained_as_one() {
    let registry = MemoryRegistry::new();
    let server = Server::builder(registry.clone(), "s")
        .with_service("t")
        .with_zone("z")
        .with_propagation_wait(Duration::ZERO)
        .start(echo)
        .await
        .unwrap();
    server.ready().await.unwrap();
    let clients = [client(&registry).await, client_of(&registry, "t").await];
    let mut members = Vec::new();
    for client in &clients {
        client.ready().await;
        let [endpoint] = &client.endpoints()[..] else {
            panic!("one endpoint")
        };
        members.push(endpoint.instance());
    }
    let [one, other] = &members[..] else { panic!() };
    assert_eq!(
        (one.service().as_str(), other.service().as_str()),
        ("s", "t")
    );
    assert_eq!((one.id(), one.authority()), (other.id(), other.authority()));
    assert_eq!((one.zone(), one.zone().is_some()), (other.zone(), true));

    let loads: Vec<_> = server.registrations().iter().map(|r| r.load()).collect();
    let current = || loads.iter().map(|load| load.current()).collect::<Vec<_>>();
    let mut open = Vec::new();
    for (client, count) in clients.iter().zip(1..) {
        let mut connection = client.connect().await.unwrap();
        tokio::io::AsyncWriteExt::write_u8(&mut connection, 7)
            .await
            .unwrap();
        let back = tokio::io::AsyncReadExt::read_u8(&mut connection).await;
        assert_eq!(back.unwrap(), 7);
        open.push(connection);
        assert_eq!(current(), [count, count], "whichever it came for");
    }
    for client in &clients {
        let endpoint = Arc::clone(&client.endpoints()[0]);
        let published = || endpoint.published_load().map(|report| report.load) == Some(2);
        eventually("both are published", published).await;
    }
    drop(open);
    eventually("all have left", || current() == [0, 0]).await;
    server.drain().await;
    for client in &clients {
        eventually("it has left", || client.endpoints().is_empty()).await;
    }
}

#[tokio::test]
async fn a_registry_is_taken_by_value_and_shared() {
    let registry = MemoryRegistry::new();
    let shared = Arc::new(registry.clone());
    let erased: Arc<dyn Registry> = Arc::clone(&shared) as Arc<dyn Registry>;
    let server = Server::builder(registry, "s").start(echo).await.unwrap();
    server.ready().await.unwrap();
    for client in [
        Client::builder(Arc::clone(&shared), "s")
            .build()
            .await
            .unwrap(),
        Client::builder(Arc::clone(&erased), "s")
            .build()
            .await
            .unwrap(),
        Client::builder(MemoryRegistry::clone(&shared), "s")
            .build()
            .await
            .unwrap(),
    ] {
        client.ready().await;
        assert_eq!(ids(&client).len(), 1);
    }
}
