//! The driver: what the machinery of all backends asks of this one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{
    Admission, Class, Driver, Interest, Listing, Record, Release, Subscription, Task, Timings,
};
use plimsoll_discovery_api::{Capabilities, Error, Incarnation, Result, ServiceName};

use crate::codec;
use crate::config::Config;
use crate::list;
use crate::records::{Records, ZkClaim};
use crate::session::Session;
use crate::watch::subscribe;

/// Half of what a server takes in one packet by default; two nodes and a path fit beside it.
const MAX_RECORD_BYTES: usize = 512 * 1024;

#[derive(Debug)]
pub(crate) struct ZkDriver {
    config: Arc<Config>,
    records: Records,
    admission: Admission,
}

impl ZkDriver {
    pub(crate) fn new(config: Config) -> Self {
        let config = Arc::new(config);
        Self {
            admission: Admission::new(&config.timings),
            records: Records::new(Arc::clone(&config)),
            config,
        }
    }

    fn session(&self) -> &Session {
        self.records.session()
    }

    pub(crate) fn session_timeout(&self) -> Option<Duration> {
        self.records.session_timeout()
    }
}

#[async_trait]
impl Driver for ZkDriver {
    type Claim = ZkClaim;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("zk");
        let timings = &self.config.timings;
        let session = self.session_timeout();
        let session = session.unwrap_or(self.config.session_timeout);
        // Servers look for expired sessions once a tick, of which a session lasts at least two.
        capabilities.crash_detection = Some(session.mul_f64(1.5));
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
        Some(self.admission.clone())
    }

    async fn prepare(&self) -> Result<()> {
        self.session().connection().await.map(drop)
    }

    fn check(&self, record: &Record) -> Result<()> {
        let bytes = codec::write(record)?.len();
        if bytes > MAX_RECORD_BYTES {
            return Err(Error::invalid(
                "instance",
                record.instance.id(),
                "is too large for ZooKeeper",
            )
            .with_context("bytes", bytes.to_string())
            .with_context("most", MAX_RECORD_BYTES.to_string()));
        }
        Ok(())
    }

    async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<ZkClaim> {
        self.records.obtain(record, former).await
    }

    async fn renew(&self, claim: &ZkClaim) -> Result<()> {
        let connection = self.records.connection_of(claim).await?;
        let confirm = self.records.confirm(&connection, claim);
        self.admission
            .call(Class::Liveness, self.config.timings.call_timeout, confirm)
            .await
    }

    fn granted_lease(&self, claim: &ZkClaim) -> Option<Duration> {
        // A session that was resumed may have been granted for less than before.
        let current = self.session_timeout().unwrap_or(claim.granted);
        Some(claim.granted.min(current))
    }

    fn carry(&self, task: Task) -> std::result::Result<(), Task> {
        self.records.carry(task)
    }

    async fn lost(&self, claim: &ZkClaim) -> Error {
        self.records.lost(claim).await
    }

    async fn update(&self, claim: &ZkClaim, record: &Record) -> Result<()> {
        self.records.update(claim, record).await
    }

    async fn publish(&self, claim: &ZkClaim, load: u64) -> Result<()> {
        self.records.publish(claim, load).await
    }

    async fn release(&self, release: &Release, _claim: Option<&ZkClaim>) -> Result<()> {
        self.records.remove(release).await
    }

    async fn list(&self, service: &ServiceName) -> Result<Listing> {
        let connection = self.session().connection().await?;
        let view = list::view(&connection, self.records.tree(), service, Interest::Loads);
        Ok(view.await?.1)
    }

    async fn subscribe(&self, service: &ServiceName, interest: Interest) -> Result<Subscription> {
        let connection = self.session().connection().await?;
        subscribe(connection, self.records.tree(), service, interest).await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let connection = self.session().connection().await?;
        list::services(&connection, self.records.tree()).await
    }
}
