//! The driver: calls that go to the directory on threads that may block.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{Driver, Interest, Listing, Record, Release, Subscription, Timings};
use plimsoll_discovery_api::{Capabilities, Error, Incarnation, Result, ServiceName};

use crate::directory::{MAX_BYTES, within};
use crate::records::{self, Claim};
use crate::watch::{Following, LOOK};
use crate::{codec, list};

#[derive(Debug)]
pub(crate) struct DirDriver {
    pub(crate) path: Arc<Path>,
    pub(crate) timings: Timings,
    /// Whether the first claim has removed what the dead left.
    pub(crate) swept: Arc<AtomicBool>,
}

#[async_trait]
impl Driver for DirDriver {
    type Claim = Arc<Claim>;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("dir");
        capabilities.crash_detection = Some(LOOK * 2);
        capabilities.propagation = Duration::from_millis(300);
        capabilities.load_interval = self.timings.load.min_interval;
        capabilities.load_max_age = self.timings.load.max_age;
        capabilities.max_record_bytes = usize::try_from(MAX_BYTES).ok();
        capabilities
    }

    fn timings(&self) -> Timings {
        self.timings
    }

    fn check(&self, record: &Record) -> Result<()> {
        let length = codec::write_record(record, &self.path)?.len();
        if length as u64 > MAX_BYTES {
            return Err(Error::invalid("instance", length, "is larger than 256 KiB"));
        }
        Ok(())
    }

    async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<Arc<Claim>> {
        let (record, former) = (record.clone(), former.to_owned());
        let swept = Arc::clone(&self.swept);
        let claim = within(&self.path, move |directory| {
            records::claim(directory, &record, &former, &swept)
        });
        claim.await.map(Arc::new)
    }

    async fn renew(&self, claim: &Arc<Claim>) -> Result<()> {
        let claim = Arc::clone(claim);
        within(&self.path, move |directory| {
            records::confirm(directory, &claim)
        })
        .await
    }

    /// Every renewal looks, and nothing else does.
    async fn lost(&self, _claim: &Arc<Claim>) -> Error {
        std::future::pending().await
    }

    async fn update(&self, claim: &Arc<Claim>, record: &Record) -> Result<()> {
        let (claim, record) = (Arc::clone(claim), record.clone());
        within(&self.path, move |directory| {
            records::update(directory, &claim, &record)
        })
        .await
    }

    async fn publish(&self, claim: &Arc<Claim>, load: u64) -> Result<()> {
        let claim = Arc::clone(claim);
        within(&self.path, move |directory| {
            records::publish(directory, &claim, load)
        })
        .await
    }

    async fn release(&self, release: &Release, _claim: Option<&Arc<Claim>>) -> Result<()> {
        let release = release.clone();
        within(&self.path, move |directory| {
            records::release(directory, &release)
        })
        .await
    }

    async fn list(&self, service: &ServiceName) -> Result<Listing> {
        let service = service.clone();
        let scan = move |directory: &_| list::scan(directory, &service, Interest::Loads);
        within(&self.path, scan).await.map(|(listing, _)| listing)
    }

    async fn subscribe(&self, service: &ServiceName, interest: Interest) -> Result<Subscription> {
        let limit = self.timings.list_timeout;
        Following::new(&self.path, service, interest, limit)
            .begin()
            .await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        within(&self.path, list::services).await
    }
}
