//! Writing to a record that is held, and confirming it.

use std::sync::atomic::Ordering;

use etcd_client::{KeyValue, Txn};
use plimsoll_backend_kit::{Class, Record};
use plimsoll_discovery_api::Result;

use super::{EtcdClaim, Found, Records, SETTLE_ATTEMPTS};
use crate::codec;
use crate::error::{contended, gone};
use crate::list::revision_of;
use crate::txn::{put, unchanged};

impl Records {
    /// Served by the one keepalive of the lease and the one stream that watches all own keys; the
    /// key itself is read only while that stream is not there.
    pub(crate) async fn confirm(&self, claim: &EtcdClaim) -> Result<()> {
        if let Some(cause) = claim.watched.cause() {
            return Err(cause);
        }
        if !claim.watched.is_attended() {
            let txn = Txn::new().and_then(self.reads(&claim.keys, claim.lease.id));
            let limit = self.link.config().timings.call_timeout;
            let read = self
                .link
                .admission()
                .call(Class::Liveness, limit, self.commit(txn));
            Self::recall(claim, &Found::of(&read.await?))?;
        }
        self.lease.confirm(claim.lease.id).await
    }

    /// Replaces the identity, if it stands as this life wrote it.
    pub(crate) async fn update(&self, claim: &EtcdClaim, record: &Record) -> Result<()> {
        let bytes = codec::write(record)?;
        let (key, lease) = (claim.keys.identity.as_str(), claim.lease.id);
        let mut revision = claim.identity.lock().await;
        for _ in 0..SETTLE_ATTEMPTS {
            let txn = Txn::new()
                .when([unchanged(key, *revision)])
                .and_then([put(key, bytes.clone(), lease)])
                .or_else(self.reads(&claim.keys, lease));
            let answer = self.commit_under(lease, txn).await?;
            if answer.succeeded() {
                *revision = revision_of(answer.header())?;
                claim.written.store(*revision, Ordering::Relaxed);
                return Ok(());
            }
            (*revision, _) = Self::recall(claim, &Found::of(&answer))?;
        }
        Err(contended(key))
    }

    /// Replaces the load, if this life holds its identity.
    pub(crate) async fn publish(&self, claim: &EtcdClaim, load: u64) -> Result<()> {
        let (key, lease) = (claim.keys.load.as_str(), claim.lease.id);
        let mut revision = claim.load.lock().await;
        for _ in 0..SETTLE_ATTEMPTS {
            let [created, leased] = claim.is_held();
            let txn = Txn::new()
                .when([created, leased, unchanged(key, *revision)])
                .and_then([put(key, load.to_string(), lease)])
                .or_else(self.reads(&claim.keys, lease));
            let answer = self.commit_under(lease, txn).await?;
            if answer.succeeded() {
                *revision = revision_of(answer.header())?;
                return Ok(());
            }
            (_, *revision) = Self::recall(claim, &Found::of(&answer))?;
        }
        Err(contended(key))
    }

    /// Reads the revisions of `claim` anew, after they were not what was thought.
    fn recall(claim: &EtcdClaim, found: &Found) -> Result<(i64, i64)> {
        let lost = || gone(&claim.keys.identity, "the key is gone, or another's");
        let identity = found.identity.as_ref().ok_or_else(lost)?;
        let owner = codec::owner(identity.value(), identity.create_revision().unsigned_abs());
        if identity.create_revision() != claim.created
            || identity.lease() != claim.lease.id
            || owner.incarnation != claim.incarnation
        {
            return Err(lost());
        }
        let load = found.load.as_ref().map_or(0, KeyValue::mod_revision);
        Ok((identity.mod_revision(), load))
    }
}
