//! What a registration does to its agent and to the store.

mod claim;
mod remove;
mod sight;
mod write;

use std::sync::Arc;

use plimsoll_backend_kit::Record;
use plimsoll_discovery_api::{Incarnation, InstanceId, Result, ServiceName};

use crate::codec;
use crate::config::Config;
use crate::http::agent::Agent;
use crate::http::wire::Registration;
use crate::keeper::Keeper;
use crate::keys::Names;
use crate::owner_lock::{self, Held, Refusal, Value};

/// The records of one handle, all of its session.
#[derive(Debug)]
pub(crate) struct Records {
    config: Arc<Config>,
    agent: Agent,
    pub(crate) keeper: Keeper,
}

impl Records {
    pub(crate) fn new(agent: Agent, config: Arc<Config>) -> Self {
        Self {
            keeper: Keeper::new(agent.clone(), Arc::clone(&config)),
            agent,
            config,
        }
    }

    pub(crate) fn write(&self, record: &Record, names: &Names) -> Result<Registration> {
        codec::write(record, names, self.config.ttl, self.config.deregister_after)
    }

    pub(crate) fn names(&self, service: &ServiceName, id: &InstanceId, life: Incarnation) -> Names {
        Names::new(&self.config.root, service, id, life)
    }

    /// Takes the owner lock for the session.
    async fn acquire(
        &self,
        agent: &Agent,
        key: &str,
        session: &str,
        value: Value,
        former: &[Incarnation],
    ) -> Result<Held, Refusal> {
        let doubt = self.keeper.uncertain().begin(value.life);
        let taken = owner_lock::acquire(agent, key, session, value, former).await;
        if !matches!(taken, Err(Refusal::Failed(_))) {
            doubt.settle();
        }
        if let Err(Refusal::NoSession) = taken {
            self.keeper.doubt_session(session);
        }
        taken
    }
}
