//! The nodes above a record.

use std::collections::HashMap;

use plimsoll_discovery_api::Result;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zookeeper_client::{Client, CreateMode, CreateOptions, Error as Native};

use super::Records;
use crate::connection::Connection;
use crate::error::{contended, failed_at};
use crate::keys::Nodes;

/// So often a branch is made anew that others remove while it is made.
const ATTEMPTS: usize = 32;

/// When this handle has last made the parents of each of its services.
#[derive(Debug, Default)]
pub(crate) struct Parents(Mutex<HashMap<String, Instant>>);

impl Records {
    /// Creates the parents of `nodes`, which were missing at `missed`: those of all services for
    /// good, those of one to go when they are empty. A thousand registrations that miss them at once
    /// make them once.
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
        let passing = CreateMode::Container.with_acls(self.acls());
        for branch in [&branches.services, &branches.load, &branches.departed] {
            make_branch(client, branch, &passing, &lasting).await?;
        }
        made.insert(branches.services.clone(), Instant::now());
        Ok(())
    }
}

/// Creates `branch`, and of what is above it that which is missing.
///
/// From below: a server asks whether somebody may create in a node before it looks whether what is
/// to be created is there, so whoever began at the top would need the right to change what need not
/// be changed.
async fn make_branch(
    client: &Client,
    branch: &str,
    passing: &CreateOptions<'_>,
    lasting: &CreateOptions<'_>,
) -> Result<()> {
    let mut missing = vec![branch];
    for _ in 0..ATTEMPTS {
        let Some(path) = missing.last().copied() else {
            return Ok(());
        };
        let options = if missing.len() == 1 { passing } else { lasting };
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        match client.create(path, b"", options).await {
            Ok(_) | Err(Native::NodeExists) => {
                missing.pop();
            }
            Err(Native::NoNode) if !above.is_empty() => missing.push(above),
            Err(Native::NoAuth) => {
                let there = client.check_stat(path).await.map_err(failed_at(path))?;
                if there.is_none() {
                    let above = if above.is_empty() { "/" } else { above };
                    return Err(failed_at(path)(Native::NoAuth)
                        .with_context("needs", format!("to create (c) in {above}")));
                }
                missing.pop();
            }
            Err(error) => return Err(failed_at(path)(error)),
        }
    }
    Err(contended().with_context("path", branch))
}
