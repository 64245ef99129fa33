//! Obtaining a record, and what is known of it from then on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll_backend_kit::Record;
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zookeeper_client::{Client, Error as Native, MultiWriteResult, Stat};

use super::{Pair, Records, SETTLE_ATTEMPTS, native, unexpected};
use crate::codec;
use crate::error::{contended, failed_at, failed_for, is_local_session};
use crate::keys::Nodes;
use crate::row;

/// Two nodes of one session.
#[derive(Debug)]
pub(crate) struct ZkClaim {
    pub(crate) nodes: Nodes,
    pub(crate) incarnation: Incarnation,
    /// The session they hang on.
    pub(crate) owner: i64,
    /// For how long the server has granted that session without a word.
    pub(crate) granted: Duration,
    /// When the identity was created: what stands there later is another's.
    pub(crate) czxid: i64,
    /// One writer at a time, so that its versions are a chain.
    pub(crate) versions: Mutex<Versions>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Versions {
    pub(crate) identity: i32,
    pub(crate) load: Option<i32>,
}

impl Records {
    /// Creates both nodes in one step; adopts what this very life and session has left, replaces
    /// what a former one has, and leaves what is another's.
    pub(crate) async fn obtain(&self, record: &Record, former: &[Incarnation]) -> Result<ZkClaim> {
        let nodes = self
            .tree
            .nodes(record.instance.service(), record.instance.id());
        let connection = self.session().connection().await?;
        let (client, owner) = (&connection.client, connection.session);
        let granted = client.session_timeout();
        let claimed = |czxid, versions| ZkClaim {
            nodes: nodes.clone(),
            incarnation: record.incarnation,
            owner,
            granted,
            czxid,
            versions: Mutex::new(versions),
        };
        if self.doubtful.swap(false, Ordering::Relaxed) {
            self.check_owner(client, &nodes).await?;
        }
        // Most often nothing is there.
        let mut there: Pair = (None, None);
        for _ in 0..SETTLE_ATTEMPTS {
            let asked = Instant::now();
            match self.put(client, &nodes, record, &there).await {
                Ok(stat) => {
                    let versions = Versions {
                        identity: stat.version,
                        load: Some(0),
                    };
                    return Ok(claimed(stat.czxid, versions));
                }
                Err(Native::NoNode) => self.make_parents(&connection, &nodes, asked).await?,
                Err(Native::NodeExists | Native::BadVersion) => {}
                Err(error) => {
                    let may_own_nothing = error == Native::SessionExpired;
                    self.doubtful.fetch_or(may_own_nothing, Ordering::Relaxed);
                    return Err(failed_for(&nodes.identity, || nodes.needs())(error));
                }
            }
            there = self.standing(&connection, &nodes).await?;
            let Some((bytes, stat)) = &there.0 else {
                continue;
            };
            let life = codec::incarnation(bytes, stat.czxid.unsigned_abs());
            if life == record.incarnation && stat.ephemeral_owner == owner {
                let load = there.1.as_ref().map(|(_, stat)| stat);
                let load = load.filter(|stat| stat.ephemeral_owner == owner);
                match self.adopt(client, &nodes, record, stat, load).await {
                    Ok(versions) => return Ok(claimed(stat.czxid, versions)),
                    Err(Native::NoNode | Native::NodeExists | Native::BadVersion) => {
                        there = self.standing(&connection, &nodes).await?;
                    }
                    Err(error) => return Err(failed_at(&nodes.identity)(error)),
                }
            } else if life != record.incarnation
                && !former.contains(&life)
                && !codec::is_unkept(life, stat.czxid.unsigned_abs(), row::owner(stat))
            {
                return Err(
                    Error::new(ErrorKind::Conflict, "another live owner holds the id")
                        .with_context("path", nodes.identity)
                        .with_context("owner", life.to_string())
                        .with_context("session", format!("{:#x}", stat.ephemeral_owner)),
                );
            }
        }
        Err(contended().with_context("path", nodes.identity))
    }

    /// Finds out whether the session may own nodes, by one that is nobody's: servers whose sessions
    /// may not, say of a transaction that the session has ended, and the reason of one creation.
    async fn check_owner(&self, client: &Client, nodes: &Nodes) -> Result<()> {
        let path = &nodes.load;
        match client.create(path, b"0", &self.ephemeral()).await {
            Ok(_) => match client.delete(path, None).await {
                Ok(()) | Err(Native::NoNode) => Ok(()),
                Err(error) => Err(failed_at(path)(error)),
            },
            Err(error) if is_local_session(&error) => {
                self.doubtful.store(true, Ordering::Relaxed);
                Err(failed_at(path)(error))
            }
            // What else is wrong shows as it is claimed.
            Err(_) => Ok(()),
        }
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
}
