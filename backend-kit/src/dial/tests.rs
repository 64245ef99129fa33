//! A scripted network in paused time, and real sockets.

use std::error::Error as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;

use super::*;

const LIMIT: Duration = Duration::from_secs(3);

/// What comes of a connection attempt.
#[derive(Clone, Copy)]
enum Fate {
    Answers(u64),
    Refuses(u64),
    Silent,
}
use Fate::{Answers, Refuses, Silent};

/// The addresses of the one name there is, and what becomes of attempts at them.
struct Script {
    /// In milliseconds.
    resolving: u64,
    addresses: Vec<(SocketAddr, Fate)>,
    begin: Instant,
    /// Which attempt began when, in milliseconds.
    begun: Mutex<Vec<(SocketAddr, u128)>>,
    under_way: Mutex<usize>,
}

impl Script {
    fn new(fates: impl IntoIterator<Item = (SocketAddr, Fate)>) -> Self {
        Self {
            resolving: 0,
            addresses: fates.into_iter().collect(),
            begin: Instant::now(),
            begun: Mutex::new(Vec::new()),
            under_way: Mutex::new(0),
        }
    }

    fn elapsed(&self) -> u128 {
        self.begin.elapsed().as_millis()
    }

    fn begun(&self) -> Vec<u128> {
        let begun = self.begun.lock().unwrap();
        begun.iter().map(|(_, at)| *at).collect()
    }

    async fn dial(&self, limit: Duration) -> Result<SocketAddr> {
        dial_by(self, "several:80", limit).await
    }
}

struct UnderWay<'a>(&'a Script);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.under_way.lock().unwrap() -= 1;
    }
}

impl Network for Script {
    type Stream = SocketAddr;

    async fn resolve(&self, authority: &str) -> io::Result<Vec<SocketAddr>> {
        assert_eq!(authority, "several:80");
        sleep(Duration::from_millis(self.resolving)).await;
        Ok(self.addresses.iter().map(|(address, _)| *address).collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        self.begun.lock().unwrap().push((address, self.elapsed()));
        *self.under_way.lock().unwrap() += 1;
        let _under_way = UnderWay(self);
        let (_, fate) = self.addresses.iter().find(|(a, _)| *a == address).unwrap();
        match *fate {
            Answers(after) => {
                sleep(Duration::from_millis(after)).await;
                Ok(address)
            }
            Refuses(after) => {
                sleep(Duration::from_millis(after)).await;
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            Silent => std::future::pending().await,
        }
    }
}

fn v4(last: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, last), 80).into()
}

fn v6(last: u16) -> SocketAddr {
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), 80).into()
}

fn context_of<'a>(error: &'a Error, name: &str) -> Option<&'a str> {
    let mut context = error.context();
    context
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_holds_the_next_one_up_for_250_ms_and_no_longer() {
    let script = Script::new([(v4(1), Silent), (v4(2), Answers(30))]);
    assert_eq!(script.dial(LIMIT).await.unwrap(), v4(2));
    assert_eq!((script.elapsed(), script.begun()), (280, vec![0, 250]));
    assert_eq!(
        *script.under_way.lock().unwrap(),
        0,
        "the silent one is given up"
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_that_refuses_is_followed_by_the_next_at_once() {
    let fates = [
        (v4(1), Refuses(5)),
        (v4(2), Refuses(0)),
        (v4(3), Answers(1)),
    ];
    let script = Script::new(fates);
    assert_eq!(script.dial(LIMIT).await.unwrap(), v4(3));
    assert_eq!((script.elapsed(), script.begun()), (6, vec![0, 5, 5]));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_overtaken_may_still_win() {
    let script = Script::new([(v4(1), Answers(300)), (v4(2), Silent)]);
    assert_eq!(script.dial(LIMIT).await.unwrap(), v4(1));
    assert_eq!(script.elapsed(), 300);
}

#[tokio::test(start_paused = true)]
async fn the_families_take_turns_from_the_first_address_on_and_none_is_tried_twice() {
    let found = [v6(1), v6(2), v6(1), v6(3), v4(1), v4(1), v4(2)];
    let script = Script::new(found.map(|address| (address, Refuses(0))));
    script.dial(LIMIT).await.unwrap_err();
    let begun = script.begun.lock().unwrap();
    let order: Vec<_> = begun.iter().map(|(address, _)| *address).collect();
    assert_eq!(order, [v6(1), v4(1), v6(2), v4(2), v6(3)]);
}

#[tokio::test(start_paused = true)]
async fn one_limit_holds_for_the_name_and_all_addresses_and_the_error_tells_of_each() {
    let fates = [(v4(1), Silent), (v4(2), Refuses(7)), (v4(3), Silent)];
    let mut script = Script::new(fates);
    script.resolving = 1_000;
    let error = script.dial(LIMIT).await.unwrap_err();
    assert_eq!(
        (script.elapsed(), script.begun()),
        (3_000, vec![1_000, 1_250, 1_257])
    );
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(context_of(&error, "to"), Some("several:80"));
    let tried =
        "192.0.2.2:80 (connection refused), 192.0.2.1:80 (no answer), 192.0.2.3:80 (no answer)";
    assert_eq!(context_of(&error, "tried"), Some(tried));
    assert!(error.source().is_some(), "the refusal");
    assert_eq!(*script.under_way.lock().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_not_resolved_in_time_ends_at_the_limit() {
    let mut script = Script::new([(v4(1), Answers(0))]);
    script.resolving = 10_000;
    let error = script.dial(LIMIT).await.unwrap_err();
    assert_eq!(
        (script.elapsed(), error.kind()),
        (3_000, ErrorKind::TimedOut)
    );
    assert_eq!(context_of(&error, "phase"), Some("resolving the name"));
}

#[tokio::test(start_paused = true)]
async fn a_short_limit_reaches_the_last_of_many_addresses_with_half_of_it_to_spare() {
    let silent = (1..10).map(|last| (v4(last), Silent));
    let script = Script::new(silent.chain([(v4(10), Answers(400))]));
    assert_eq!(script.dial(Duration::from_secs(1)).await.unwrap(), v4(10));
    assert_eq!(script.elapsed(), 9 * 50 + 400);
    // However short the limit, no more than one in 10 ms.
    let script = Script::new((1..=10).map(|last| (v4(last), Silent)));
    script.dial(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(script.begun(), [0, 10, 20, 30, 40]);
}

#[tokio::test(start_paused = true)]
async fn all_that_refuse_make_the_last_refusal_and_no_address_is_none_to_wait_for() {
    let script = Script::new([(v4(1), Refuses(9)), (v6(1), Refuses(3))]);
    let error = script.dial(Duration::MAX).await.unwrap_err();
    assert_eq!(
        (script.elapsed(), error.kind()),
        (12, ErrorKind::Unavailable)
    );
    let source = error
        .source()
        .and_then(|s| s.downcast_ref::<io::Error>())
        .unwrap();
    assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
    let error = Script::new([]).dial(LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

/// A listener that answers nobody any more: its queue, of the shortest length there is, is full.
async fn silent() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    // On loopback the kernel answers before `connect` returns, if it answers at all.
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queued.push(stream);
    }
    (listener, queued)
}

/// The system's network, with a name of several addresses.
struct Several(Vec<SocketAddr>);

impl Network for Several {
    type Stream = TcpStream;

    async fn resolve(&self, _authority: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(self.0.clone())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        System.connect(address).await
    }
}

#[tokio::test]
async fn of_two_real_addresses_the_second_answers_where_the_first_is_silent() {
    let (silent, _queue) = silent().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (silent, answering) = (silent.local_addr().unwrap(), listener.local_addr().unwrap());
    let network = Several(vec![silent, answering]);
    let limit = Duration::from_secs(30);
    let stream = dial_by(&network, "several:80", limit).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), answering);
    let order = reachable_by(&network, "several:80", limit).await.unwrap();
    assert_eq!(order, [answering, silent]);
    let (network, limit) = (Several(vec![silent]), Duration::from_millis(300));
    let error = dial_by(&network, "one:80", limit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn whoever_answers_first_is_put_first_and_a_single_address_is_not_asked() {
    let fates = [
        (v4(1), Silent),
        (v4(2), Refuses(0)),
        (v4(3), Answers(0)),
        (v4(4), Answers(0)),
    ];
    let script = Script::new(fates);
    let order = reachable_by(&script, "several:80", LIMIT).await.unwrap();
    assert_eq!(order, [v4(3), v4(1), v4(2), v4(4)]);
    let script = Script::new([(v4(1), Silent)]);
    let order = reachable_by(&script, "several:80", LIMIT).await.unwrap();
    assert_eq!((order, script.begun()), (vec![v4(1)], vec![]));
}

#[tokio::test]
async fn addresses_need_no_resolution_and_names_are_resolved_by_the_system() {
    for literal in ["127.0.0.1:80", "[::1]:80"] {
        let found = addresses(literal).await.unwrap();
        assert_eq!(found, [literal.parse::<SocketAddr>().unwrap()]);
    }
    let local = addresses("localhost:80").await.unwrap();
    assert!(
        local.iter().all(|address| address.ip().is_loopback()),
        "{local:?}"
    );
    let error = addresses("no-such-host.invalid:80").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.source().is_some());
}
