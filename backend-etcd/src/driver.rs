//! The driver: what the shared machinery asks of etcd.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{
    Admission, Driver, Interest, Listing, Record, Release, Subscription, Timings,
};
use plimsoll_discovery_api::{Capabilities, Error, Incarnation, Result, ServiceName};

use crate::codec;
use crate::config::Config;
use crate::connection::Link;
use crate::error::{about, needing};
use crate::keys::Tree;
use crate::lease::Granted;
use crate::list;
use crate::records::{EtcdClaim, Records};
use crate::watch;

/// A third of what a server takes in one request by default; a key and a load fit beside it.
const MAX_RECORD_BYTES: usize = 512 * 1024;

#[derive(Debug)]
pub(crate) struct EtcdDriver {
    config: Arc<Config>,
    tree: Tree,
    link: Arc<Link>,
    records: Records,
}

impl EtcdDriver {
    pub(crate) fn new(config: Config) -> Self {
        let config = Arc::new(config);
        let link = Arc::new(Link::new(Arc::clone(&config)));
        let tree = Tree::new(&config.prefix);
        Self {
            records: Records::new(Arc::clone(&link), tree.clone()),
            config,
            tree,
            link,
        }
    }

    pub(crate) fn granted(&self) -> Option<Granted> {
        self.records.lease.granted()
    }
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
        self.records.lease.obtain().await.map(drop)
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
        let claimed = self.records.claim(record, former, &keys).await;
        claimed
            .map_err(about(&keys.identity))
            .map_err(needing(|| self.tree.needs_to_register(instance.service())))
    }

    async fn renew(&self, claim: &EtcdClaim) -> Result<()> {
        let confirmed = self.records.confirm(claim).await;
        confirmed.map_err(about(&claim.keys.identity))
    }

    async fn lost(&self, claim: &EtcdClaim) -> Error {
        let cause = tokio::select! {
            cause = self.records.lease.lost(claim.lease.id) => cause,
            cause = claim.watched.lost() => cause,
        };
        about(&claim.keys.identity)(cause)
            .with_context("incarnation", claim.incarnation.to_string())
    }

    async fn update(&self, claim: &EtcdClaim, record: &Record) -> Result<()> {
        let written = self.records.update(claim, record).await;
        written
            .map_err(about(&claim.keys.identity))
            .map_err(needing(|| self.tree.needs_to_register(&claim.service)))
    }

    async fn publish(&self, claim: &EtcdClaim, load: u64) -> Result<()> {
        let written = self.records.publish(claim, load).await;
        written
            .map_err(about(&claim.keys.load))
            .map_err(needing(|| self.tree.needs_to_register(&claim.service)))
    }

    async fn release(&self, release: &Release, claim: Option<&EtcdClaim>) -> Result<()> {
        let keys = self.tree.keys(&release.service, &release.id);
        let removed = self
            .records
            .remove(&keys, &release.incarnations, claim)
            .await;
        removed
            .map_err(about(&keys.identity))
            .map_err(needing(|| self.tree.needs_to_register(&release.service)))
    }

    async fn list(&self, service: &ServiceName) -> Result<Listing> {
        let rows = list::rows(&self.link, &self.tree, service, Interest::Loads);
        let rows = rows.await;
        let mut rows = rows.map_err(needing(|| self.tree.needs_to_follow(service, true)))?;
        Ok(rows.take_listing())
    }

    async fn subscribe(&self, service: &ServiceName, interest: Interest) -> Result<Subscription> {
        let loads = matches!(interest, Interest::Loads);
        let subscribed = async {
            let rows = list::rows(&self.link, &self.tree, service, interest).await?;
            watch::follow(Arc::clone(&self.link), &self.tree, rows, interest).await
        };
        let subscribed = subscribed.await;
        subscribed.map_err(needing(|| self.tree.needs_to_follow(service, loads)))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let services = list::services(&self.link, &self.tree).await;
        services.map_err(needing(|| self.tree.needs_to_list()))
    }
}
