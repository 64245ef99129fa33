//! The driver: what a registration does to its two nodes.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{Driver, Interest, Listing, Record, Release, Subscription, Timings};
use plimsoll_discovery_api::{Capabilities, Error, ErrorKind, Incarnation, Result, ServiceName};
use tokio::sync::{Mutex, watch};
use zookeeper_client::{
    Acls, Client, CreateMode, CreateOptions, Error as Native, EventType, MultiWriteError,
    MultiWriteResult, Stat,
};

use crate::builder::Config;
use crate::codec;
use crate::error::{failed, gone};
use crate::paths::{Nodes, Tree};
use crate::read;
use crate::session::{Link, Session};
use crate::updates;

/// So often a write that lost a race with another writer is settled anew within one call.
const SETTLE_ATTEMPTS: u32 = 5;
/// Half of what a server takes in one packet by default; two nodes and a path fit beside it.
const MAX_RECORD_BYTES: usize = 512 * 1024;

/// What stands at the two paths.
type Pair = (Option<(Vec<u8>, Stat)>, Option<(Vec<u8>, Stat)>);

pub(crate) struct ZkDriver {
    config: Arc<Config>,
    tree: Tree,
    session: OnceLock<Session>,
}

/// Two nodes of one session.
#[derive(Debug)]
pub(crate) struct ZkClaim {
    nodes: Nodes,
    incarnation: Incarnation,
    /// The session they hang on.
    owner: i64,
    /// When the identity was created: what stands there later is another's.
    czxid: i64,
    /// One writer at a time, so that its versions are a chain.
    versions: Mutex<Versions>,
}

#[derive(Clone, Copy, Debug)]
struct Versions {
    identity: i32,
    load: Option<i32>,
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
            config: Arc::new(config),
            tree,
            session: OnceLock::new(),
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

    fn acls(&self) -> Acls<'static> {
        if self.config.credentials.is_some() {
            Acls::creator_all()
        } else {
            Acls::anyone_all()
        }
    }

    fn ephemeral(&self) -> CreateOptions<'static> {
        CreateMode::Ephemeral.with_acls(self.acls())
    }

    /// The client of the session that `claim` hangs on.
    async fn client_of(&self, claim: &ZkClaim) -> Result<Client> {
        let (client, id) = self.session().client().await?;
        if id == claim.owner {
            return Ok(client);
        }
        Err(gone(&claim.nodes.identity, "the session has expired"))
    }

    /// Creates the parents of `nodes`: those of all services for good, those of one to go when
    /// they are empty, where the server knows such nodes.
    async fn make_parents(&self, client: &Client, nodes: &Nodes) -> Result<()> {
        let lasting = CreateMode::Persistent.with_acls(self.acls());
        let passing = CreateMode::Container.with_acls(self.acls());
        let branches = &nodes.branches;
        for branch in [&branches.services, &branches.load, &branches.departed] {
            let above = branch.rsplit_once('/').map_or("", |(above, _)| above);
            client.mkdir(above, &lasting).await.map_err(failed)?;
            match client.mkdir(branch, &passing).await {
                Err(Native::Unimplemented) => {
                    client.mkdir(branch, &lasting).await.map_err(failed)?
                }
                made => made.map_err(failed)?,
            }
        }
        Ok(())
    }

    /// Replaces what is known of `there` by both nodes in one step.
    async fn put(
        &self,
        client: &Client,
        nodes: &Nodes,
        record: &Record,
        there: &Pair,
    ) -> Result<Stat, Native> {
        let (bytes, load) = (
            codec::write(record).map_err(unexpected)?,
            record.load.to_string(),
        );
        let mut writer = client.new_multi_writer();
        if let (Some((_, stat)), _) = there {
            writer.add_delete(&nodes.identity, Some(stat.version))?;
        }
        if let (_, Some((_, stat))) = there {
            writer.add_delete(&nodes.load, Some(stat.version))?;
        }
        writer.add_create(&nodes.identity, &bytes, &self.ephemeral())?;
        writer.add_create(&nodes.load, load.as_bytes(), &self.ephemeral())?;
        let results = writer.commit().await.map_err(native)?;
        let made = results.into_iter().find_map(|result| match result {
            MultiWriteResult::Create { stat, .. } if !stat.is_invalid() => Some(stat),
            _ => None,
        });
        match made {
            Some(stat) => Ok(stat),
            // Some servers answer without.
            None => client
                .check_stat(&nodes.identity)
                .await?
                .ok_or(Native::NoNode),
        }
    }

    /// Brings the record of this very life and session up to date.
    async fn adopt(
        &self,
        client: &Client,
        nodes: &Nodes,
        record: &Record,
        identity: &Stat,
        load: Option<&Stat>,
    ) -> Result<Versions, Native> {
        let (bytes, value) = (
            codec::write(record).map_err(unexpected)?,
            record.load.to_string(),
        );
        let mut writer = client.new_multi_writer();
        writer.add_set_data(&nodes.identity, &bytes, Some(identity.version))?;
        match load {
            Some(stat) => writer.add_set_data(&nodes.load, value.as_bytes(), Some(stat.version))?,
            None => writer.add_create(&nodes.load, value.as_bytes(), &self.ephemeral())?,
        }
        writer.commit().await.map_err(native)?;
        Ok(Versions {
            identity: identity.version + 1,
            load: Some(load.map_or(0, |stat| stat.version + 1)),
        })
    }

    /// Reads both nodes; in the order of this session, so after all that it has asked for.
    async fn standing(&self, client: &Client, nodes: &Nodes) -> Result<Pair> {
        let paths = [nodes.identity.clone(), nodes.load.clone()];
        let mut found = read::read_all(client, &paths).await?.into_iter();
        Ok((found.next().flatten(), found.next().flatten()))
    }

    /// Reads the versions of `claim` anew, after they were not what was thought.
    async fn recall(&self, client: &Client, claim: &ZkClaim) -> Result<Versions> {
        let (identity, load) = self.standing(client, &claim.nodes).await?;
        let (_, stat) = identity
            .filter(|(_, stat)| stat.czxid == claim.czxid)
            .ok_or_else(|| gone(&claim.nodes.identity, "the node is gone, or another's"))?;
        let load = load.filter(|(_, stat)| stat.ephemeral_owner == claim.owner);
        Ok(Versions {
            identity: stat.version,
            load: load.map(|(_, stat)| stat.version),
        })
    }
}

#[async_trait]
impl Driver for ZkDriver {
    type Claim = ZkClaim;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("zk");
        let timings = &self.config.timings;
        // Servers look for expired sessions once a tick, of which a session lasts at least two.
        capabilities.crash_detection = Some(self.config.session_timeout.mul_f64(1.5));
        capabilities.propagation = Duration::from_millis(200).max(timings.coalesce * 2);
        capabilities.load_interval = timings.load.min_interval;
        capabilities.load_max_age = timings.load.max_age;
        capabilities.max_record_bytes = Some(MAX_RECORD_BYTES);
        capabilities
    }

    fn timings(&self) -> Timings {
        self.config.timings
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
        let nodes = self
            .tree
            .nodes(record.instance.service(), record.instance.id());
        let (client, owner) = self.session().client().await?;
        let claimed = |czxid, versions| ZkClaim {
            nodes: nodes.clone(),
            incarnation: record.incarnation,
            owner,
            czxid,
            versions: Mutex::new(versions),
        };
        // Most often nothing is there.
        let mut there: Pair = (None, None);
        for _ in 0..SETTLE_ATTEMPTS {
            match self.put(&client, &nodes, record, &there).await {
                Ok(stat) => {
                    let versions = Versions {
                        identity: stat.version,
                        load: Some(0),
                    };
                    return Ok(claimed(stat.czxid, versions));
                }
                Err(Native::NoNode) => self.make_parents(&client, &nodes).await?,
                Err(Native::NodeExists | Native::BadVersion) => {}
                Err(error) => return Err(failed(error)),
            }
            there = self.standing(&client, &nodes).await?;
            let Some((bytes, stat)) = &there.0 else {
                continue;
            };
            let life = codec::incarnation(bytes, stat.czxid);
            if life == record.incarnation && stat.ephemeral_owner == owner {
                let load = there.1.as_ref().map(|(_, stat)| stat);
                let load = load.filter(|stat| stat.ephemeral_owner == owner);
                match self.adopt(&client, &nodes, record, stat, load).await {
                    Ok(versions) => return Ok(claimed(stat.czxid, versions)),
                    Err(Native::NoNode | Native::NodeExists | Native::BadVersion) => {
                        there = self.standing(&client, &nodes).await?;
                    }
                    Err(error) => return Err(failed(error)),
                }
            } else if life != record.incarnation && !former.contains(&life) {
                return Err(
                    Error::new(ErrorKind::Conflict, "another live owner holds the id")
                        .with_context("path", nodes.identity)
                        .with_context("owner", life.to_string())
                        .with_context("session", format!("{:#x}", stat.ephemeral_owner)),
                );
            }
        }
        Err(
            Error::new(ErrorKind::Unavailable, "others keep writing the same node")
                .with_context("path", nodes.identity),
        )
    }

    async fn renew(&self, claim: &ZkClaim) -> Result<()> {
        let client = self.client_of(claim).await?;
        match client
            .check_stat(&claim.nodes.identity)
            .await
            .map_err(failed)?
        {
            Some(stat) if stat.czxid == claim.czxid => Ok(()),
            _ => Err(gone(
                &claim.nodes.identity,
                "the node is gone, or another's",
            )),
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
        let client = self.client_of(claim).await?;
        let bytes = codec::write(record)?;
        let path = &claim.nodes.identity;
        let mut versions = claim.versions.lock().await;
        for _ in 0..SETTLE_ATTEMPTS {
            match client.set_data(path, &bytes, Some(versions.identity)).await {
                Ok(stat) => {
                    versions.identity = stat.version;
                    return Ok(());
                }
                Err(Native::BadVersion | Native::NoNode) => {
                    *versions = self.recall(&client, claim).await?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "others keep writing the same node",
        ))
    }

    async fn publish(&self, claim: &ZkClaim, load: u64) -> Result<()> {
        let client = self.client_of(claim).await?;
        let text = load.to_string();
        let Nodes {
            identity,
            load: path,
            ..
        } = &claim.nodes;
        let mut versions = claim.versions.lock().await;
        for _ in 0..SETTLE_ATTEMPTS {
            let mut writer = client.new_multi_writer();
            writer
                .add_check_version(identity, versions.identity)
                .map_err(failed)?;
            let written = match versions.load {
                Some(version) => writer.add_set_data(path, text.as_bytes(), Some(version)),
                None => writer.add_create(path, text.as_bytes(), &self.ephemeral()),
            };
            written.map_err(failed)?;
            match writer.commit().await.map_err(native) {
                Ok(_) => {
                    versions.load = Some(versions.load.map_or(0, |version| version + 1));
                    return Ok(());
                }
                Err(Native::BadVersion | Native::NoNode | Native::NodeExists) => {
                    *versions = self.recall(&client, claim).await?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "others keep writing the same node",
        ))
    }

    async fn release(&self, release: &Release, _claim: Option<&ZkClaim>) -> Result<()> {
        let (client, _) = self.session().client().await?;
        let nodes = self.tree.nodes(&release.service, &release.id);
        for _ in 0..SETTLE_ATTEMPTS {
            let (identity, load) = self.standing(&client, &nodes).await?;
            let Some((bytes, stat)) = identity else {
                return Ok(());
            };
            let life = codec::incarnation(&bytes, stat.czxid);
            if !release.incarnations.contains(&life) {
                return Ok(());
            }
            let departure = nodes.branches.departure(life);
            let mut writer = client.new_multi_writer();
            let fill = || {
                writer.add_create(&departure, b"", &self.ephemeral())?;
                writer.add_delete(&departure, None)?;
                writer.add_delete(&nodes.identity, Some(stat.version))?;
                load.map_or(Ok(()), |_| writer.add_delete(&nodes.load, None))
            };
            fill().map_err(failed)?;
            match writer.commit().await.map_err(native) {
                Ok(_) => return Ok(()),
                Err(Native::NoNode) => self.make_parents(&client, &nodes).await?,
                Err(Native::BadVersion | Native::NodeExists) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "others keep writing the same node",
        ))
    }

    async fn list(&self, service: &ServiceName) -> Result<Listing> {
        let (client, _) = self.session().client().await?;
        Ok(read::view(&client, &self.tree, service).await?.listing)
    }

    async fn subscribe(&self, service: &ServiceName, _: Interest) -> Result<Subscription> {
        let (client, _) = self.session().client().await?;
        updates::subscribe(client, &self.tree, service).await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let (client, _) = self.session().client().await?;
        read::services(&client, &self.tree).await
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

fn native(error: MultiWriteError) -> Native {
    error.into()
}

fn unexpected(error: Error) -> Native {
    Native::UnexpectedError(error.to_string())
}
