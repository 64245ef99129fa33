//! The wire protocol, as far as it takes to end a session from outside.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A session's id and password, which are all that it takes to speak for it.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub id: i64,
    pub password: Vec<u8>,
}

impl Ticket {
    /// Reads it from the server's first packet on a connection, once that is there in full.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        // Length, protocol version, timeout, session id, length of the password, password.
        let id = i64::from_be_bytes(bytes.get(12..20)?.try_into().ok()?);
        let length = u32::from_be_bytes(bytes.get(20..24)?.try_into().ok()?) as usize;
        let password = bytes.get(24..24 + length)?.to_vec();
        Some(Self { id, password })
    }
}

/// Ends the session on the server, as the server does when it has heard nothing for too long: its
/// nodes go, and its owner learns of it when it is next refused.
///
/// The owner reconnects at once when its session is spoken for by another, and may be faster than
/// the request to close; so it is repeated until the server no longer knows the session.
pub fn end_session(server: SocketAddr, ticket: &Ticket) {
    for _ in 0..200 {
        if try_end(server, ticket).is_some_and(|known| !known) {
            return;
        }
    }
    panic!("the session {:#x} does not end", ticket.id);
}

/// Whether the server still knew the session; nothing, if there was no answer.
fn try_end(server: SocketAddr, ticket: &Ticket) -> Option<bool> {
    let mut stream = TcpStream::connect(server).expect("the server");
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a limit");
    let mut connect = Vec::new();
    connect.extend(0_i32.to_be_bytes()); // protocol version
    connect.extend(0_i64.to_be_bytes()); // last transaction seen
    connect.extend(4_000_i32.to_be_bytes()); // timeout in ms
    connect.extend(ticket.id.to_be_bytes());
    connect.extend(length(&ticket.password));
    connect.extend(&ticket.password);
    connect.push(0); // not read-only
    send(&mut stream, &connect)?;
    let answer = receive(&mut stream)?;
    let granted = answer.get(8..16)?;
    if granted == [0; 8] {
        return Some(false);
    }
    let mut close = Vec::new();
    close.extend(1_i32.to_be_bytes()); // number of the request
    close.extend((-11_i32).to_be_bytes()); // closeSession
    send(&mut stream, &close)?;
    let _answer = receive(&mut stream);
    Some(true)
}

fn send(stream: &mut TcpStream, body: &[u8]) -> Option<()> {
    let mut packet = length(body).to_vec();
    packet.extend(body);
    stream.write_all(&packet).ok()
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len())
        .expect("a short packet")
        .to_be_bytes()
}

fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}
