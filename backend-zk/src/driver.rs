//! The driver: what the machinery of all backends asks of this one.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{
    Admission, Class, Driver, Interest, Listing, Record, Release, Subscription, Task, Timings,
};
use plimsoll_discovery_api::{Capabilities, Error, ErrorKind, Incarnation, Result, ServiceName};
use tokio::sync::watch;
use zookeeper_client::{
    Acls, CreateMode, CreateOptions, Error as Native, EventType, MultiWriteError,
};

use crate::builder::Config;
use crate::claim::ZkClaim;
use crate::codec;
use crate::depart::Departures;
use crate::error::gone;
use crate::fetch::{Standing, read_all};
use crate::parents::Parents;
use crate::paths::{Nodes, Tree};
use crate::read;
use crate::session::{Connection, Link, Session};
use crate::watch::subscribe;

/// So often a write that lost a race with another writer is settled anew within one call.
pub(crate) const SETTLE_ATTEMPTS: u32 = 5;
/// Half of what a server takes in one packet by default; two nodes and a path fit beside it.
const MAX_RECORD_BYTES: usize = 512 * 1024;

/// What stands at the two paths.
pub(crate) type Pair = (Standing, Standing);

pub(crate) struct ZkDriver {
    config: Arc<Config>,
    pub(crate) tree: Tree,
    session: OnceLock<Session>,
    admission: Admission,
    pub(crate) departures: Departures,
    pub(crate) parents: Parents,
    /// A claim was answered with the end of its session, which may be no end but a session that owns
    /// nothing.
    pub(crate) doubtful: AtomicBool,
}

impl fmt::Debug for ZkDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkDriver")
            .field("config", &self.config)
            .field("session", &self.session.get())
            .finish_non_exhaustive()
    }
}

impl ZkDriver {
    pub(crate) fn new(config: Config) -> Self {
        let tree = Tree {
            root: config.root.clone(),
        };
        Self {
            admission: Admission::new(&config.timings),
            config: Arc::new(config),
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

    pub(crate) fn session_timeout(&self) -> Option<Duration> {
        self.session.get().and_then(Session::timeout)
    }

    pub(crate) fn acls(&self) -> Acls<'_> {
        self.config.acl.as_native()
    }

    pub(crate) fn ephemeral(&self) -> CreateOptions<'_> {
        CreateMode::Ephemeral.with_acls(self.acls())
    }

    pub(crate) fn load_interval(&self) -> Duration {
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
    pub(crate) async fn standing(&self, connection: &Connection, nodes: &Nodes) -> Result<Pair> {
        let paths = [nodes.identity.clone(), nodes.load.clone()];
        let mut found = read_all(connection, &paths).await?.into_iter();
        let mut next = || found.next().unwrap_or(Ok(None));
        Ok((next()?, next()?))
    }
}

#[async_trait]
impl Driver for ZkDriver {
    type Claim = ZkClaim;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("zk");
        let timings = &self.config.timings;
        let session = self.session_timeout();
        let session = session.unwrap_or(self.config.session_timeout);
        // Servers look for expired sessions once a tick, of which a session lasts at least two.
        capabilities.crash_detection = Some(session.mul_f64(1.5));
        capabilities.id_release = capabilities.crash_detection;
        capabilities.propagation = Duration::from_millis(200).max(timings.coalesce * 2);
        capabilities.load_interval = timings.load.min_interval;
        capabilities.load_max_age = timings.load.max_age;
        capabilities.max_record_bytes = Some(MAX_RECORD_BYTES);
        capabilities
    }

    fn timings(&self) -> Timings {
        self.config.timings
    }

    fn admission(&self) -> Option<Admission> {
        Some(self.admission.clone())
    }

    async fn prepare(&self) -> Result<()> {
        self.session().connection().await.map(drop)
    }

    fn check(&self, record: &Record) -> Result<()> {
        let bytes = codec::write(record)?.len();
        if bytes > MAX_RECORD_BYTES {
            return Err(Error::invalid(
                "instance",
                record.instance.id(),
                "is too large for ZooKeeper",
            )
            .with_context("bytes", bytes.to_string())
            .with_context("most", MAX_RECORD_BYTES.to_string()));
        }
        Ok(())
    }

    async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<ZkClaim> {
        self.obtain(record, former).await
    }

    async fn renew(&self, claim: &ZkClaim) -> Result<()> {
        let connection = self.connection_of(claim).await?;
        let confirm = self.confirm(&connection, claim);
        self.admission
            .call(Class::Liveness, self.config.timings.call_timeout, confirm)
            .await
    }

    fn granted_lease(&self, claim: &ZkClaim) -> Option<Duration> {
        // A session that was resumed may have been granted for less than before.
        let current = self.session_timeout().unwrap_or(claim.granted);
        Some(claim.granted.min(current))
    }

    fn carry(&self, task: Task) -> std::result::Result<(), Task> {
        match self.session.get() {
            Some(session) => session.carry(task),
            None => Err(task),
        }
    }

    async fn lost(&self, claim: &ZkClaim) -> Error {
        let mut links = self.session().links();
        let path = &claim.nodes.identity;
        loop {
            let link = links.borrow_and_update().clone();
            if link.id != Some(claim.owner) {
                return gone(path, "the session has expired")
                    .with_context("incarnation", claim.incarnation.to_string());
            }
            let Link {
                client: Some(client),
                cause: None,
                ..
            } = link
            else {
                changed(&mut links).await;
                continue;
            };
            match client.check_and_watch_stat(path).await {
                Ok((Some(stat), watcher)) if stat.czxid == claim.czxid => {
                    tokio::select! {
                        event = watcher.changed() => if event.event_type == EventType::Session {
                            changed(&mut links).await;
                        },
                        () = ended(links.clone(), claim.owner) => {}
                    }
                }
                Ok(_) => {
                    return gone(path, "the node is gone, or another's")
                        .with_context("incarnation", claim.incarnation.to_string());
                }
                Err(_) => changed(&mut links).await,
            }
        }
    }

    async fn update(&self, claim: &ZkClaim, record: &Record) -> Result<()> {
        self.write_identity(claim, record).await
    }

    async fn publish(&self, claim: &ZkClaim, load: u64) -> Result<()> {
        self.write_load(claim, load).await
    }

    async fn release(&self, release: &Release, _claim: Option<&ZkClaim>) -> Result<()> {
        self.depart(release).await
    }

    async fn list(&self, service: &ServiceName) -> Result<Listing> {
        let connection = self.session().connection().await?;
        let view = read::view(&connection, &self.tree, service, Interest::Loads);
        Ok(view.await?.1)
    }

    async fn subscribe(&self, service: &ServiceName, interest: Interest) -> Result<Subscription> {
        let connection = self.session().connection().await?;
        subscribe(connection, &self.tree, service, interest).await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let connection = self.session().connection().await?;
        read::services(&connection, &self.tree).await
    }
}

/// Returns when the connection has changed; never, once nothing keeps it.
async fn changed(links: &mut watch::Receiver<Link>) {
    if links.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Returns when the session `owner` has ended.
async fn ended(mut links: watch::Receiver<Link>, owner: i64) {
    if links.wait_for(|link| link.id != Some(owner)).await.is_err() {
        std::future::pending().await
    }
}

pub(crate) fn native(error: MultiWriteError) -> Native {
    error.into()
}

pub(crate) fn unexpected(error: Error) -> Native {
    Native::UnexpectedError(error.to_string())
}

/// Another writer was faster, again and again.
pub(crate) fn contended() -> Error {
    Error::new(ErrorKind::Unavailable, "others keep writing the same node")
}
