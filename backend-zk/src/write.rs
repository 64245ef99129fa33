//! Writing to a record that is held.

use plimsoll_backend_kit::Record;
use plimsoll_discovery_api::Result;
use zookeeper_client::Error as Native;

use crate::claim::{Versions, ZkClaim};
use crate::codec;
use crate::driver::{SETTLE_ATTEMPTS, ZkDriver, contended, native};
use crate::error::{failed, gone};
use crate::paths::Nodes;
use crate::session::Connection;

impl ZkDriver {
    /// Replaces the identity, on condition that it is as it was last written.
    pub(crate) async fn write_identity(&self, claim: &ZkClaim, record: &Record) -> Result<()> {
        let connection = self.connection_of(claim).await?;
        let client = &connection.client;
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
                    *versions = self.recall(&connection, claim).await?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(contended())
    }

    /// Replaces the load, on condition that it and the identity are as they were last written.
    pub(crate) async fn write_load(&self, claim: &ZkClaim, load: u64) -> Result<()> {
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
                    *versions = self.recall(&connection, claim).await?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(contended())
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
