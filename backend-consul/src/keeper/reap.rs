//! What was released while a call for it may still be on its way.

use std::convert::Infallible;
use std::time::Duration;

use plimsoll_discovery_api::Incarnation;
use tokio::time::{Instant, sleep};

use super::Shared;
use crate::error::Failure;
use crate::http::wire::Operation;
use crate::keys::Names;
use crate::owner_lock::Value;

/// Between two looks at a tombstone: what has come back is critical, or a key that nobody writes, so
/// that it is in nobody's way but that of its id's next owner.
const LOOK: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    pub(super) names: Names,
    pub(super) life: Incarnation,
    pub(super) until: Instant,
}

impl Shared {
    pub(super) fn enqueue(&self, tombstone: Tombstone) {
        self.kept().tombstones.push(tombstone);
        self.enqueued.notify_one();
    }

    /// Those whose time is not yet up.
    fn tombstones(&self) -> Vec<Tombstone> {
        let (mut kept, now) = (self.kept(), Instant::now());
        kept.tombstones.retain(|tombstone| tombstone.until > now);
        kept.tombstones.clone()
    }
}

/// Removes, time and again, what has come of calls that were given up before their life was
/// released. It runs beside the beats, and keeps none of them waiting.
pub(super) async fn reap_all(shared: &Shared) -> Infallible {
    let look = shared.config.beat().min(LOOK);
    loop {
        shared.enqueued.notified().await;
        loop {
            sleep(look).await;
            let tombstones = shared.tombstones();
            if tombstones.is_empty() {
                break;
            }
            for tombstone in tombstones {
                if let Err(failure) = reap(shared, &tombstone).await {
                    tracing::debug!(cause = %failure.error, "not laid; trying again");
                    if failure.status.is_none() {
                        break;
                    }
                }
            }
        }
    }
}

async fn reap(shared: &Shared, tombstone: &Tombstone) -> Result<(), Failure> {
    let key = &tombstone.names.key;
    // Of the service the agent alone decides, whatever the servers do.
    shared.agent.deregister(&tombstone.names.service_id).await?;
    if let Some(pair) = shared.agent.key(key).await?
        && Value::read(&pair).is_some_and(|value| value.life == tombstone.life)
    {
        let delete = Operation::delete_at(key, pair.modify_index);
        shared.agent.transact(vec![delete]).await?;
    }
    Ok(())
}
