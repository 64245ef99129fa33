//! A TCP proxy that one handle connects through. It runs on threads of its own, so that it is no
//! task of the test's runtime.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// So much of what the server says first on a connection is kept.
const OPENING: usize = 256;
/// So much of what the client says first: the whole head of a request, as servers among themselves
/// make them.
const HEAD: usize = 2048;

/// What happens to the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// It passes.
    Pass,
    /// It passes, each packet so much later.
    Delay(Duration),
    /// Connections are closed as soon as they are made.
    Refuse,
    /// Nothing is closed and nothing passes; what was under way waits.
    Hold,
    /// What the server says does not pass; what the client says does.
    HoldReplies,
    /// What the client says does not pass; what the server says does.
    HoldRequests,
    /// It passes until the server has said so many more bytes. There every connection breaks, in
    /// the middle of whatever was being said, and from then on it passes.
    BreakAfter(usize),
    /// The proxy is gone for good.
    End,
}

impl Mode {
    fn holds(self, replies: bool) -> bool {
        match self {
            Self::Hold => true,
            Self::HoldReplies => replies,
            Self::HoldRequests => !replies,
            _ => false,
        }
    }

    fn passes(self) -> bool {
        matches!(self, Self::Pass | Self::Delay(_) | Self::BreakAfter(_))
    }

    fn delay(self) -> Duration {
        match self {
            Self::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }
}

/// The proxy. Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// Both ends of those that are open, by their number.
    connections: BTreeMap<usize, [TcpStream; 2]>,
    /// By the number of the connection.
    openings: Vec<Vec<u8>>,
    /// What the client said first, by the same.
    heads: Vec<Vec<u8>>,
    /// Whoever says this as it connects is held both ways.
    barred: Option<String>,
}

impl Proxy {
    /// Passes to `server` what arrives on an address of its own.
    #[must_use]
    pub fn start(server: SocketAddr, mode: Mode) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                mode,
                connections: BTreeMap::new(),
                openings: Vec::new(),
                heads: Vec::new(),
                barred: None,
            }),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, server, &accepting));
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        let mut state = self.shared.lock();
        if state.mode == Mode::End {
            return;
        }
        // A connection that has lost bytes is no use any more, and one that was held is given up.
        if matches!(mode, Mode::Refuse | Mode::End) || (mode.passes() && !state.mode.passes()) {
            state.close();
        }
        state.mode = mode;
        self.shared.changed.notify_all();
    }

    /// From now on whoever says `text` as it connects, in whatever case, is held both ways, those among
    /// them who are connected; or nobody, and what was held goes on.
    pub fn bar(&self, text: Option<&str>) {
        self.shared.lock().barred = text.map(str::to_ascii_lowercase);
        self.shared.changed.notify_all();
    }

    /// Closes every connection once, as a peer does that ends.
    pub fn cut(&self) {
        self.shared.lock().close();
    }

    /// Resets every connection once, as a firewall does, or a machine that has started anew: what is
    /// under way is lost, and to read or to write is an error.
    pub fn reset(&self) {
        self.shared.lock().reset();
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// What the server said first on each connection, oldest first, up to 256 bytes.
    #[must_use]
    pub fn openings(&self) -> Vec<Vec<u8>> {
        self.shared.lock().openings.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::End);
        // Wakes the listener.
        let _woken = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many of so many bytes that the server says pass, and whether that is the end.
    fn spend(&mut self, length: usize) -> (usize, bool) {
        match &mut self.mode {
            Mode::BreakAfter(left) if *left > length => {
                *left -= length;
                (length, false)
            }
            Mode::BreakAfter(left) => {
                let last = *left;
                self.mode = Mode::Pass;
                (last, true)
            }
            _ => (length, false),
        }
    }

    /// Whether what comes on a connection from the one side or the other is to wait.
    fn holds(&self, number: usize, replies: bool) -> bool {
        let is_barred = |text: &String| {
            let head = String::from_utf8_lossy(&self.heads[number]);
            head.to_ascii_lowercase().contains(text.as_str())
        };
        self.mode.holds(replies) || self.barred.as_ref().is_some_and(is_barred)
    }

    fn close(&mut self) {
        for stream in std::mem::take(&mut self.connections).values().flatten() {
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    fn reset(&mut self) {
        for stream in std::mem::take(&mut self.connections).values().flatten() {
            // The last one to close it, which is one of its pumps, then does not say goodbye.
            let _abrupt = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _woken = stream.shutdown(Shutdown::Read);
        }
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let mode = shared.lock().mode;
        let Ok(client) = client else { continue };
        match mode {
            Mode::End => return,
            Mode::Refuse => continue,
            Mode::Pass
            | Mode::Delay(_)
            | Mode::Hold
            | Mode::HoldReplies
            | Mode::HoldRequests
            | Mode::BreakAfter(_) => {}
        }
        let Ok(upstream) = TcpStream::connect(server) else {
            continue;
        };
        for end in [&client, &upstream] {
            // What passes at once must not wait for an acknowledgement of what passed before.
            let _slow_otherwise = end.set_nodelay(true);
        }
        let pair = || Some([client.try_clone().ok()?, upstream.try_clone().ok()?]);
        let (Some([c, s]), Some(kept)) = (pair(), pair()) else {
            continue;
        };
        let mut state = shared.lock();
        if matches!(state.mode, Mode::Refuse | Mode::End) {
            continue;
        }
        let number = state.openings.len();
        state.openings.push(Vec::new());
        state.heads.push(Vec::new());
        state.connections.insert(number, kept);
        drop(state);
        let (there, back) = (Arc::clone(shared), Arc::clone(shared));
        thread::spawn(move || pump(client, s, &there, number, false));
        thread::spawn(move || pump(upstream, c, &back, number, true));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, number: usize, replies: bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let mut state = shared.lock();
        let (first, most) = if replies {
            (&mut state.openings[number], OPENING)
        } else {
            (&mut state.heads[number], HEAD)
        };
        let missing = most - first.len();
        first.extend(&buffer[..length.min(missing)]);
        while state.holds(number, replies) {
            state = shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let delay = state.mode.delay();
        let (passed, breaks) = if replies {
            state.spend(length)
        } else {
            (length, false)
        };
        drop(state);
        thread::sleep(delay);
        let written = to.write_all(&buffer[..passed]);
        if breaks {
            shared.lock().close();
        }
        if breaks || written.is_err() {
            break;
        }
    }
    // What is not there any more was closed or reset by whoever took it away.
    if let Some(pair) = shared.lock().connections.remove(&number) {
        let _closed = pair.map(|stream| stream.shutdown(Shutdown::Both));
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn whoever_is_barred_is_held_both_ways_and_nobody_else_is() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap(), Mode::Pass);
        let connect = |name: &str| {
            let mut client = TcpStream::connect(proxy.address()).unwrap();
            client.write_all(format!("I am {name}").as_bytes()).unwrap();
            let (server, _) = listener.accept().unwrap();
            [client, server]
        };
        let [mut early, mut its_server] = connect("EARLY");
        its_server.read_exact(&mut [0; 10]).unwrap();
        proxy.bar(Some("i am early"));
        let [_other, mut other_server] = connect("other");
        other_server.read_exact(&mut [0; 10]).unwrap();
        early.write_all(b"a").unwrap();
        its_server.write_all(b"b").unwrap();
        for end in [&mut early, &mut its_server] {
            end.set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            let failure = end.read(&mut [0]).unwrap_err();
            assert_eq!(failure.kind(), ErrorKind::WouldBlock);
            end.set_read_timeout(None).unwrap();
        }
        proxy.bar(None);
        early.read_exact(&mut [0]).unwrap();
        its_server.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn a_cut_connection_ends_and_a_reset_one_fails() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap(), Mode::Pass);
        let connect = || {
            let mut client = TcpStream::connect(proxy.address()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            // Both ways are open once something has gone each way.
            client.write_all(b"a").unwrap();
            server.read_exact(&mut [0]).unwrap();
            server.write_all(b"b").unwrap();
            client.read_exact(&mut [0]).unwrap();
            [client, server]
        };
        let ends = connect();
        proxy.cut();
        for mut end in ends {
            assert_eq!(end.read(&mut [0]).unwrap(), 0);
        }
        let ends = connect();
        proxy.reset();
        for mut end in ends {
            let failure = end.read(&mut [0]).unwrap_err();
            assert_eq!(failure.kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(proxy.connections(), 0);
    }
}
