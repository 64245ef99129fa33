//! The driver: what a registration does to its two keys.

mod removal;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};
use plimsoll_backend_kit::{
    Admission, Class, Driver, Interest, Listing, Record, Release, Subscription, Timings,
};
use plimsoll_discovery_api::{Capabilities, Error, ErrorKind, Incarnation, Result, ServiceName};
use tokio::sync::Mutex;

use crate::claim::{EtcdClaim, Fence, put, unchanged};
use crate::codec;
use crate::config::Config;
use crate::error::{about, contended, gone, needing};
use crate::holdings::Holdings;
use crate::keys::{Keys, Tree};
use crate::lease::{Granted, Lease};
use crate::link::Link;
use crate::read::{self, revision_of};
use crate::sentinel::Sentinel;
use crate::updates;

/// So often a write that lost a race with another writer is settled anew within one call.
const SETTLE_ATTEMPTS: u32 = 5;
/// A third of what a server takes in one request by default; a key and a load fit beside it.
const MAX_RECORD_BYTES: usize = 512 * 1024;

#[derive(Debug)]
pub(crate) struct EtcdDriver {
    config: Arc<Config>,
    tree: Tree,
    link: Arc<Link>,
    lease: Lease,
    fence: Fence,
    holdings: Arc<Holdings>,
    sentinel: Sentinel,
}

/// What stands at the two keys, and at the fence.
struct Found {
    identity: Option<KeyValue>,
    load: Option<KeyValue>,
    fence: i64,
}

impl Found {
    /// Of the answers to [`reads`](EtcdDriver::reads).
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
            fence: next().map_or(0, |kv| kv.mod_revision()),
        }
    }
}

impl EtcdDriver {
    pub(crate) fn new(config: Config) -> Self {
        let config = Arc::new(config);
        let link = Arc::new(Link::new(Arc::clone(&config)));
        let (tree, holdings) = (Tree::new(&config.prefix), Arc::<Holdings>::default());
        Self {
            lease: Lease::new(Arc::clone(&link), tree.clone(), Arc::clone(&holdings)),
            tree,
            fence: Fence::default(),
            holdings,
            sentinel: Sentinel::new(Arc::clone(&link)),
            config,
            link,
        }
    }

    pub(crate) fn granted(&self) -> Option<Granted> {
        self.lease.granted()
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
            self.fence.ended(lease);
        }
        answer
    }

    fn reads(&self, keys: &Keys, lease: i64) -> [TxnOp; 3] {
        let get = |key: &str| TxnOp::get(key, None);
        [
            get(&keys.identity),
            get(&keys.load),
            get(&self.tree.fence(lease)),
        ]
    }

    async fn claim_keys(
        &self,
        record: &Record,
        former: &[Incarnation],
        keys: &Keys,
    ) -> Result<EtcdClaim> {
        let held = self.holdings.hold(keys);
        let lease = self.lease.obtain().await?;
        let incarnation = record.incarnation;
        self.fence.enter(lease.id);
        let doubt = self.fence.doubt(lease.id, incarnation);
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
        let fence_key = self.tree.fence(lease.id);
        let mut fence = self.fence.enter(lease.id);
        // Most often nothing is there.
        let (mut seen, mut created) = (0, None);
        for _ in 0..SETTLE_ATTEMPTS {
            let txn = Txn::new()
                .when([
                    unchanged(&keys.identity, seen),
                    unchanged(&fence_key, fence),
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
            fence = found.fence;
            self.fence.learn(lease.id, fence);
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

    /// Served by the one keepalive of the lease and the one stream that watches all own keys; the
    /// key itself is read only while that stream is not there.
    async fn confirm(&self, claim: &EtcdClaim) -> Result<()> {
        if let Some(cause) = claim.watched.cause() {
            return Err(cause);
        }
        if !claim.watched.is_attended() {
            let txn = Txn::new().and_then(self.reads(&claim.keys, claim.lease.id));
            let limit = self.config.timings.call_timeout;
            let read = self
                .link
                .admission()
                .call(Class::Liveness, limit, self.commit(txn));
            Self::recall(claim, &Found::of(&read.await?))?;
        }
        self.lease.confirm(claim.lease.id).await
    }

    async fn write_record(&self, claim: &EtcdClaim, record: &Record) -> Result<()> {
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

    async fn write_load(&self, claim: &EtcdClaim, load: u64) -> Result<()> {
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
}

/// Whether what stands under `lease`, which is this process's own, is nothing that it has written.
fn is_overwritten(owner: codec::Owner, kv: &KeyValue, lease: Granted) -> bool {
    kv.lease() == lease.id && !owner.is_record
}

fn conflict(keys: &Keys, owner: Incarnation, lease: i64) -> Error {
    Error::new(ErrorKind::Conflict, "another live owner holds the id")
        .with_context("key", &*keys.identity)
        .with_context("owner", owner.to_string())
        .with_context("lease", format!("{lease:x}"))
}

#[async_trait]
impl Driver for EtcdDriver {
    type Claim = EtcdClaim;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("etcd");
        let timings = &self.config.timings;
        // Servers look for ended leases twice a second, and agree on each end.
        let asked = self.config.lease_ttl;
        let ttl = self
            .granted()
            .map_or(asked, |granted| granted.ttl.max(asked));
        let detection = ttl + Duration::from_millis(1_500);
        capabilities.crash_detection = Some(detection);
        capabilities.id_release = capabilities.crash_detection;
        capabilities.propagation = Duration::from_millis(200).max(timings.coalesce * 2);
        capabilities.load_interval = timings.load.min_interval;
        capabilities.load_max_age = timings.load.max_age;
        capabilities.max_record_bytes = Some(MAX_RECORD_BYTES);
        capabilities
    }

    fn timings(&self) -> Timings {
        self.config.timings
    }

    fn admission(&self) -> Option<Admission> {
        Some(self.link.admission().clone())
    }

    async fn prepare(&self) -> Result<()> {
        self.lease.obtain().await.map(drop)
    }

    fn check(&self, record: &Record) -> Result<()> {
        let bytes = codec::write(record)?.len();
        if bytes > MAX_RECORD_BYTES {
            let id = record.instance.id();
            return Err(Error::invalid("instance", id, "is too large for etcd")
                .with_context("bytes", bytes.to_string())
                .with_context("most", MAX_RECORD_BYTES.to_string()));
        }
        Ok(())
    }

    async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<EtcdClaim> {
        let instance = &record.instance;
        let keys = self.tree.keys(instance.service(), instance.id());
        let claimed = self.claim_keys(record, former, &keys).await;
        claimed
            .map_err(about(&keys.identity))
            .map_err(needing(|| self.tree.needs_to_register(instance.service())))
    }

    async fn renew(&self, claim: &EtcdClaim) -> Result<()> {
        let confirmed = self.confirm(claim).await;
        confirmed.map_err(about(&claim.keys.identity))
    }

    async fn lost(&self, claim: &EtcdClaim) -> Error {
        let cause = tokio::select! {
            cause = self.lease.lost(claim.lease.id) => cause,
            cause = claim.watched.lost() => cause,
        };
        about(&claim.keys.identity)(cause)
            .with_context("incarnation", claim.incarnation.to_string())
    }

    async fn update(&self, claim: &EtcdClaim, record: &Record) -> Result<()> {
        let written = self.write_record(claim, record).await;
        written.map_err(about(&claim.keys.identity))
    }

    async fn publish(&self, claim: &EtcdClaim, load: u64) -> Result<()> {
        let written = self.write_load(claim, load).await;
        written.map_err(about(&claim.keys.load))
    }

    async fn release(&self, release: &Release, claim: Option<&EtcdClaim>) -> Result<()> {
        let keys = self.tree.keys(&release.service, &release.id);
        let removed = self.remove(&keys, &release.incarnations, claim).await;
        removed
            .map_err(about(&keys.identity))
            .map_err(needing(|| self.tree.needs_to_register(&release.service)))
    }

    async fn list(&self, service: &ServiceName) -> Result<Listing> {
        let rows = read::rows(&self.link, &self.tree, service, Interest::Loads);
        let rows = rows.await;
        let mut rows = rows.map_err(needing(|| self.tree.needs_to_follow(service, true)))?;
        Ok(rows.take_listing())
    }

    async fn subscribe(&self, service: &ServiceName, interest: Interest) -> Result<Subscription> {
        let loads = matches!(interest, Interest::Loads);
        let subscribed = async {
            let rows = read::rows(&self.link, &self.tree, service, interest).await?;
            updates::follow(Arc::clone(&self.link), &self.tree, rows, interest).await
        };
        let subscribed = subscribed.await;
        subscribed.map_err(needing(|| self.tree.needs_to_follow(service, loads)))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        read::services(&self.link, &self.tree).await
    }
}
