//! How a record goes.

use std::time::Duration;

use plimsoll_backend_kit::Release;
use plimsoll_discovery_api::{Incarnation, Result};
use tokio::time::sleep;

use super::Records;
use crate::owner_lock;

/// What an agent has in its buffers when it wakes is done well within this.
const AFTERMATH: Duration = Duration::from_millis(250);
impl Records {
    /// The owner lock first: a service that is gone while its lock stands was not given up.
    pub(crate) async fn release(&self, release: &Release) -> Result<()> {
        let names = |life: &Incarnation| self.names(&release.service, &release.id, *life);
        let Some(first) = release.incarnations.first() else {
            return Ok(());
        };
        let lives = &release.incarnations;
        let doubtful: Vec<_> = lives
            .iter()
            .map(|life| self.keeper.forsake(*life))
            .collect();
        let removed = owner_lock::release(&self.agent, &names(first).key, release).await;
        // Of the service the agent alone decides, whatever the servers do.
        for life in lives {
            self.agent.deregister(&names(life).service_id).await?;
        }
        removed?;
        let node = self.keeper.node();
        for (life, doubtful) in lives.iter().zip(doubtful) {
            self.await_absence(&release.service, node.as_deref(), &names(life))
                .await?;
            if doubtful {
                // What lay in the buffers of an agent that slept is carried out in any order.
                sleep(AFTERMATH).await;
                self.agent.deregister(&names(life).service_id).await?;
                self.await_absence(&release.service, node.as_deref(), &names(life))
                    .await?;
                self.keeper.reap(names(life), *life);
            }
        }
        Ok(())
    }
}
