//! What a registration does to its two nodes.

mod claim;
pub(crate) mod departures;
mod loss;
mod parents;
mod remove;
mod write;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use plimsoll_backend_kit::Task;
use plimsoll_discovery_api::{Error, Result};
use zookeeper_client::{Acls, CreateMode, CreateOptions, Error as Native, MultiWriteError};

use self::departures::Departures;
use self::parents::Parents;
use crate::config::Config;
use crate::connection::Connection;
use crate::error::gone;
use crate::fetch::{Standing, read_all};
use crate::keys::{Nodes, Tree};
use crate::session::Session;

pub(crate) use self::claim::ZkClaim;

/// So often a write that lost a race with another writer is settled anew within one call.
const SETTLE_ATTEMPTS: u32 = 5;

/// What stands at the two paths.
type Pair = (Standing, Standing);

/// The records of one handle, all of its session.
pub(crate) struct Records {
    config: Arc<Config>,
    tree: Tree,
    session: OnceLock<Session>,
    departures: Departures,
    parents: Parents,
    /// A claim was answered with the end of its session, which may be no end but a session that owns
    /// nothing.
    doubtful: AtomicBool,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("config", &self.config)
            .field("session", &self.session.get())
            .finish_non_exhaustive()
    }
}

impl Records {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let tree = Tree {
            root: config.root.clone(),
        };
        Self {
            config,
            tree,
            session: OnceLock::new(),
            departures: Departures::default(),
            parents: Parents::default(),
            doubtful: AtomicBool::new(false),
        }
    }

    /// Opened by the first call, which is within a runtime.
    pub(crate) fn session(&self) -> &Session {
        self.session
            .get_or_init(|| Session::open(Arc::clone(&self.config)))
    }

    /// Where everything is kept.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Runs `task` where the session is kept, if there is one.
    pub(crate) fn carry(&self, task: Task) -> std::result::Result<(), Task> {
        match self.session.get() {
            Some(session) => session.carry(task),
            None => Err(task),
        }
    }

    pub(crate) fn session_timeout(&self) -> Option<Duration> {
        self.session.get().and_then(Session::timeout)
    }

    fn acls(&self) -> Acls<'_> {
        self.config.acl.as_native()
    }

    fn ephemeral(&self) -> CreateOptions<'_> {
        CreateMode::Ephemeral.with_acls(self.acls())
    }

    fn load_interval(&self) -> Duration {
        self.config.timings.load.min_interval
    }

    /// A connection of the session that `claim` hangs on.
    pub(crate) async fn connection_of(&self, claim: &ZkClaim) -> Result<Connection> {
        let connection = self.session().connection().await?;
        if connection.session == claim.owner {
            return Ok(connection);
        }
        Err(gone(&claim.nodes.identity, "the session has expired"))
    }

    /// Reads both nodes; in the order of this session, so after all that it has asked for.
    async fn standing(&self, connection: &Connection, nodes: &Nodes) -> Result<Pair> {
        let paths = [nodes.identity.clone(), nodes.load.clone()];
        let mut found = read_all(connection, &paths).await?.into_iter();
        let mut next = || found.next().unwrap_or(Ok(None));
        Ok((next()?, next()?))
    }
}

fn native(error: MultiWriteError) -> Native {
    error.into()
}

fn unexpected(error: Error) -> Native {
    Native::UnexpectedError(error.to_string())
}
