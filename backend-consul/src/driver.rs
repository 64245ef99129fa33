//! The driver: what a registration does to its agent and to the store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{
    Admission, Driver, Interest, Listing, Record, Release, Subscription, Timings, unescape,
};
use plimsoll_discovery_api::{
    Capabilities, Error, ErrorKind, Incarnation, Result, Revision, ServiceName,
};
use tokio::time::{Instant, sleep};

use crate::agent::{Agent, Beat, Reading};
use crate::codec;
use crate::config::{Config, Consistency};
use crate::error::is_of_credentials;
use crate::fence::{self, Chain, Held, Refusal, Value};
use crate::heart::Heart;
use crate::history::Histories;
use crate::life::Life;
use crate::paths::{Names, service_name};
use crate::read::Reader;
use crate::resolve::{Condition, condition};
use crate::updates::{self, Following};
use crate::waits::Waits;

/// What the agent was told is in the catalog within a few milliseconds, or when its servers are
/// back; so the catalog is asked at once, and then ever less often.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(100);
/// So many looks in a row, which take some 200 ms, at which a leader shows nothing of what it has:
/// no election explains them.
const HIDDEN: u32 = 8;
/// What an agent has in its buffers when it wakes is done well within this.
const AFTERMATH: Duration = Duration::from_millis(250);
/// So many answers of servers that lag behind are passed over where any server may answer.
const LAGGING: u32 = 2;

/// What clients see of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sight {
    Usable,
    /// It is there, and an operator has taken it, or its node, out of service, for this reason.
    Maintained(String),
    /// Something of it, or of its node, is critical.
    Critical,
    Nothing,
}

#[derive(Debug)]
pub(crate) struct ConsulDriver {
    config: Arc<Config>,
    reader: Arc<Reader>,
    heart: Heart,
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
            heart: Heart::new(agent, Arc::clone(&config)),
            reader: Arc::new(reader),
            config,
        })
    }

    fn agent(&self) -> &Agent {
        &self.reader.agent
    }

    fn write(&self, record: &Record, names: &Names) -> Result<crate::wire::Registration> {
        codec::write(record, names, self.config.ttl, self.config.deregister_after)
    }

    fn names(
        &self,
        service: &ServiceName,
        id: &plimsoll_discovery_api::InstanceId,
        life: Incarnation,
    ) -> Names {
        Names::new(&self.config.root, service, id, life)
    }

    /// Asks until the service of `names`, whose agent is `node`, is seen where clients look.
    async fn await_sight(&self, service: &ServiceName, node: &str, names: &Names) -> Result<()> {
        let check = names.check_id();
        let mut pause = FIRST_LOOK;
        let mut hidden = 0;
        loop {
            let status = self.agent().check(node, &check).await?;
            if status.as_deref() == Some("passing") {
                match self.sight(service, names).await? {
                    Sight::Usable => return Ok(()),
                    Sight::Maintained(reason) => {
                        tracing::warn!(
                            %service, node, reason,
                            "registered, and out of service: the node or the service is in maintenance mode"
                        );
                        return Ok(());
                    }
                    Sight::Critical => hidden = 0,
                    Sight::Nothing => hidden += 1,
                }
            }
            if hidden >= HIDDEN {
                return Err(Error::new(
                    ErrorKind::PermissionDenied,
                    "the token may not see what it has registered; does it have node:read?",
                )
                .with_context("node", node));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    /// What those who look for `service` see of the one of `names`.
    async fn sight(&self, service: &ServiceName, names: &Names) -> Result<Sight> {
        let name = service_name(service);
        let filter = format!("Service.ID == \"{}\"", names.service_id);
        let read = self
            .agent()
            .health(&name, Reading::Own, Some(&filter), None);
        let entries = read.await?.entries.good;
        let conditions = entries.iter().map(condition);
        let best = conditions.min_by_key(|condition| match condition {
            Condition::Usable => 0,
            Condition::Maintained(_) => 1,
            Condition::Critical => 2,
        });
        Ok(match best {
            Some(Condition::Usable) => Sight::Usable,
            Some(Condition::Maintained(reason)) => Sight::Maintained(reason.to_owned()),
            Some(Condition::Critical) => Sight::Critical,
            None => Sight::Nothing,
        })
    }

    /// Asks until the service of `names` is out of sight.
    async fn await_absence(
        &self,
        service: &ServiceName,
        node: Option<&str>,
        names: &Names,
    ) -> Result<()> {
        let check = names.check_id();
        let mut pause = FIRST_LOOK;
        loop {
            let seen = match node {
                Some(node) => self.agent().check(node, &check).await?.is_some(),
                None => matches!(
                    self.sight(service, names).await?,
                    Sight::Usable | Sight::Maintained(_)
                ),
            };
            if !seen {
                return Ok(());
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    /// Takes the fence for the session.
    async fn acquire(
        &self,
        key: &str,
        session: &str,
        value: Value,
        former: &[Incarnation],
    ) -> Result<Held, Refusal> {
        let doubt = self.heart.doubts().begin(value.life);
        let taken = fence::acquire(self.agent(), key, session, value, former).await;
        if !matches!(taken, Err(Refusal::Failed(_))) {
            doubt.settle();
        }
        if let Err(Refusal::NoSession) = taken {
            self.heart.doubt_session(session);
        }
        taken
    }

    /// Removes what former lives have left, of which nothing is in sight any more.
    async fn remove_former(&self, record: &Record, former: &[Incarnation]) {
        for life in former {
            let names = self.names(record.instance.service(), record.instance.id(), *life);
            let doubtful = self.heart.forsake(*life);
            if let Err(failure) = self.agent().deregister(&names.service_id).await {
                // Nobody passes it any more, so it lapses by itself.
                tracing::debug!(service_id = names.service_id, cause = %failure.error, "not removed");
            }
            if doubtful {
                self.heart.lay(names, *life);
            }
        }
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
        // Servers end a session up to twice its time after its last renewal, and the fence with it.
        let fenced = self.config.session_ttl * 2 + Duration::from_secs(1);
        capabilities.id_release = capabilities.crash_detection.max(Some(fenced));
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
        Some(self.agent().admission().clone())
    }

    async fn prepare(&self) -> Result<()> {
        self.heart.session().await.map(drop)
    }

    fn check(&self, record: &Record) -> Result<()> {
        let names = self.names(
            record.instance.service(),
            record.instance.id(),
            record.incarnation,
        );
        self.write(record, &names).map(drop)
    }

    /// The fence first, so that nobody else is in sight; then the service, critical as every new
    /// one; then its first pass. What is late of all this is refused, or stays critical.
    async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<Arc<Life>> {
        let life = record.incarnation;
        let service = record.instance.service();
        let names = self.names(service, record.instance.id(), life);
        let registration = Arc::new(self.write(record, &names)?);
        let session = self.heart.session().await?;
        let value = Value {
            life,
            sequence: 0,
            load: record.load,
        };
        let held = self.acquire(&names.key, &session.id, value, former).await;
        let held = held.map_err(|refusal| match refusal {
            Refusal::NoSession => Error::new(ErrorKind::Unavailable, "the session has just ended"),
            Refusal::Foreign(cause) | Refusal::Failed(cause) => cause,
        })?;
        let doubt = self.heart.doubts().begin(life);
        let registered = self.agent().register(&registration).await;
        if !matches!(&registered, Err(failure) if failure.status.is_none()) {
            doubt.settle();
        }
        registered?;
        if !self.heart.is_certain_of(&session.id) {
            self.heart.doubt_session(&session.id);
            return Err(Error::new(
                ErrorKind::Unavailable,
                "held up for longer than the session is sure to last",
            ));
        }
        let passed = Instant::now();
        match self.agent().pass(&names.service_id).await? {
            Beat::Alive => {}
            Beat::Unknown => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the agent has already forgotten the service",
                ));
            }
            Beat::Refused(failure) => return Err(failure.into()),
        }
        self.await_sight(service, &session.node, &names).await?;
        self.remove_former(record, former).await;
        let claim = Life::new(names, life, session.id, held, registration, passed);
        let claim = Arc::new(claim);
        self.heart.keep(&claim)?;
        Ok(claim)
    }

    async fn renew(&self, claim: &Arc<Life>) -> Result<()> {
        self.heart.confirm(claim).await
    }

    async fn lost(&self, claim: &Arc<Life>) -> Error {
        claim.end_of().await
    }

    async fn update(&self, claim: &Arc<Life>, record: &Record) -> Result<()> {
        self.heart.confirm(claim).await?;
        let registration = Arc::new(self.write(record, &claim.names)?);
        self.heart.write(claim, Some(registration)).await?;
        if let Some(cause) = claim.ended() {
            return Err(cause);
        }
        let passed = Instant::now();
        match self.agent().pass(&claim.names.service_id).await? {
            Beat::Alive => claim.passed(passed),
            Beat::Unknown => claim.end("the agent does not know of the service any more", None),
            Beat::Refused(failure) => return Err(failure.into()),
        }
        claim.ended().map_or(Ok(()), Err)
    }

    async fn publish(&self, claim: &Arc<Life>, load: u64) -> Result<()> {
        if let Some(cause) = claim.ended() {
            return Err(cause);
        }
        let mut held = claim.held.lock().await;
        let (key, session) = (&claim.names.key, &claim.session);
        let life = claim.incarnation;
        let mut chain = fence::publish(self.agent(), key, session, life, load, &mut held).await;
        if let Ok(Chain::Gone) = chain {
            let value = Value {
                life,
                sequence: held.sequence + 1,
                load,
            };
            let taken = self.acquire(key, session, value, &[]).await;
            chain = taken.map(|taken| {
                *held = taken;
                Chain::Cut
            });
        }
        match chain {
            Ok(Chain::Whole) => Ok(()),
            // So the catalog may have been set back as well, and the agent would notice only when
            // it next compares all that it knows, which takes minutes.
            Ok(Chain::Cut | Chain::Gone) => self.heart.write(claim, None).await,
            Err(Refusal::NoSession) => {
                self.heart.doubt_session(session);
                Err(Error::new(ErrorKind::LeaseExpired, "the session has ended"))
            }
            Err(Refusal::Foreign(cause)) => {
                claim.end("another life holds the id", Some(cause.clone()));
                Err(cause)
            }
            Err(Refusal::Failed(cause)) => Err(cause),
        }
    }

    /// The fence first: a service that is gone while its fence stands was not given up.
    async fn release(&self, release: &Release, _claim: Option<&Arc<Life>>) -> Result<()> {
        let names = |life: &Incarnation| self.names(&release.service, &release.id, *life);
        let Some(first) = release.incarnations.first() else {
            return Ok(());
        };
        let lives = &release.incarnations;
        let doubtful: Vec<_> = lives.iter().map(|life| self.heart.forsake(*life)).collect();
        let fence = fence::release(self.agent(), &names(first).key, release).await;
        // Of the service the agent alone decides, whatever the servers do.
        for life in lives {
            self.agent().deregister(&names(life).service_id).await?;
        }
        fence?;
        let node = self.heart.node();
        for (life, doubtful) in lives.iter().zip(doubtful) {
            self.await_absence(&release.service, node.as_deref(), &names(life))
                .await?;
            if doubtful {
                // What lay in the buffers of an agent that slept is carried out in any order.
                sleep(AFTERMATH).await;
                self.agent().deregister(&names(life).service_id).await?;
                self.await_absence(&release.service, node.as_deref(), &names(life))
                    .await?;
                self.heart.lay(names(life), *life);
            }
        }
        Ok(())
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
            poll: match interest {
                Interest::Members => None,
                // Whatever else may be of interest later has loads in it.
                _ => Some(self.config.load_poll),
            },
        };
        updates::subscribe(&self.reader, service, following).await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let names = self.agent().services().await?;
        // A name that is not written as here is nobody's who could be asked for.
        let read = |name: String| unescape(&name).ok()?.parse().ok();
        Ok(names.into_iter().filter_map(read).collect())
    }
}
