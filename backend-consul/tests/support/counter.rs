//! Counts the requests that pass: a relay on threads of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The request lines so far, oldest first, without the version.
type Lines = Arc<Mutex<Vec<String>>>;

pub struct Counter {
    address: SocketAddr,
    lines: Lines,
    open: Arc<AtomicUsize>,
    arrived: Arc<AtomicUsize>,
}

impl Counter {
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let lines = Lines::default();
        let counted = Arc::clone(&lines);
        let open = Arc::new(AtomicUsize::new(0));
        let opened = Arc::clone(&open);
        let arrived = Arc::new(AtomicUsize::new(0));
        let arrivals = Arc::clone(&arrived);
        thread::spawn(move || {
            for client in listener.incoming() {
                arrivals.fetch_add(1, Ordering::Relaxed);
                let (Ok(client), Ok(upstream)) = (client, TcpStream::connect(server)) else {
                    continue;
                };
                let (Ok(c), Ok(s)) = (client.try_clone(), upstream.try_clone()) else {
                    continue;
                };
                let (lines, open) = (Arc::clone(&counted), Arc::clone(&opened));
                open.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || {
                    relay(client, s, Some(&lines));
                    open.fetch_sub(1, Ordering::Relaxed);
                });
                thread::spawn(move || relay(upstream, c, None));
            }
        });
        Self {
            address,
            lines,
            open,
            arrived,
        }
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many connections were made so far, those among them that the server did not take.
    pub fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far whose line holds `part`.
    pub fn count(&self, part: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(part)).count()
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream, lines: Option<&Lines>) {
    let mut buffer = [0; 16 * 1024];
    let mut line = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if let Some(lines) = lines {
            for byte in &buffer[..length] {
                if *byte != b'\n' {
                    line.push(*byte);
                    continue;
                }
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if let Some(request) = text.strip_suffix(" HTTP/1.1") {
                    lines
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(request.to_owned());
                }
            }
            // A body ends without a new line, and the next request begins one.
            if !line.starts_with(b"GET ") && !line.starts_with(b"PUT ") {
                line.clear();
            }
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
