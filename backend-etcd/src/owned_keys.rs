//! Which keys under the lease are wanted, and the removal of those that are not.
//!
//! There are none, but for a server that was restored from a snapshot: it has again what was removed
//! since, under a lease that is kept for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etcd_client::{Compare, CompareOp, LeaseTimeToLiveOptions, Txn, TxnOp};
use plimsoll_discovery_api::Result;

use crate::connection::Link;
use crate::keys::{Keys, Tree};
use crate::txn::unchanged;

/// The keys of all claims, those that are being made among them.
#[derive(Debug, Default)]
pub(crate) struct Holdings(Mutex<HashMap<String, usize>>);

/// Keys that are wanted until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    holdings: Arc<Holdings>,
    keys: [String; 2],
}

impl Holdings {
    pub(crate) fn hold(self: &Arc<Self>, keys: &Keys) -> Held {
        let keys = [keys.identity.clone(), keys.load.clone()];
        let mut held = self.lock();
        for key in &keys {
            *held.entry(key.clone()).or_default() += 1;
        }
        drop(held);
        Held {
            holdings: Arc::clone(self),
            keys,
        }
    }

    fn wants(&self, key: &[u8]) -> bool {
        std::str::from_utf8(key).is_ok_and(|key| self.lock().contains_key(key))
    }

    /// Deletes the instances under `lease` that nobody wants; a key that is written meanwhile stays.
    /// Cancel safe.
    pub(crate) async fn sweep(&self, link: &Link, tree: &Tree, lease: i64) -> Result<()> {
        let options = LeaseTimeToLiveOptions::new().with_keys();
        let standing = link.call(|mut c| {
            let options = options.clone();
            async move { c.lease.time_to_live(lease, Some(options)).await }
        });
        let standing = standing.await?;
        for key in standing.keys() {
            if self.wants(key) || !tree.is_of_instance(key) {
                continue;
            }
            let found = link.kv(|mut kv| async move { kv.get(key.as_slice(), None).await });
            let found = found.await?;
            let Some(kv) = found.kvs().first() else {
                continue;
            };
            // Asked for again: whoever wants it from now on writes it, and then it stays.
            if self.wants(key) {
                continue;
            }
            let key = String::from_utf8_lossy(key);
            let txn = Txn::new()
                .when([
                    unchanged(&key, kv.mod_revision()),
                    Compare::lease(&*key, CompareOp::Equal, lease),
                ])
                .and_then([TxnOp::delete(&*key, None)]);
            let answer = link.kv(|mut kv| {
                let txn = txn.clone();
                async move { kv.txn(txn).await }
            });
            if answer.await?.succeeded() {
                tracing::info!(%key, "removed anew: a restored server had it again");
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // A panic while the lock was held cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.holdings.lock();
        for key in &self.keys {
            if let Some(count) = held.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    held.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_wanted_as_long_as_anybody_holds_it() {
        let holdings = Arc::new(Holdings::default());
        let keys = Keys {
            identity: "i".into(),
            load: "l".into(),
        };
        let first = holdings.hold(&keys);
        let second = holdings.hold(&keys);
        drop(first);
        assert!(holdings.wants(b"i") && holdings.wants(b"l") && !holdings.wants(b"x"));
        drop(second);
        assert!(!holdings.wants(b"i") && !holdings.wants(b"l"));
    }
}
