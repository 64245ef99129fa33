//! How a record goes.

use etcd_client::{KeyValue, Txn, TxnOp};
use plimsoll_discovery_api::{ErrorKind, Incarnation, Result};

use super::{EtcdClaim, Found, Records, SETTLE_ATTEMPTS, is_overwritten};
use crate::codec;
use crate::error::contended;
use crate::keys::Keys;
use crate::list::revision_of;
use crate::txn::{put, unchanged};

impl Records {
    /// Removes the record of one of `lives`, and whatever has been made of it under the lease of
    /// `claim`. Nothing to remove is success.
    pub(crate) async fn remove(
        &self,
        keys: &Keys,
        lives: &[Incarnation],
        claim: Option<&EtcdClaim>,
    ) -> Result<()> {
        for _ in 0..SETTLE_ATTEMPTS {
            let [identity, load, _] = self.reads(keys, 0);
            let reads = Txn::new().and_then([identity, load]);
            let found = Found::of(&self.commit(reads).await?);
            let other = found.identity.as_ref().map_or(0, KeyValue::mod_revision);
            let own = found.identity.filter(|kv| {
                let owner = codec::owner(kv.value(), kv.create_revision().unsigned_abs());
                let is_overwritten = |claim: &EtcdClaim| is_overwritten(owner, kv, claim.lease);
                lives.contains(&owner.incarnation) || claim.is_some_and(is_overwritten)
            });
            let (seen, deletions) = match (own, other) {
                // Not there, or another's.
                (None, other) => (other, Vec::new()),
                (Some(kv), _) => {
                    let Some(seen) = self.announce(keys, &kv).await? else {
                        continue;
                    };
                    let mut deletions = vec![TxnOp::delete(keys.identity.as_str(), None)];
                    if found.load.is_some_and(|load| load.lease() == kv.lease()) {
                        deletions.push(TxnOp::delete(keys.load.as_str(), None));
                    }
                    (seen, deletions)
                }
            };
            if self.settle(keys, seen, deletions, lives).await? {
                return Ok(());
            }
        }
        Err(contended(&keys.identity))
    }

    /// Marks the record in `kv` as departed, so that watchers know that its removal is meant.
    /// Returns the revision of the mark; that of `kv`, if the mark cannot be written. Nothing, if
    /// `kv` is no longer what stands there.
    async fn announce(&self, keys: &Keys, kv: &KeyValue) -> Result<Option<i64>> {
        let Ok(bytes) = codec::departed(kv.value()) else {
            // Somebody has made garbage of it, which says nothing of anybody.
            return Ok(Some(kv.mod_revision()));
        };
        let txn = Txn::new()
            .when([unchanged(&keys.identity, kv.mod_revision())])
            .and_then([put(&keys.identity, bytes, kv.lease())]);
        match self.commit(txn).await {
            Ok(answer) if answer.succeeded() => Ok(Some(revision_of(answer.header())?)),
            Ok(_) => Ok(None),
            // A lease that has ended takes the key with it, and a full store takes no more writes:
            // neither is a reason not to leave.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::LeaseExpired | ErrorKind::ResourceExhausted
                ) =>
            {
                Ok(Some(kv.mod_revision()))
            }
            Err(error) => Err(error),
        }
    }

    /// Carries out `deletions` if the identity is as it was at `seen`, and makes void what may still
    /// come of earlier claims of `lives`. Returns whether that was done.
    async fn settle(
        &self,
        keys: &Keys,
        seen: i64,
        deletions: Vec<TxnOp>,
        lives: &[Incarnation],
    ) -> Result<bool> {
        let condition = Txn::new().when([unchanged(&keys.identity, seen)]);
        let Some(lease) = self.barrier.lease_in_doubt(lives) else {
            if deletions.is_empty() {
                return Ok(true);
            }
            return Ok(self
                .commit(condition.and_then(deletions))
                .await?
                .succeeded());
        };
        let mut ops = deletions.clone();
        ops.push(put(&self.tree.barrier(lease), "", lease));
        let both = condition.clone().and_then(ops);
        let answer = match self.commit_under(lease, both).await {
            // A full store takes deletions and nothing else: whoever leaves is gone at once, and the
            // barrier follows as soon as it can, since nothing of them may come back.
            Err(full) if full.kind() == ErrorKind::ResourceExhausted && !deletions.is_empty() => {
                self.commit(condition.and_then(deletions)).await?;
                return Err(full);
            }
            answer => answer?,
        };
        if answer.succeeded() {
            self.barrier
                .written(lease, revision_of(answer.header())?, lives);
        }
        Ok(answer.succeeded())
    }
}
