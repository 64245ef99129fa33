//! The nodes above a record.

use std::collections::HashMap;

use plimsoll_discovery_api::Result;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zookeeper_client::CreateMode;

use crate::driver::ZkDriver;
use crate::error::failed_at;
use crate::paths::Nodes;
use crate::session::Connection;

/// When this handle has last made the parents of each of its services.
#[derive(Debug, Default)]
pub(crate) struct Parents(Mutex<HashMap<String, Instant>>);

impl ZkDriver {
    /// Creates the parents of `nodes`, which were missing at `missed`: those of all services for
    /// good, those of one to go when they are empty, where the server knows such nodes. A thousand
    /// registrations that miss them at once make them once.
    pub(crate) async fn make_parents(
        &self,
        connection: &Connection,
        nodes: &Nodes,
        missed: Instant,
    ) -> Result<()> {
        let branches = &nodes.branches;
        let mut made = self.parents.0.lock().await;
        if made
            .get(&branches.services)
            .is_some_and(|made| *made > missed)
        {
            return Ok(());
        }
        let client = &connection.client;
        let lasting = CreateMode::Persistent.with_acls(self.acls());
        let passing = if connection.abilities.containers {
            CreateMode::Container.with_acls(self.acls())
        } else {
            CreateMode::Persistent.with_acls(self.acls())
        };
        for branch in [&branches.services, &branches.load, &branches.departed] {
            let above = branch.rsplit_once('/').map_or("", |(above, _)| above);
            let lasted = client.mkdir(above, &lasting).await;
            lasted.map_err(failed_at(above))?;
            let passed = client.mkdir(branch, &passing).await;
            passed.map_err(failed_at(branch))?;
        }
        made.insert(branches.services.clone(), Instant::now());
        Ok(())
    }
}
