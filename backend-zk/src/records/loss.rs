//! Learning of the loss of a record.

use plimsoll_discovery_api::Error;
use tokio::sync::watch;
use zookeeper_client::EventType;

use super::{Records, ZkClaim};
use crate::error::gone;
use crate::session::Link;

impl Records {
    /// Returns when the record of `claim` is gone, or its session has ended; never otherwise. Cancel
    /// safe.
    pub(crate) async fn lost(&self, claim: &ZkClaim) -> Error {
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
