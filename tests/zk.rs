//! What the quickstart promises, over a real `ZooKeeper`.

#![allow(dead_code, reason = "the quickstart is used in part")]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::balancers::LeastLoad;
use plimsoll::{
    Balancer, Client, Endpoint, Health, Incoming, Instance, PickRequest, Registration, Registry,
    registry_from_url,
};
use plimsoll_test_servers::zk::{self, Server};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use outage::run_through_restart;

#[path = "support/failing_servers.rs"]
mod failing_servers;
#[path = "support/outage.rs"]
mod outage;
#[path = "../examples/quickstart.rs"]
mod quickstart;

fn url(server: &Server) -> String {
    format!("{}&load_interval=200ms", server.url("quickstart"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises() {
    if !zk::available() {
        return;
    }
    let server = Server::start();
    quickstart::run(&url(&server))
        .await
        .expect("every promise to be kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises_while_the_registry_is_killed_and_restarted() {
    if !zk::available() {
        return;
    }
    let server = Server::start();
    let url = url(&server);
    run_through_restart(&url, server, Server::kill, Server::restart).await;
}

/// 10,000 connections come and go at 1,000 a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_connections_is_published_in_moderation_and_ends_at_the_exact_count() {
    const STORM: u32 = 10_000;
    const OPEN: usize = 7;
    let interval = Duration::from_millis(200);
    if !zk::available() {
        return;
    }
    let registry_server = Server::start();
    let registry = registry_from_url(&url(&registry_server)).expect("a registry");
    let server = plimsoll::Server::builder(Arc::clone(&registry), "stormy")
        .start(|mut incoming: Incoming| async move {
            let _ended = incoming.stream.read(&mut [0]).await;
        })
        .await
        .expect("a server");
    let ready = timeout(Duration::from_secs(20), server.registration().ready()).await;
    ready.expect("in time").expect("to be registered");

    let (before, start) = (transactions(&registry_server), Instant::now());
    let mut open = VecDeque::new();
    for number in 0..STORM {
        sleep_until(start + Duration::from_millis(1) * number).await;
        let connection = TcpStream::connect(server.local_addr()).await;
        open.push_back(connection.expect("a connection"));
        if open.len() > OPEN {
            open.pop_front();
        }
    }
    let listed = || async {
        let service = server.instance().service().clone();
        let members = registry.list(&service).await.ok()?;
        members.members().first()?.load().get()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while listed().await != Some(OPEN as u64) {
        assert!(Instant::now() < deadline, "published {:?}", listed().await);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.load().current(), OPEN as u64);
    let writes = transactions(&registry_server) - before;
    let allowed = start.elapsed().as_millis() / interval.as_millis() + 2;
    assert!(
        writes > 10 && u128::from(writes) <= allowed,
        "{writes} writes, {allowed} allowed"
    );
    assert!(server.registration().state().is_live());
}

/// What it published last makes it seem idle, and a newcomer that really is stands beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_fallen_silent_is_not_run_over() {
    const CLIENTS: usize = 100;
    const ROUNDS: usize = 50;
    if !zk::available() {
        return;
    }
    let registry_server = Server::start();
    let proxy = Proxy::start(registry_server.address(), Mode::Pass);
    // Its session outlasts the silence: it goes on being registered.
    let silent = patient(proxy.address());
    let registry = patient(registry_server.address());
    let mut servers = HashMap::new();
    servers.insert("silent", serving(&silent, "silent").await);
    for id in ["a", "b", "c"] {
        let server = serving(&registry, id).await;
        server.load().set(200);
        server.load().flush().await.expect("a published load");
        servers.insert(id, server);
    }
    // Of the three that one pick compares, the silent one would always seem the best.
    let balancer = LeastLoad::new()
        .with_choices(3)
        .and_then(|b| b.with_half_life(Duration::from_millis(200)))
        .expect("good settings")
        .with_interval(Duration::from_millis(200))
        .with_trust(Duration::from_secs(1));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(&registry, balancer.clone(), servers.len()).await);
    }
    proxy.set(Mode::Hold);
    servers.insert("new", serving(&registry, "new").await);
    for client in &clients {
        see(client, |endpoints| endpoints.len() == servers.len()).await;
    }
    let (mut open, mut picked) = (Vec::new(), HashMap::new());
    for round in 0..ROUNDS {
        for client in &clients {
            let pick = client.pick(&PickRequest::new()).expect("an endpoint");
            let id = pick.endpoint().id().to_string();
            servers[id.as_str()].load().increase(1);
            *picked.entry(id).or_insert(0_usize) += 1;
            open.push(pick);
        }
        // Ten a second of each client, for as long as it takes to lose trust and longer.
        sleep(Duration::from_millis(100)).await;
        assert_eq!(open.len(), (round + 1) * CLIENTS);
    }
    let mean = CLIENTS * ROUNDS / servers.len();
    assert!(picked.values().all(|&picks| picks < 2 * mean), "{picked:?}");
    assert!(servers.keys().all(|&id| picked[id] > 0), "{picked:?}");
}

/// What a client thinks of a server is its own, and stays while what the server says of its load
/// comes in.
#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_on_a_server_outlives_a_hundred_reports_of_its_load() {
    if !zk::available() {
        return;
    }
    let registry_server = Server::start();
    let registry = patient(registry_server.address());
    let (sick, _well) = (
        serving(&registry, "sick").await,
        serving(&registry, "well").await,
    );
    let client = client(&registry, LeastLoad::new(), 2).await;
    let endpoint = |id: &str| {
        let endpoints = client.endpoints();
        let found = endpoints
            .iter()
            .find(|endpoint| endpoint.id().as_str() == id);
        Arc::clone(found.expect("the endpoint"))
    };
    let before = endpoint("sick");
    assert!(before.set_health(Health::Unhealthy));
    for load in 1..=100 {
        sick.load().set(load);
        sick.load().flush().await.expect("a published load");
    }
    let last = |e: &Arc<Endpoint>| e.published_load().is_some_and(|report| report.load == 100);
    see(&client, |endpoints| endpoints.iter().any(last)).await;
    assert!(Arc::ptr_eq(&endpoint("sick"), &before), "another endpoint");
    assert_eq!(before.health(), Health::Unhealthy);
}

/// A handle that takes no delay of a busy machine for the end of its connection.
fn patient(server: SocketAddr) -> Arc<dyn Registry> {
    let url = format!("zk://{server}/served?session_timeout=50s&load_interval=200ms");
    registry_from_url(&url).expect("a registry")
}

async fn serving(registry: &Arc<dyn Registry>, id: &str) -> Registration {
    let instance = Instance::builder("served", "10.0.0.7", 8080).with_id(id);
    let instance = instance.build().expect("an instance");
    let registration = registry.register(instance).await.expect("a registration");
    let ready = timeout(Duration::from_secs(20), registration.ready()).await;
    ready.expect("in time").expect("to be registered");
    registration
}

/// A client that sees so many members and the loads they publish.
async fn client(registry: &Arc<dyn Registry>, balancer: impl Balancer, members: usize) -> Client {
    let client = Client::builder(Arc::clone(registry), "served").with_balancer(balancer);
    let client = client.build().await.expect("a client");
    let known = |e: &Arc<Endpoint>| e.published_load().is_some();
    see(&client, |all| all.len() == members && all.iter().all(known)).await;
    client
}

async fn see(client: &Client, wanted: impl Fn(&[Arc<Endpoint>]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !wanted(&client.endpoints()) {
        assert!(Instant::now() < deadline, "{:?}", client.endpoints());
        sleep(Duration::from_millis(20)).await;
    }
}

/// How many there have been, of whatever kind.
fn transactions(server: &Server) -> u64 {
    let answer = server.ask("srvr").expect("a server");
    let number = answer
        .lines()
        .find_map(|line| line.strip_prefix("Zxid: 0x"));
    u64::from_str_radix(number.expect("its last transaction"), 16).expect("a number")
}

#[tokio::test]
#[ignore = "a process of the tests below"]
async fn provider_process() {
    failing_servers::serve_if_asked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_and_hung_servers_waste_few_attempts_of_the_default_client() {
    if !zk::available() {
        return;
    }
    let server = Server::start();
    failing_servers::waste_few_attempts(&server.url("failing")).await;
}
