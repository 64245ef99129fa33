//! What clients see of a registration.

use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result, ServiceName};
use tokio::time::sleep;

use super::Records;
use crate::http::agent::{Agent, Reading};
use crate::keys::{Names, service_name};
use crate::resolve::{Condition, condition};

/// What the agent was told is in the catalog within a few milliseconds, or when its servers are
/// back; so the catalog is asked at once, and then ever less often.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(100);
/// So many looks in a row, which take some 200 ms, at which a leader shows nothing of what it has:
/// no election explains them.
const HIDDEN: u32 = 8;
/// What clients see of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Usable,
    /// It is there, and an operator has taken it, or its node, out of service, for this reason.
    Maintained(String),
    /// Something of it, or of its node, is critical.
    Critical,
    Nothing,
}

impl Records {
    /// Asks until the service of `names`, whose agent is `node`, is seen where clients look.
    pub(super) async fn await_sight(
        &self,
        agent: &Agent,
        service: &ServiceName,
        node: &str,
        names: &Names,
    ) -> Result<()> {
        let check = names.check_id();
        let mut pause = FIRST_LOOK;
        let mut hidden = 0;
        loop {
            let status = agent.check(node, &check).await?;
            if status.as_deref() == Some("passing") {
                match self.sight(agent, service, names).await? {
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
    pub(super) async fn sight(
        &self,
        agent: &Agent,
        service: &ServiceName,
        names: &Names,
    ) -> Result<Sight> {
        let name = service_name(service);
        let filter = format!("Service.ID == \"{}\"", names.service_id);
        let read = agent.health(&name, Reading::Own, Some(&filter), None);
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
    pub(super) async fn await_absence(
        &self,
        service: &ServiceName,
        node: Option<&str>,
        names: &Names,
    ) -> Result<()> {
        let check = names.check_id();
        let mut pause = FIRST_LOOK;
        loop {
            let seen = match node {
                Some(node) => self.agent.check(node, &check).await?.is_some(),
                None => matches!(
                    self.sight(&self.agent, service, names).await?,
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
}
