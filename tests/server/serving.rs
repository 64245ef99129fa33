//! Accepting, counting and ending abruptly.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::{Incoming, LoadGuard};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::{ScriptedRegistry, eventually, no_tasks_left};
use crate::{connect, echo, ping, server_of};

#[tokio::test]
async fn load_is_the_number_of_open_connections_and_exactly_zero_after_the_last() {
    let server = server_of(&ScriptedRegistry::new())
        .start(echo)
        .await
        .unwrap();
    let load = server.load();
    let mut clients = Vec::new();
    for open in 1..=20 {
        let mut client = connect(server.local_addr()).await;
        assert_eq!(ping(&mut client).await.unwrap(), 7);
        clients.push(client);
        assert_eq!(load.current(), open);
    }
    clients.truncate(5);
    eventually("15 have left", || load.current() == 5).await;
    drop(clients);
    eventually("all have left", || load.current() == 0).await;
    assert_eq!(load.underflows(), 0);
}

#[tokio::test]
async fn load_is_zero_after_handlers_panic_and_the_server_goes_on() {
    let handler = |incoming: Incoming| {
        assert_eq!(
            incoming.peer.ip(),
            incoming.stream.local_addr().unwrap().ip()
        );
        // One in two dies before it has made a future, the others in it.
        assert!(
            incoming.peer.port().is_multiple_of(2),
            "the handler dies at once"
        );
        async move {
            let mut incoming = incoming;
            let _ = incoming.stream.read_u8().await;
            panic!("the handler dies on the way");
        }
    };
    let server = server_of(&ScriptedRegistry::new())
        .start(handler)
        .await
        .unwrap();
    for _ in 0..50 {
        // Nothing comes back but the end.
        assert!(ping(&mut connect(server.local_addr()).await).await.is_err());
    }
    let load = server.load();
    eventually("every guard is dropped", || load.current() == 0).await;
    assert_eq!(load.underflows(), 0);
}

#[tokio::test]
async fn a_handler_that_takes_no_more_than_the_stream_is_counted_while_it_runs() {
    let server = server_of(&ScriptedRegistry::new())
        .start(|mut incoming: Incoming| async move {
            // The block owns the stream alone: the rest of what came in is gone already.
            incoming.stream.write_u8(1).await.unwrap();
            let _ = incoming.stream.read_u8().await;
        })
        .await
        .unwrap();
    let load = server.load();
    let mut client = connect(server.local_addr()).await;
    assert_eq!(client.read_u8().await.unwrap(), 1, "the handler runs");
    assert_eq!(load.current(), 1);
    client.write_u8(1).await.unwrap();
    eventually("the handler has ended", || load.current() == 0).await;
}

#[tokio::test]
async fn a_guard_that_the_handler_moves_elsewhere_counts_on() {
    let (sender, mut moved) = mpsc::unbounded_channel::<(TcpStream, Arc<LoadGuard>)>();
    let handler = move |incoming: Incoming| {
        let Incoming { stream, guard, .. } = incoming;
        sender.send((stream, guard)).unwrap();
        async {}
    };
    let server = server_of(&ScriptedRegistry::new())
        .start(handler)
        .await
        .unwrap();
    let _client = connect(server.local_addr()).await;
    let held = moved.recv().await.unwrap();
    // The acceptor and nothing else: the handler has ended.
    let metrics = tokio::runtime::Handle::current().metrics();
    eventually("the handler has ended", || metrics.num_alive_tasks() == 1).await;
    assert_eq!(server.load().current(), 1);
    drop(held);
    assert_eq!(server.load().current(), 0);
}

#[tokio::test]
async fn dropping_the_server_closes_every_socket_at_once_and_leaves_the_registry() {
    let registry = ScriptedRegistry::new();
    let server = server_of(&registry).start(echo).await.unwrap();
    let (address, load) = (server.local_addr(), server.load());
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = connect(address).await;
        assert_eq!(ping(&mut client).await.unwrap(), 7);
        clients.push(client);
    }
    drop(server);
    assert!(registry.registered().is_empty());
    for mut client in clients {
        let ended = tokio::time::timeout(Duration::from_secs(5), client.read_u8()).await;
        assert!(ended.expect("the socket is closed").is_err());
    }
    no_tasks_left().await;
    assert!(
        TcpStream::connect(address).await.is_err(),
        "the listener is closed"
    );
    assert_eq!(load.current(), 0);
}

#[tokio::test]
async fn a_handler_is_called_once_for_each_connection() {
    let (sender, mut peers) = mpsc::unbounded_channel();
    let handler = move |incoming: Incoming| {
        sender.send(incoming.peer).unwrap();
        echo(incoming)
    };
    let server = server_of(&ScriptedRegistry::new())
        .start(handler)
        .await
        .unwrap();
    let (one, other) = (
        connect(server.local_addr()).await,
        connect(server.local_addr()).await,
    );
    let mut expected = [one.local_addr().unwrap(), other.local_addr().unwrap()];
    let mut seen = [peers.recv().await.unwrap(), peers.recv().await.unwrap()];
    expected.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, expected);
    assert!(peers.try_recv().is_err());
}

#[tokio::test]
async fn starting_can_be_spawned_and_the_server_shared() {
    let registry = ScriptedRegistry::new();
    let builder = server_of(&registry);
    let server = Arc::new(tokio::spawn(builder.start(echo)).await.unwrap().unwrap());
    let address = Arc::clone(&server).local_addr();
    assert_eq!(ping(&mut connect(address).await).await.unwrap(), 7);
    assert!(server.registration().state().is_live());
}
