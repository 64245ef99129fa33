//! Servers that die and hang, as the default client meets them before their registry does.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::{Attempt, AttemptExt, Client, Endpoint, Incoming, PickRequest, Server};
use plimsoll_test_servers::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const URL: &str = "PLIMSOLL_TEST_PROVIDER_URL";
const ID: &str = "PLIMSOLL_TEST_PROVIDER_ID";
const SERVICE: &str = "echo";
const IDS: [&str; 3] = ["a", "b", "c"];
const CALLS: u64 = 2_000;
const WORKERS: u64 = 4;
/// A ceiling for what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A provider, if this process is to be one: answers each byte by itself, for ever.
pub(crate) async fn serve_if_asked() {
    let (Ok(url), Ok(id)) = (env::var(URL), env::var(ID)) else {
        return;
    };
    let registry = plimsoll::registry_from_url(&url).expect("a registry");
    let _server = Server::builder(registry, SERVICE)
        .with_id(id)
        .start(|mut incoming: Incoming| async move {
            let mut byte = [0];
            while incoming.stream.read_exact(&mut byte).await.is_ok() {
                if incoming.stream.write_all(&byte).await.is_err() {
                    return;
                }
            }
        })
        .await
        .expect("a server");
    std::future::pending::<()>().await;
}

fn provider(url: &str, id: &str, dir: &Path) -> Process {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command
        .args(["--exact", "provider_process", "--ignored", "--nocapture"])
        .env(URL, url)
        .env(ID, id);
    Process::spawn(&mut command, &dir.join(format!("{id}.log")))
}

async fn ask(endpoint: Arc<Endpoint>) -> Result<(), Attempt<io::Error>> {
    let address = endpoint.instance().authority();
    let mut stream = TcpStream::connect(address).await.or_unreachable()?;
    stream.write_all(b"?").await.or_retry()?;
    stream.read_u8().await.or_retry()?;
    Ok(())
}

/// First attempts, by the id they went to.
type Firsts = Arc<Mutex<BTreeMap<String, u64>>>;

async fn call(client: &Client, firsts: &Firsts) {
    let first = AtomicU64::new(0);
    let operation = |endpoint: Arc<Endpoint>| {
        if first.fetch_add(1, Ordering::Relaxed) == 0 {
            let id = endpoint.id().to_string();
            *firsts
                .lock()
                .expect("nobody panicked")
                .entry(id)
                .or_default() += 1;
        }
        ask(endpoint)
    };
    let request = PickRequest::new().idempotent();
    client
        .call(&request, operation)
        .await
        .expect("every call to be answered");
}

async fn calls(client: &Client, count: u64) -> BTreeMap<String, u64> {
    let firsts = Firsts::default();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (client, firsts) = (client.clone(), Arc::clone(&firsts));
        workers.spawn(async move {
            for _ in 0..count / WORKERS {
                call(&client, &firsts).await;
                sleep(Duration::from_millis(5)).await;
            }
        });
    }
    workers.join_all().await;
    let firsts = firsts.lock().expect("nobody panicked");
    firsts.clone()
}

async fn until(what: &str, holds: impl Fn() -> bool + Send + Sync) {
    let waited = timeout(PATIENCE, async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// One of three servers is killed and one stopped: few first attempts go there, every call is
/// answered, and whoever goes on is picked again.
pub(crate) async fn waste_few_attempts(url: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut processes = IDS.map(|id| provider(url, id, dir.path()));
    let registry = plimsoll::registry_from_url(url).expect("a registry");
    let client = Client::builder(registry, SERVICE)
        .build()
        .await
        .expect("a client");
    until("all are visible", || client.endpoints().len() == IDS.len()).await;
    let even = calls(&client, 400).await;
    assert_eq!(even.len(), IDS.len(), "{even:?}");

    processes[0].kill();
    processes[1].pause();
    let firsts = calls(&client, CALLS).await;
    for id in &IDS[..2] {
        let wasted = firsts.get(*id).copied().unwrap_or(0);
        assert!(wasted <= 5, "{id}: {firsts:?}");
    }

    processes[1].resume();
    let firsts = Firsts::default();
    until_picked(&client, &firsts, "b").await;
    processes[1].kill();
    processes[2].kill();
}

async fn until_picked(client: &Client, firsts: &Firsts, id: &str) {
    let picked = timeout(PATIENCE, async {
        while firsts
            .lock()
            .expect("nobody panicked")
            .get(id)
            .copied()
            .unwrap_or(0)
            < 50
        {
            call(client, firsts).await;
        }
    });
    picked
        .await
        .unwrap_or_else(|_| panic!("{id} is not picked again: {firsts:?}"));
}
