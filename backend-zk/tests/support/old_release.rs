//! An older release before a real server: a proxy that reads what passes, and does with the requests
//! that the older release did not know what that release does with any that it does not know: it
//! answers at once that it is not implemented, and closes the connection.
//!
//! (`UnimplementedRequestProcessor` of `ZooKeeper`'s source; seen of 3.8.0 with a request that it
//! does not know.)

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

const CREATE_2: i32 = 15;
const RECONFIG: i32 = 16;
const CHECK_WATCHES: i32 = 17;
const REMOVE_WATCHES: i32 = 18;
const CREATE_CONTAINER: i32 = 19;
const CREATE_TTL: i32 = 21;
const MULTI_READ: i32 = 22;
const GET_EPHEMERALS: i32 = 103;
const GET_ALL_CHILDREN_NUMBER: i32 = 104;
const SET_WATCHES_2: i32 = 105;
const ADD_WATCH: i32 = 106;
const WHO_AM_I: i32 = 107;

/// What the release does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldRelease {
    /// Watches on whole branches, reads of several nodes at once, and what else came with 3.6.
    V3_5,
    /// Container nodes and such with a time to live besides, which came with 3.5.1 and 3.5.3.
    V3_5_0,
    /// Creations that tell what they have created, and the removal of watches, besides.
    V3_4,
}

impl OldRelease {
    fn knows(self, request: i32) -> bool {
        match request {
            MULTI_READ
            | GET_EPHEMERALS
            | GET_ALL_CHILDREN_NUMBER
            | SET_WATCHES_2
            | ADD_WATCH
            | WHO_AM_I => false,
            CREATE_CONTAINER | CREATE_TTL => self == Self::V3_5,
            CREATE_2 | RECONFIG | CHECK_WATCHES | REMOVE_WATCHES => self != Self::V3_4,
            _ => true,
        }
    }
}

/// The proxy. Dropping it ends it.
pub struct OldServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    release: Mutex<Option<OldRelease>>,
    ended: AtomicBool,
    refused: AtomicUsize,
}

impl Shared {
    fn knows(&self, request: i32) -> bool {
        let release = *self.release.lock().unwrap_or_else(PoisonError::into_inner);
        release.is_none_or(|release| release.knows(request))
    }
}

impl OldServer {
    /// Of the release that the server is of, unless an older one is named.
    pub fn start(server: SocketAddr, release: Option<OldRelease>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            release: Mutex::new(release),
            ended: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                if let Ok(upstream) = TcpStream::connect(server) {
                    serve(&client, &upstream, &serving);
                }
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it is of this release, as a server that took its place would be.
    pub fn become_release(&self, release: OldRelease) {
        let mut current = self
            .shared
            .release
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Some(release);
    }

    /// How many requests were not understood so far.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _woken = TcpStream::connect(self.address);
    }
}

fn serve(client: &TcpStream, upstream: &TcpStream, shared: &Arc<Shared>) {
    let both = || Some((client.try_clone().ok()?, upstream.try_clone().ok()?));
    let (Some((c1, u1)), Some((c2, u2)), Ok(replies)) = (both(), both(), client.try_clone()) else {
        return;
    };
    // Replies are written whole, whoever writes them.
    let replies = Arc::new(Mutex::new(replies));
    let (own, shared) = (Arc::clone(&replies), Arc::clone(shared));
    thread::spawn(move || {
        requests(&c1, &u1, &own, &shared);
        let _closed = (c1.shutdown(Shutdown::Both), u1.shutdown(Shutdown::Both));
    });
    thread::spawn(move || {
        while let Some(reply) = receive(&u2) {
            if !write_whole(&replies, &reply) {
                break;
            }
        }
        let _closed = (c2.shutdown(Shutdown::Both), u2.shutdown(Shutdown::Both));
    });
}

/// Passes on requests until one is not understood.
fn requests(client: &TcpStream, upstream: &TcpStream, replies: &Mutex<TcpStream>, shared: &Shared) {
    // The first packet opens the session and has no header.
    let mut opened = false;
    while let Some(packet) = receive(client) {
        let field = |at: usize| {
            let bytes = packet.get(at..at + 4)?.try_into().ok()?;
            Some(i32::from_be_bytes(bytes))
        };
        if opened
            && let (Some(number), Some(request)) = (field(4), field(8))
            && !shared.knows(request)
        {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            let mut reply = 16_i32.to_be_bytes().to_vec();
            reply.extend(number.to_be_bytes());
            reply.extend((-1_i64).to_be_bytes()); // no transaction
            reply.extend((-6_i32).to_be_bytes()); // unimplemented
            write_whole(replies, &reply);
            return;
        }
        opened = true;
        let mut upstream = upstream;
        if upstream.write_all(&packet).is_err() {
            return;
        }
    }
}

/// One packet, with its length before it.
fn receive(mut from: &TcpStream) -> Option<Vec<u8>> {
    let mut packet = vec![0; 4];
    from.read_exact(&mut packet).ok()?;
    let length = u32::from_be_bytes(packet[..4].try_into().ok()?) as usize;
    packet.resize(4 + length, 0);
    from.read_exact(&mut packet[4..]).ok()?;
    Some(packet)
}

fn write_whole(to: &Mutex<TcpStream>, packet: &[u8]) -> bool {
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    to.write_all(packet).is_ok()
}
