//! The driver: what the shared machinery asks of Consul.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{
    Admission, Driver, Interest, Listing, Record, Release, Subscription, Timings, unescape,
};
use plimsoll_discovery_api::{Capabilities, Error, Incarnation, Result, Revision, ServiceName};

use crate::config::{Config, Consistency};
use crate::error::is_of_credentials;
use crate::history::Histories;
use crate::http::agent::Agent;
use crate::http::waits::Waits;
use crate::life::Life;
use crate::list::Reader;
use crate::records::Records;
use crate::watch::{self, Following};

/// So many answers of servers that lag behind are passed over where any server may answer.
const LAGGING: u32 = 2;

#[derive(Debug)]
pub(crate) struct ConsulDriver {
    config: Arc<Config>,
    reader: Arc<Reader>,
    records: Records,
}

impl ConsulDriver {
    pub(crate) fn new(config: Config) -> Result<Self> {
        let config = Arc::new(config);
        let agent = Agent::new(&config)?;
        let lagging = if config.consistency == Consistency::Stale {
            LAGGING
        } else {
            0
        };
        let reader = Reader {
            agent: agent.clone(),
            root: config.root.clone(),
            histories: Histories::new(lagging),
            waits: Waits::default(),
        };
        Ok(Self {
            records: Records::new(agent, Arc::clone(&config)),
            reader: Arc::new(reader),
            config,
        })
    }
}

#[async_trait]
impl Driver for ConsulDriver {
    type Claim = Arc<Life>;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("consul");
        let timings = &self.config.timings;
        // The agent's own timer, and the way to the servers.
        capabilities.crash_detection = Some(self.config.ttl + Duration::from_secs(1));
        // Servers end a session up to twice its time after its last renewal, and the owner lock with it.
        let locked = self.config.session_ttl * 2 + Duration::from_secs(1);
        capabilities.id_release = capabilities.crash_detection.max(Some(locked));
        capabilities.propagation = Duration::from_millis(300)
            .max(timings.coalesce * 2)
            .max(self.config.load_poll);
        capabilities.load_interval = timings.load.min_interval;
        capabilities.load_max_age = timings.load.max_age;
        capabilities
    }

    fn timings(&self) -> Timings {
        self.config.timings
    }

    fn admission(&self) -> Option<Admission> {
        Some(self.reader.agent.admission().clone())
    }

    async fn prepare(&self) -> Result<()> {
        self.records.keeper.session().await.map(drop)
    }

    fn check(&self, record: &Record) -> Result<()> {
        let names = self.records.names(
            record.instance.service(),
            record.instance.id(),
            record.incarnation,
        );
        self.records.write(record, &names).map(drop)
    }

    async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<Arc<Life>> {
        self.records.claim(record, former).await
    }

    async fn renew(&self, claim: &Arc<Life>) -> Result<()> {
        self.records.keeper.confirm(claim).await
    }

    async fn lost(&self, claim: &Arc<Life>) -> Error {
        claim.end_of().await
    }

    async fn update(&self, claim: &Arc<Life>, record: &Record) -> Result<()> {
        self.records.update(claim, record).await
    }

    async fn publish(&self, claim: &Arc<Life>, load: u64) -> Result<()> {
        self.records.publish(claim, load).await
    }

    async fn release(&self, release: &Release, _claim: Option<&Arc<Life>>) -> Result<()> {
        self.records.release(release).await
    }

    async fn list(&self, service: &ServiceName) -> Result<Listing> {
        let view = self.reader.view(service, true).await?;
        if let Err(cause) = &view.loads {
            // A token may well be allowed the one and not the other; all else may be tried again.
            if !is_of_credentials(cause) {
                return Err(cause.clone());
            }
            tracing::debug!(%service, %cause, "listed without loads");
        }
        Ok(view.listing(Revision::new(1, view.index)))
    }

    async fn subscribe(&self, service: &ServiceName, interest: Interest) -> Result<Subscription> {
        let following = Following {
            wait: self.config.wait,
            limit: self.config.request_timeout,
            poll: match interest {
                Interest::Members => None,
                // Whatever else may be of interest later has loads in it.
                _ => Some(self.config.load_poll),
            },
        };
        watch::subscribe(&self.reader, service, following).await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let names = self.reader.agent.services().await?;
        // A name that is not written as here is nobody's who could be asked for.
        let read = |name: String| unescape(&name).ok()?.parse().ok();
        Ok(names.into_iter().filter_map(read).collect())
    }
}
