//! The nodes above a record.

use plimsoll_discovery_api::Result;
use zookeeper_client::CreateMode;

use crate::driver::ZkDriver;
use crate::error::failed;
use crate::paths::Nodes;
use crate::session::Connection;

impl ZkDriver {
    /// Creates the parents of `nodes`: those of all services for good, those of one to go when
    /// they are empty, where the server knows such nodes.
    pub(crate) async fn make_parents(&self, connection: &Connection, nodes: &Nodes) -> Result<()> {
        let client = &connection.client;
        let lasting = CreateMode::Persistent.with_acls(self.acls());
        let passing = if connection.abilities.containers {
            CreateMode::Container.with_acls(self.acls())
        } else {
            CreateMode::Persistent.with_acls(self.acls())
        };
        let branches = &nodes.branches;
        for branch in [&branches.services, &branches.load, &branches.departed] {
            let above = branch.rsplit_once('/').map_or("", |(above, _)| above);
            client.mkdir(above, &lasting).await.map_err(failed)?;
            client.mkdir(branch, &passing).await.map_err(failed)?;
        }
        Ok(())
    }
}
