//! Claiming the two keys of a registration, under the lease of the handle.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use etcd_client::{Compare, CompareOp, Txn};
use plimsoll_backend_kit::Record;
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result, ServiceName};
use tokio::sync::Mutex;

use super::{Found, Records, SETTLE_ATTEMPTS, is_overwritten};
use crate::codec;
use crate::error::contended;
use crate::keys::Keys;
use crate::lease::Granted;
use crate::list::revision_of;
use crate::owned_keys::Held;
use crate::record_watch::Watched;
use crate::txn::{put, unchanged};

/// Two keys under one lease.
#[derive(Debug)]
pub(crate) struct EtcdClaim {
    pub(crate) service: ServiceName,
    pub(crate) keys: Keys,
    pub(crate) incarnation: Incarnation,
    pub(crate) lease: Granted,
    /// When the identity was created: what stands there later is another's.
    pub(crate) created: i64,
    pub(crate) watched: Watched,
    /// The revision at which the identity was last written, as far as that is known: one that stands
    /// at an earlier one was set back.
    pub(crate) written: Arc<AtomicI64>,
    pub(crate) _held: Held,
    /// The revisions that the next writes follow on: one writer of each key at a time, so that they
    /// are a chain, and one that arrives late is refused.
    pub(crate) identity: Mutex<i64>,
    pub(crate) load: Mutex<i64>,
}

impl EtcdClaim {
    /// Whether this life still holds its identity.
    pub(crate) fn is_held(&self) -> [Compare; 2] {
        let key = self.keys.identity.as_str();
        [
            Compare::create_revision(key, CompareOp::Equal, self.created),
            Compare::lease(key, CompareOp::Equal, self.lease.id),
        ]
    }
}

impl Records {
    /// Obtains a record that is bound to the lease; adopts what an earlier attempt has left.
    pub(crate) async fn claim(
        &self,
        record: &Record,
        former: &[Incarnation],
        keys: &Keys,
    ) -> Result<EtcdClaim> {
        let held = self.holdings.hold(keys);
        let lease = self.lease.obtain().await?;
        let incarnation = record.incarnation;
        self.barrier.enter(lease.id);
        let doubt = self.barrier.doubt(lease.id, incarnation);
        let (created, revision) = match self.put(record, former, keys, lease).await {
            Ok(written) => {
                doubt.settle();
                written
            }
            Err(error) => {
                doubt.settle_if_refused(&error);
                return Err(error);
            }
        };
        let written = Arc::new(AtomicI64::new(revision));
        let key = keys.identity.as_str();
        let sentinel = &self.sentinel;
        let watched = sentinel.attend(key, lease.id, incarnation, Arc::clone(&written));
        Ok(EtcdClaim {
            service: record.instance.service().clone(),
            keys: keys.clone(),
            incarnation,
            lease,
            created,
            watched,
            written,
            _held: held,
            identity: Mutex::new(revision),
            load: Mutex::new(revision),
        })
    }

    /// Puts the record, over nothing but what may be replaced. Returns when the identity was
    /// created, and the revision of both keys.
    async fn put(
        &self,
        record: &Record,
        former: &[Incarnation],
        keys: &Keys,
        lease: Granted,
    ) -> Result<(i64, i64)> {
        let bytes = codec::write(record)?;
        let barrier_key = self.tree.barrier(lease.id);
        let mut barrier = self.barrier.enter(lease.id);
        // Most often nothing is there.
        let (mut seen, mut created) = (0, None);
        for _ in 0..SETTLE_ATTEMPTS {
            let txn = Txn::new()
                .when([
                    unchanged(&keys.identity, seen),
                    unchanged(&barrier_key, barrier),
                ])
                .and_then([
                    put(&keys.identity, bytes.clone(), lease.id),
                    put(&keys.load, record.load.to_string(), lease.id),
                ])
                .or_else(self.reads(keys, lease.id));
            let answer = self.commit_under(lease.id, txn).await?;
            if answer.succeeded() {
                let revision = revision_of(answer.header())?;
                return Ok((created.unwrap_or(revision), revision));
            }
            let found = Found::of(&answer);
            barrier = found.barrier;
            self.barrier.learn(lease.id, barrier);
            (seen, created) = match &found.identity {
                None => (0, None),
                Some(kv) => {
                    let owner = codec::owner(kv.value(), kv.create_revision().unsigned_abs());
                    let life = owner.incarnation;
                    let is_own = life == record.incarnation
                        || former.contains(&life)
                        || is_overwritten(owner, kv, lease);
                    // Nobody lives who has written it: a copy, or a backup.
                    let is_unkept = owner.is_record && kv.lease() == 0;
                    if !is_own && !owner.departed && !is_unkept {
                        return Err(conflict(keys, life, kv.lease()));
                    }
                    (kv.mod_revision(), Some(kv.create_revision()))
                }
            };
        }
        Err(contended(&keys.identity))
    }
}

fn conflict(keys: &Keys, owner: Incarnation, lease: i64) -> Error {
    Error::new(ErrorKind::Conflict, "another live owner holds the id")
        .with_context("key", &*keys.identity)
        .with_context("owner", owner.to_string())
        .with_context("lease", format!("{lease:x}"))
}
