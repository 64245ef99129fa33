//! What was released while a call for it may still be on its way.

use std::convert::Infallible;
use std::time::Duration;

use plimsoll_discovery_api::Incarnation;
use tokio::time::{Instant, sleep};

use super::Shared;
use crate::error::Failure;
use crate::fence::Value;
use crate::paths::Names;
use crate::wire::Operation;

/// Between two looks at a ghost: what has come back is critical, or a key that nobody writes, so
/// that it is in nobody's way but that of its id's next owner.
const LOOK: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Ghost {
    pub(super) names: Names,
    pub(super) life: Incarnation,
    pub(super) until: Instant,
}

impl Shared {
    pub(super) fn haunt(&self, ghost: Ghost) {
        self.kept().ghosts.push(ghost);
        self.haunted.notify_one();
    }

    /// Those whose time is not yet up.
    fn ghosts(&self) -> Vec<Ghost> {
        let (mut kept, now) = (self.kept(), Instant::now());
        kept.ghosts.retain(|ghost| ghost.until > now);
        kept.ghosts.clone()
    }
}

/// Removes, time and again, what has come of calls that were given up before their life was
/// released. It runs beside the beats, and keeps none of them waiting.
pub(super) async fn lay_all(shared: &Shared) -> Infallible {
    let look = shared.config.beat().min(LOOK);
    loop {
        shared.haunted.notified().await;
        loop {
            sleep(look).await;
            let ghosts = shared.ghosts();
            if ghosts.is_empty() {
                break;
            }
            for ghost in ghosts {
                if let Err(failure) = lay(shared, &ghost).await {
                    tracing::debug!(cause = %failure.error, "not laid; trying again");
                    if failure.status.is_none() {
                        break;
                    }
                }
            }
        }
    }
}

async fn lay(shared: &Shared, ghost: &Ghost) -> Result<(), Failure> {
    let key = &ghost.names.key;
    // Of the service the agent alone decides, whatever the servers do.
    shared.agent.deregister(&ghost.names.service_id).await?;
    if let Some(pair) = shared.agent.key(key).await?
        && Value::read(&pair).is_some_and(|value| value.life == ghost.life)
    {
        let delete = Operation::delete_at(key, pair.modify_index);
        shared.agent.transact(vec![delete]).await?;
    }
    Ok(())
}
