//! What is to go wrong, as it was told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, ServiceName};
use tokio::sync::watch;

/// Whether the registry answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    /// Every call is refused and every stream broken.
    Down,
    /// Nothing is refused and nothing answered.
    Hung,
}

/// What is to go wrong.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) calls_to_fail: (u32, Option<ErrorKind>),
    pub(crate) replies_to_lose: u32,
    pub(crate) events_to_drop: u32,
    pub(crate) event_delay: Duration,
    /// Owners cut off from the registry, by the life they had: whoever takes the id after them is
    /// another.
    pub(crate) crashed: HashMap<Incarnation, Crashed>,
    pub(crate) load_writes: u64,
    pub(crate) calls: u64,
}

/// What an owner held who was cut off.
#[derive(Debug)]
pub(crate) struct Crashed {
    pub(crate) service: ServiceName,
    pub(crate) key: String,
    /// Would tell him of his loss if it were dropped.
    pub(crate) _alive: Arc<watch::Sender<()>>,
}

pub(crate) fn unreachable() -> Error {
    Error::new(ErrorKind::Unavailable, "the registry is down")
}
