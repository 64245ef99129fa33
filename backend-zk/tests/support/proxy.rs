//! A TCP proxy that one handle connects through. It runs on threads of its own, so that it is no
//! task of the test's runtime.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::raw::Ticket;

/// What happens to the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Connections are closed as soon as they are made.
    Refuse,
    /// Nothing is closed and nothing passes; what was under way waits.
    Hold,
    /// What the server says does not pass; what the client says does.
    HoldReplies,
    /// The proxy is gone for good.
    End,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    streams: Vec<TcpStream>,
    tickets: Vec<Ticket>,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

pub struct Proxy {
    address: SocketAddr,
    shared: Shared,
}

impl Proxy {
    pub fn start(server: SocketAddr, mode: Mode) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = State {
            mode,
            streams: Vec::new(),
            tickets: Vec::new(),
        };
        let shared: Shared = Arc::new((Mutex::new(state), Condvar::new()));
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, server, &accepting));
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.mode == Mode::End {
            return;
        }
        let silent = |mode| matches!(mode, Mode::Hold | Mode::HoldReplies);
        // A connection that has lost bytes is no use any more, and one that was held is given up.
        if mode == Mode::Refuse || mode == Mode::End || (mode == Mode::Pass && silent(state.mode)) {
            for stream in state.streams.drain(..) {
                let _closed = stream.shutdown(Shutdown::Both);
            }
        }
        state.mode = mode;
        changed.notify_all();
    }

    /// Closes every connection once.
    pub fn cut(&self) {
        let mut state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in state.streams.drain(..) {
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    /// The sessions that were granted through this proxy, oldest first.
    pub fn tickets(&self) -> Vec<Ticket> {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tickets
            .clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::End);
        // Wakes the listener.
        let _woken = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, shared: &Shared) {
    for client in listener.incoming() {
        let mode = shared.0.lock().unwrap_or_else(PoisonError::into_inner).mode;
        let Ok(client) = client else { continue };
        match mode {
            Mode::End => return,
            Mode::Refuse => continue,
            Mode::Pass | Mode::Hold | Mode::HoldReplies => {}
        }
        let Ok(upstream) = TcpStream::connect(server) else {
            continue;
        };
        let pair = || Some([client.try_clone().ok()?, upstream.try_clone().ok()?]);
        let (Some([c, s]), Some(kept)) = (pair(), pair()) else {
            continue;
        };
        shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .streams
            .extend(kept);
        let (there, back) = (Arc::clone(shared), Arc::clone(shared));
        thread::spawn(move || pump(client, s, &there, false));
        thread::spawn(move || pump(upstream, c, &back, true));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, replies: bool) {
    let mut buffer = [0; 16 * 1024];
    let mut opening = Some(Vec::new());
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let (state, changed) = &**shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = opening.as_mut().filter(|_| replies) {
            read.extend(&buffer[..length]);
            if let Some(ticket) = Ticket::read(read) {
                opening = None;
                if ticket.id != 0 {
                    state.tickets.push(ticket);
                }
            }
        }
        let held = |mode| mode == Mode::Hold || (mode == Mode::HoldReplies && replies);
        while held(state.mode) {
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
