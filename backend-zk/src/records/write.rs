//! Writing to a record that is held.
//!
//! A write names the versions that it follows on. The versions of every node begin at 0, and the
//! server compares nothing else: should the record have been deleted by somebody else, another life
//! of the same id could have come to the same versions. So both nodes must be at theirs, and where
//! that could be chance, what stands there is looked at before.

use plimsoll_backend_kit::Record;
use plimsoll_discovery_api::Result;
use tokio::time::Instant;
use zookeeper_client::Error as Native;

use super::claim::{Versions, ZkClaim};
use super::{Records, SETTLE_ATTEMPTS, native};
use crate::codec;
use crate::connection::Connection;
use crate::error::{contended, failed_at, gone};
use crate::keys::Nodes;

/// Of two lives that publish more often than this, hardly ever will both have done so as often.
const AMBIGUOUS: f64 = 16.0;

impl Records {
    /// Replaces the identity, on condition that it and the load are as they were last written.
    pub(crate) async fn update(&self, claim: &ZkClaim, record: &Record) -> Result<()> {
        let connection = self.connection_of(claim).await?;
        let bytes = codec::write(record)?;
        let Nodes { identity, load, .. } = &claim.nodes;
        let mut versions = claim.versions.lock().await;
        for _ in 0..SETTLE_ATTEMPTS {
            // Attributes change so rarely that a second request does not matter.
            self.confirm(&connection, claim).await?;
            let mut writer = connection.client.new_multi_writer();
            let mut fill = || {
                writer.add_set_data(identity, &bytes, Some(versions.identity))?;
                let version = versions.load;
                version.map_or(Ok(()), |version| writer.add_check_version(load, version))
            };
            fill().map_err(failed_at(identity))?;
            match writer.commit().await.map_err(native) {
                Ok(_) => {
                    versions.identity += 1;
                    return Ok(());
                }
                Err(Native::BadVersion | Native::NoNode) => {
                    *versions = self.recall(&connection, claim).await?;
                }
                Err(error) => return Err(failed_at(identity)(error)),
            }
        }
        Err(contended().with_context("path", identity))
    }

    /// Replaces the load, on condition that it and the identity are as they were last written.
    pub(crate) async fn publish(&self, claim: &ZkClaim, load: u64) -> Result<()> {
        let connection = self.connection_of(claim).await?;
        let client = &connection.client;
        let text = load.to_string();
        let Nodes {
            identity,
            load: path,
            ..
        } = &claim.nodes;
        let mut versions = claim.versions.lock().await;
        for _ in 0..SETTLE_ATTEMPTS {
            if self.could_be_of_another(claim, *versions) {
                self.confirm(&connection, claim).await?;
            }
            let asked = Instant::now();
            let mut writer = client.new_multi_writer();
            writer
                .add_check_version(identity, versions.identity)
                .map_err(failed_at(path))?;
            let written = match versions.load {
                Some(version) => writer.add_set_data(path, text.as_bytes(), Some(version)),
                None => writer.add_create(path, text.as_bytes(), &self.ephemeral()),
            };
            written.map_err(failed_at(path))?;
            match writer.commit().await.map_err(native) {
                Ok(_) => {
                    versions.load = Some(versions.load.map_or(0, |version| version + 1));
                    return Ok(());
                }
                Err(missing @ (Native::BadVersion | Native::NoNode | Native::NodeExists)) => {
                    let had_none = versions.load.is_none();
                    *versions = self.recall(&connection, claim).await?;
                    // The identity is there, so it is the parent of the load that is not: the server
                    // removes it when it is empty.
                    if had_none && missing == Native::NoNode {
                        self.make_parents(&connection, &claim.nodes, asked).await?;
                    }
                }
                Err(error) => return Err(failed_at(path)(error)),
            }
        }
        Err(contended().with_context("path", path))
    }

    /// Makes sure that the record is of this life, by what no other has: when it was created.
    pub(crate) async fn confirm(&self, connection: &Connection, claim: &ZkClaim) -> Result<()> {
        let path = &claim.nodes.identity;
        let stat = connection.client.check_stat(path).await;
        match stat.map_err(failed_at(path))? {
            Some(stat) if stat.czxid == claim.czxid => Ok(()),
            _ => Err(gone(path, "the node is gone, or another's")),
        }
    }

    /// Whether another life could have published as often as this one, while this process was held
    /// up for so long that its session just outlived it.
    fn could_be_of_another(&self, claim: &ZkClaim, versions: Versions) -> bool {
        let most = claim.granted.div_duration_f64(self.load_interval());
        versions
            .load
            .is_none_or(|published| f64::from(published) <= most.min(AMBIGUOUS))
    }

    /// Reads the versions of `claim` anew, after they were not what was thought.
    async fn recall(&self, connection: &Connection, claim: &ZkClaim) -> Result<Versions> {
        let (identity, load) = self.standing(connection, &claim.nodes).await?;
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
