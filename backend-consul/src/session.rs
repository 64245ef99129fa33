//! The one session of a handle.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::Error;
use tokio::time::Instant;

use crate::codec::span;
use crate::config::Config;
use crate::http::wire::NewSession;

/// Where the session stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) session: Option<Session>,
    /// Counts the attempts to create one, so that whoever waits sees the end of each.
    pub(crate) attempts: u64,
    /// Why the last attempt failed to create one, or to renew it.
    pub(crate) cause: Option<Error>,
}

/// A session that the server knew when it was last asked.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: Arc<str>,
    /// The agent's node.
    pub(crate) node: Arc<str>,
    /// When the call was begun that last confirmed it: so long after it at least, it lives.
    pub(crate) confirmed: Instant,
}

impl Session {
    /// Whether the server cannot have ended it by its own clock.
    pub(crate) fn is_certain(&self, ttl: Duration) -> bool {
        self.confirmed.elapsed() < ttl
    }
}

/// What is asked of the server. Keys go with the session, and may be taken anew at once: what would
/// be late is kept out by the index that every write names, not by a delay.
pub(crate) fn wanted(config: &Config) -> NewSession<'_> {
    NewSession {
        name: &config.name,
        lock_delay: "0s",
        behavior: "delete",
        ttl: span(config.session_ttl),
        node_checks: if config.node_health {
            vec!["serfHealth"]
        } else {
            Vec::new()
        },
    }
}
