//! How a record comes to be.

use std::sync::Arc;

use plimsoll_backend_kit::Record;
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result};
use tokio::time::Instant;

use super::Records;
use crate::http::agent::{Agent, Beat};
use crate::life::Life;
use crate::owner_lock::{Refusal, Value};

impl Records {
    /// The owner lock first, so that nobody else is in sight; then the service, critical as every new
    /// one; then its first pass. What is late of all this is refused, or stays critical.
    pub(crate) async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<Arc<Life>> {
        let agent = &self.agent.patient();
        let life = record.incarnation;
        let service = record.instance.service();
        let names = self.names(service, record.instance.id(), life);
        let registration = Arc::new(self.write(record, &names)?);
        let session = self.keeper.session().await?;
        let value = Value {
            life,
            sequence: 0,
            load: record.load,
        };
        let held = self
            .acquire(agent, &names.key, &session.id, value, former)
            .await;
        let held = held.map_err(|refusal| match refusal {
            Refusal::NoSession => Error::new(ErrorKind::Unavailable, "the session has just ended"),
            Refusal::Foreign(cause) | Refusal::Failed(cause) => cause,
        })?;
        let doubt = self.keeper.uncertain().begin(life);
        let registered = agent.register(&registration).await;
        if !matches!(&registered, Err(failure) if failure.status.is_none()) {
            doubt.settle();
        }
        registered?;
        if !self.keeper.is_certain_of(&session.id) {
            self.keeper.doubt_session(&session.id);
            return Err(Error::new(
                ErrorKind::Unavailable,
                "held up for longer than the session is sure to last",
            ));
        }
        let passed = Instant::now();
        match agent.pass(&names.service_id).await? {
            Beat::Alive => {}
            Beat::Unknown => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the agent has already forgotten the service",
                ));
            }
            Beat::Refused(failure) => return Err(failure.into()),
        }
        self.await_sight(agent, service, &session.node, &names)
            .await?;
        self.remove_former(agent, record, former).await;
        let claim = Life::new(names, life, session.id, held, registration, passed);
        let claim = Arc::new(claim);
        self.keeper.keep(&claim)?;
        Ok(claim)
    }

    /// Removes what former lives have left, of which nothing is in sight any more.
    async fn remove_former(&self, agent: &Agent, record: &Record, former: &[Incarnation]) {
        for life in former {
            let names = self.names(record.instance.service(), record.instance.id(), *life);
            let doubtful = self.keeper.forsake(*life);
            if let Err(failure) = agent.deregister(&names.service_id).await {
                // Nobody passes it any more, so it lapses by itself.
                tracing::debug!(service_id = names.service_id, cause = %failure.error, "not removed");
            }
            if doubtful {
                self.keeper.reap(names, *life);
            }
        }
    }
}
