//! Leaving without failing a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll::{Attempt, AttemptExt, CallError, Client, Endpoint, Incoming, PickRequest, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ScriptedRegistry, eventually, no_tasks_left};
use crate::{connect, echo, ping, server_of};

const WAIT: Duration = Duration::from_millis(50);

async fn server(registry: &ScriptedRegistry, drain_timeout: Duration) -> Server {
    server_of(registry)
        .with_propagation_wait(WAIT)
        .with_drain_timeout(drain_timeout)
        .start(echo)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_the_steps_come_in_order() {
    let registry = ScriptedRegistry::new();
    let server = server(&registry, Duration::from_secs(10)).await;
    let address = server.local_addr();
    let mut client = connect(address).await;
    assert_eq!(ping(&mut client).await.unwrap(), 7);

    let start = Instant::now();
    let drain = tokio::spawn(server.drain());
    eventually("marked", || registry.log().len() == 2).await;
    assert_eq!(
        ping(&mut connect(address).await).await.unwrap(),
        7,
        "still accepting"
    );
    eventually("no longer accepting", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    assert!(start.elapsed() >= WAIT * 2, "{:?}", start.elapsed());
    assert_eq!(
        registry.log(),
        [
            "register a up",
            "update a draining",
            "deregister a draining"
        ]
    );
    assert_eq!(
        ping(&mut client).await.unwrap(),
        7,
        "what is in flight goes on"
    );
    assert!(!drain.is_finished());

    drop(client);
    let report = drain.await.unwrap();
    assert_eq!(report.aborted, 0);
    assert!(report.finished >= 1);
    no_tasks_left().await;
}

#[tokio::test]
async fn what_is_not_finished_at_the_deadline_is_aborted_and_counted() {
    let handler = |mut incoming: Incoming| async move {
        incoming.stream.write_u8(7).await.unwrap();
        incoming.drain.given().await;
        if incoming.stream.read_u8().await.is_ok_and(|byte| byte == 0) {
            std::future::pending::<()>().await;
        }
    };
    let server = server_of(&ScriptedRegistry::new())
        .with_propagation_wait(WAIT)
        .with_drain_timeout(Duration::from_millis(300))
        .start(handler)
        .await
        .unwrap();
    let (address, load) = (server.local_addr(), server.load());
    let mut clients = Vec::new();
    for wish in [1, 0, 0] {
        let mut client = connect(address).await;
        assert_eq!(client.read_u8().await.unwrap(), 7);
        client.write_u8(wish).await.unwrap();
        clients.push(client);
    }
    let start = Instant::now();
    let report = server.drain().await;
    assert_eq!((report.finished, report.aborted), (1, 2));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    for client in &mut clients {
        let cut = tokio::time::timeout(Duration::from_secs(5), client.read_u8()).await;
        assert!(cut.expect("the connection is cut").is_err());
    }
    assert_eq!((load.current(), load.underflows()), (0, 0));
    no_tasks_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_never_answers_delays_the_drain_but_does_not_prevent_it() {
    let registry = ScriptedRegistry::new();
    registry.hang();
    // Of several services all are left at once.
    let builder = server_of(&registry).with_service("t").with_service("u");
    let server = builder
        .with_propagation_wait(WAIT)
        .start(echo)
        .await
        .unwrap();
    let start = tokio::time::Instant::now();
    let report = server.drain().await;
    assert_eq!(report, plimsoll::DrainReport::default());
    assert_eq!(start.elapsed(), WAIT * 2 + Duration::from_secs(10));
}

#[tokio::test]
async fn handlers_are_told_when_it_is_time_and_not_before() {
    let told_early = Arc::new(AtomicBool::new(false));
    let early = Arc::clone(&told_early);
    let registry = ScriptedRegistry::new();
    let log = registry.clone();
    let handler = move |mut incoming: Incoming| {
        let (early, log) = (Arc::clone(&early), log.clone());
        async move {
            early.fetch_or(incoming.drain.is_given(), Ordering::SeqCst);
            incoming.stream.write_u8(1).await.unwrap();
            incoming.drain.given().await;
            let deregistered = log.log().iter().any(|line| line.starts_with("deregister"));
            incoming
                .stream
                .write_u8(if deregistered { 2 } else { 3 })
                .await
                .unwrap();
        }
    };
    let server = server_of(&registry)
        .with_propagation_wait(WAIT)
        .start(handler)
        .await
        .unwrap();
    let mut client = connect(server.local_addr()).await;
    assert_eq!(client.read_u8().await.unwrap(), 1);
    let report = server.drain().await;
    assert_eq!((report.finished, report.aborted), (1, 0));
    assert_eq!(client.read_u8().await.unwrap(), 2);
    assert!(!told_early.load(Ordering::SeqCst));
}

#[tokio::test]
async fn dropping_the_drain_ends_the_server() {
    let registry = ScriptedRegistry::new();
    let server = server(&registry, Duration::from_secs(60)).await;
    let address = server.local_addr();
    let mut client = connect(address).await;
    ping(&mut client).await.unwrap();
    let drain = tokio::spawn(server.drain());
    eventually("no longer accepting", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    drain.abort();
    assert!(client.read_u8().await.is_err());
    no_tasks_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_one_server_of_three_drains() {
    let registry = ScriptedRegistry::new();
    let mut servers = Vec::new();
    for id in ["a", "b", "c"] {
        // Longer than a loaded machine may keep a thread between its pick and its connection.
        let builder = server_of(&registry)
            .with_id(id)
            .with_propagation_wait(20 * WAIT);
        servers.push(builder.start(echo).await.unwrap());
    }
    // One attempt: a retry would hide what must not happen.
    let client = Client::builder(registry.arc(), "s")
        .with_max_attempts(1)
        .build()
        .await
        .unwrap();
    client.ready().await;
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (client, stop, served) = (client.clone(), Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.call(&PickRequest::new(), request).await?;
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, CallError<std::io::Error>>(())
            })
        })
        .collect();
    eventually("traffic flows", || served.load(Ordering::Relaxed) > 100).await;
    let leaving = servers.remove(0);
    let report = leaving.drain().await;
    assert_eq!(report.aborted, 0);
    let before = served.load(Ordering::Relaxed);
    eventually("traffic goes on", || {
        served.load(Ordering::Relaxed) > before + 100
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap().expect("no request fails");
    }
    assert!(
        client
            .endpoints()
            .iter()
            .all(|e| e.failures() == 0 && e.in_flight() == 0)
    );
}

pub(crate) async fn request(endpoint: Arc<Endpoint>) -> Result<(), Attempt<std::io::Error>> {
    let address: SocketAddr = endpoint.instance().authority().parse().unwrap();
    let mut stream = TcpStream::connect(address).await.or_retry()?;
    assert_eq!(ping(&mut stream).await?, 7);
    Ok(())
}
