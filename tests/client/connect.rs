//! Connections, over real sockets on the loopback interface.

use std::error::Error as _;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::{Client, ErrorKind, Member, NoEndpoint, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::client_of;
use crate::support::{First, ScriptedRegistry, eventually, member_at};

async fn listening(id: &str) -> (TcpListener, Member) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, member_at(id, port))
}

/// A member whose port was free a moment ago and is held, but not listened on.
fn refusing(id: &str) -> (TcpSocket, Member) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, member_at(id, port))
}

async fn in_order(members: &[Member]) -> Client {
    let registry = ScriptedRegistry::with(members);
    client_of(&registry)
        .with_balancer(First::default())
        .build()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_connection_is_in_flight_until_it_is_dropped_and_then_a_success() {
    let (listener, member) = listening("a").await;
    let client = in_order(&[member]).await;
    let mut connection = client.connect().await.unwrap();
    let endpoint = Arc::clone(connection.endpoint());
    assert_eq!((endpoint.id().as_str(), endpoint.in_flight()), ("a", 1));
    let (mut accepted, _) = listener.accept().await.unwrap();
    connection.write_all(b"ping").await.unwrap();
    let mut request = [0; 4];
    accepted.read_exact(&mut request).await.unwrap();
    accepted.write_all(b"pong").await.unwrap();
    let mut reply = [0; 4];
    connection.read_exact(&mut reply).await.unwrap();
    assert_eq!((&request, &reply), (b"ping", b"pong"));
    assert_eq!(
        connection.peer_addr().unwrap(),
        listener.local_addr().unwrap()
    );
    assert_eq!((endpoint.in_flight(), endpoint.successes()), (1, 0));
    drop(connection);
    assert_eq!((endpoint.in_flight(), endpoint.successes()), (0, 1));
    assert_eq!(
        accepted.read(&mut reply).await.unwrap(),
        0,
        "the socket is closed too"
    );
}

#[tokio::test]
async fn a_connection_that_broke_on_the_way_is_a_failure() {
    let (listener, member) = listening("a").await;
    let client = in_order(&[member]).await;
    let mut connection = client.connect().await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    // What is unread when a socket is closed makes the kernel reset the connection.
    connection.write_all(b"never read").await.unwrap();
    accepted.readable().await.unwrap();
    drop(accepted);
    let error = connection.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let endpoint = Arc::clone(connection.endpoint());
    drop(connection);
    assert_eq!(
        (
            endpoint.in_flight(),
            endpoint.successes(),
            endpoint.failures()
        ),
        (0, 0, 1)
    );
}

#[tokio::test]
async fn endpoints_that_refuse_are_left_for_others() {
    let ((_held_a, a), (_held_b, b)) = (refusing("a"), refusing("b"));
    let (_listener, c) = listening("c").await;
    let client = in_order(&[a, b, c]).await;
    let connection = client.connect().await.unwrap();
    assert_eq!(connection.endpoint().id().as_str(), "c");
    let endpoints = client.endpoints();
    assert!(
        endpoints
            .iter()
            .take(2)
            .all(|e| e.in_flight() == 0 && e.failures() <= 1)
    );
    assert_eq!(
        endpoints[0].failures(),
        1,
        "the balancer's first choice was tried first"
    );
}

#[tokio::test]
async fn when_all_refuse_the_error_says_how_often_and_why() {
    let ((_held_a, a), (_held_b, b)) = (refusing("a"), refusing("b"));
    let registry = ScriptedRegistry::with(&[a, b]);
    let client = client_of(&registry)
        .with_call_timeout(Duration::from_millis(200))
        .build()
        .await
        .unwrap();
    let error = client.connect().await.map(drop).unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Unavailable, Some("connect"))
    );
    let text = error.to_string();
    let attempts = text
        .split("attempts: ")
        .nth(1)
        .unwrap()
        .trim_end_matches(')');
    assert!(text.contains("service: s"), "{text}");
    assert!(attempts.parse::<u32>().unwrap() >= 2, "{text}");
    let attempt = error.source().unwrap();
    let cause = attempt
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    assert_eq!(
        cause.map(io::Error::kind),
        Some(io::ErrorKind::ConnectionRefused)
    );
}

#[tokio::test]
async fn nothing_to_connect_to_is_told_from_connections_that_failed() {
    let registry = ScriptedRegistry::with(&[]);
    let builder = client_of(&registry).with_endpoint_wait(Duration::ZERO);
    let client = builder.build().await.unwrap();
    let error = client.connect().await.map(drop).unwrap_err();
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<NoEndpoint>());
    assert!(source.is_some(), "{error:?}");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_given_up_in_time() {
    let limit = Duration::from_millis(200);
    let (listener, _queued) = full_queue().await;
    let address = listener.local_addr().unwrap();
    let registry = ScriptedRegistry::with(&[member_at("a", address.port())]);
    let client = client_of(&registry)
        .with_connect_timeout(limit)
        .with_max_attempts(1)
        .build()
        .await
        .unwrap();
    let start = Instant::now();
    let error = client.connect().await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(
        (limit..limit * 20).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(client.endpoints()[0].failures(), 1);
}

#[tokio::test]
async fn names_are_resolved() {
    let (listener, _) = listening("a").await;
    let port = listener.local_addr().unwrap().port();
    let instance = plimsoll::Instance::builder("s", "localhost", port)
        .build()
        .unwrap();
    let registry = ScriptedRegistry::new();
    let _registration = registry.register(instance).await.unwrap();
    let client = client_of(&registry).build().await.unwrap();
    let connection = client.connect().await.unwrap();
    assert_eq!(connection.peer_addr().unwrap().port(), port);
}

#[tokio::test]
async fn connecting_can_be_spawned_and_dropping_it_counts_as_cancelled() {
    let (_listener, member) = listening("a").await;
    let client = in_order(&[member]).await;
    let spawned = tokio::spawn({
        let client = client.clone();
        async move { client.connect().await.map(drop) }
    });
    spawned.await.unwrap().unwrap();
    let endpoint = Arc::clone(&client.endpoints()[0]);
    let mut connecting = Box::pin(client.connect());
    let polled = futures_poll(connecting.as_mut()).await;
    // On loopback the handshake may be over at the first poll.
    let (in_flight, done) = (endpoint.in_flight(), polled.is_ready());
    drop((connecting, polled));
    assert_eq!((in_flight, endpoint.in_flight()), (1, 0));
    assert_eq!(
        (endpoint.successes(), endpoint.cancelled()),
        if done { (2, 0) } else { (1, 1) }
    );
}

async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await
}

#[tokio::test]
async fn a_server_that_accepts_and_hangs_up_on_everybody_is_left_out() {
    let (bad, a) = listening("a").await;
    let (good, b) = listening("b").await;
    let _bad = tokio::spawn(async move {
        loop {
            let (stream, _) = bad.accept().await.unwrap();
            // What is unread when a socket is closed makes the kernel reset the connection.
            stream.readable().await.unwrap();
        }
    });
    let _good = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            open.push(good.accept().await.unwrap());
        }
    });
    let client = in_order(&[a, b]).await;
    for _ in 0..5 {
        let mut connection = client.connect().await.unwrap();
        assert_eq!(connection.endpoint().id().as_str(), "a");
        connection.write_all(b"hello").await.unwrap();
        assert!(connection.read_u8().await.is_err());
    }
    eventually("it is left out", || client.stats().eligible == 1).await;
    assert_eq!(
        client.connect().await.unwrap().endpoint().id().as_str(),
        "b"
    );
}

#[tokio::test]
async fn a_connection_that_the_limit_of_an_attempt_ends_is_made_elsewhere() {
    let (full, queued) = full_queue().await;
    let (_listener, b) = listening("b").await;
    let registry = ScriptedRegistry::with(&[member_at("a", full.local_addr().unwrap().port()), b]);
    let client = client_of(&registry)
        .with_balancer(First::default())
        .with_attempt_timeout(Duration::from_millis(200))
        .build()
        .await
        .unwrap();
    assert_eq!(
        client.connect().await.unwrap().endpoint().id().as_str(),
        "b"
    );
    drop(queued);
}

/// A listener whose queue is full, as nobody accepts from it: further handshakes are not answered.
async fn full_queue() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let limit = Duration::from_millis(200);
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(limit, TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 100, "the queue never fills");
    }
    (listener, queued)
}
