//! What a registration does to its two keys.

mod barrier;
mod claim;
mod remove;
mod write;

use std::sync::Arc;

use etcd_client::{KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};
use plimsoll_discovery_api::{ErrorKind, Result};

use self::barrier::Barrier;
use crate::codec;
use crate::connection::Link;
use crate::keys::{Keys, Tree};
use crate::lease::{Granted, Lease};
use crate::owned_keys::Holdings;
use crate::record_watch::Sentinel;

pub(crate) use self::claim::EtcdClaim;

/// So often a write that lost a race with another writer is settled anew within one call.
const SETTLE_ATTEMPTS: u32 = 5;

/// The records of one handle, all under its lease.
#[derive(Debug)]
pub(crate) struct Records {
    tree: Tree,
    link: Arc<Link>,
    pub(crate) lease: Lease,
    barrier: Barrier,
    holdings: Arc<Holdings>,
    sentinel: Sentinel,
}

/// What stands at the two keys, and at the barrier.
struct Found {
    identity: Option<KeyValue>,
    load: Option<KeyValue>,
    barrier: i64,
}

impl Found {
    /// Of the answers to [`reads`](Records::reads).
    fn of(answer: &TxnResponse) -> Self {
        let mut found = answer
            .op_responses()
            .into_iter()
            .map(|answer| match answer {
                TxnOpResponse::Get(mut answer) => answer.take_kvs().pop(),
                _ => None,
            });
        let mut next = || found.next().flatten();
        Self {
            identity: next(),
            load: next(),
            barrier: next().map_or(0, |kv| kv.mod_revision()),
        }
    }
}

impl Records {
    pub(crate) fn new(link: Arc<Link>, tree: Tree) -> Self {
        let holdings = Arc::<Holdings>::default();
        Self {
            lease: Lease::new(Arc::clone(&link), tree.clone(), Arc::clone(&holdings)),
            tree,
            barrier: Barrier::default(),
            holdings,
            sentinel: Sentinel::new(Arc::clone(&link)),
            link,
        }
    }

    async fn commit(&self, txn: Txn) -> Result<TxnResponse> {
        self.link.commit(txn).await
    }

    /// The same, for what is written under `lease`.
    async fn commit_under(&self, lease: i64, txn: Txn) -> Result<TxnResponse> {
        let answer = self.commit(txn).await;
        if let Err(error) = &answer
            && error.kind() == ErrorKind::LeaseExpired
        {
            self.lease.refused(lease);
            self.barrier.ended(lease);
        }
        answer
    }

    fn reads(&self, keys: &Keys, lease: i64) -> [TxnOp; 3] {
        let get = |key: &str| TxnOp::get(key, None);
        [
            get(&keys.identity),
            get(&keys.load),
            get(&self.tree.barrier(lease)),
        ]
    }
}

/// Whether what stands under `lease`, which is this process's own, is nothing that it has written.
fn is_overwritten(owner: codec::Owner, kv: &KeyValue, lease: Granted) -> bool {
    kv.lease() == lease.id && !owner.is_record
}
