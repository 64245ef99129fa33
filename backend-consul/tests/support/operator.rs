//! What an operator does and sees, past every proxy.

use plimsoll_backend_kit::escape;
use plimsoll_discovery_api::{Incarnation, ServiceName};
use plimsoll_test_servers::consul::Server;
use serde_json::Value;

use super::harness::ROOT;

/// The key that an instance is owned through.
pub fn key(service: &ServiceName, id: &str) -> String {
    format!("{ROOT}/load/{}/{}", escape(service.as_str()), escape(id))
}

/// The agent's id of one life of an instance.
pub fn service_id(service: &ServiceName, id: &str, life: Incarnation) -> String {
    format!("{}:{}:{life}", escape(service.as_str()), escape(id))
}

/// The path of a key: its names stand in it once escaped, and once more for the path.
pub fn key_path(key: &str) -> String {
    let segments: Vec<_> = key.split('/').map(escape).collect();
    format!("/v1/kv/{}", segments.join("/"))
}

/// A key as it stands.
#[derive(Clone, Debug)]
pub struct Owned {
    pub session: String,
    pub index: u64,
    pub value: String,
}

impl Owned {
    pub fn life(&self) -> Option<Incarnation> {
        self.value.split(' ').next()?.parse().ok()
    }
}

pub fn owned(server: &Server, key: &str) -> Option<Owned> {
    let (status, body) = server.call("GET", &key_path(key), "");
    if status == 404 {
        return None;
    }
    let pairs: Value = serde_json::from_str(&body).expect("JSON");
    let encoded = pairs[0]["Value"].as_str().unwrap_or_default();
    Some(Owned {
        session: pairs[0]["Session"].as_str().unwrap_or_default().to_owned(),
        index: pairs[0]["ModifyIndex"].as_u64().expect("an index"),
        value: String::from_utf8(unbase64(encoded)).expect("text"),
    })
}

/// The name of a session: the address of the proxy that its handle speaks through.
pub fn session_name(server: &Server, session: &str) -> Option<String> {
    let (_, body) = server.call("GET", &format!("/v1/session/info/{session}"), "");
    let sessions: Value = serde_json::from_str(&body).expect("JSON");
    Some(sessions[0]["Name"].as_str()?.to_owned())
}

pub fn put(server: &Server, path: &str, body: &str) -> String {
    let (status, answer) = server.call("PUT", path, body);
    assert_eq!(status, 200, "PUT {path}: {answer}");
    answer
}

pub fn get(server: &Server, path: &str) -> Value {
    let (status, body) = server.call("GET", path, "");
    if status == 404 {
        return Value::Null;
    }
    assert_eq!(status, 200, "GET {path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// All services of the agent, by their ids.
pub fn agent_services(server: &Server) -> Vec<String> {
    let services = get(server, "/v1/agent/services");
    services
        .as_object()
        .expect("a map")
        .keys()
        .cloned()
        .collect()
}

pub fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = bits >> (18 - 6 * digit) & 63;
            encoded.push(if digit <= chunk.len() {
                DIGITS[index as usize] as char
            } else {
                '='
            });
        }
    }
    encoded
}

fn unbase64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u8> = text.bytes().filter_map(digit).collect();
    let mut bytes = Vec::new();
    for chunk in digits.chunks(4) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit))
            << (6 * (4 - chunk.len()));
        bytes.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    bytes
}
