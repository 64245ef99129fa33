//! Reading a service.

use std::time::Duration;

use plimsoll_backend_kit::{Class, Listing, unescape};
use plimsoll_discovery_api::{Error, ErrorKind, InstanceId, Result, Revision, ServiceName};
use tokio::time::timeout;

use crate::history::Histories;
use crate::http::agent::{Agent, Reading};
use crate::http::waits::Waits;
use crate::http::wire::Pair;
use crate::keys::{branch, service_name};
use crate::owner_lock::Value;
use crate::resolve::{Resolved, resolve};

/// What reading takes.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) agent: Agent,
    pub(crate) root: String,
    pub(crate) histories: Histories,
    pub(crate) waits: Waits,
}

/// A load as it stands in the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) value: Value,
    pub(crate) modified: u64,
}

/// A service, read whole.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) index: u64,
    pub(crate) resolved: Resolved,
    /// Who is there is known without them.
    pub(crate) loads: Result<Loads>,
}

pub(crate) type Loads = Vec<(InstanceId, Stored)>;

impl Reader {
    /// Reads the entries of `service` and, if asked to, their loads.
    pub(crate) async fn view(&self, service: &ServiceName, loads: bool) -> Result<View> {
        let name = service_name(service);
        let entries = self.agent.health(&name, Reading::Settings, None, None);
        let loads = async {
            if loads {
                self.loads(service, Reading::Settings).await
            } else {
                Ok(Vec::new())
            }
        };
        let (health, loads) = tokio::join!(entries, loads);
        let health = health?;
        Ok(View {
            index: health.index,
            resolved: resolve(service, &health.entries),
            loads,
        })
    }

    /// The same as [`loads`](Self::loads), for whoever has no permit yet: when it is its turn, which is
    /// waited for as long again as for the answer.
    pub(crate) async fn admitted_loads(
        &self,
        service: &ServiceName,
        reading: Reading,
        limit: Duration,
    ) -> Result<Loads> {
        let loads = self.loads(service, reading);
        let admitted = self.agent.admission().call(Class::Other, limit, loads);
        let late = |_| {
            Error::new(
                ErrorKind::TimedOut,
                "it was not the turn of a reading of loads",
            )
        };
        timeout(limit * 2, admitted).await.map_err(late)?
    }

    /// Reads what the owners of `service` have written; what cannot be understood is nobody's.
    pub(crate) async fn loads(&self, service: &ServiceName, reading: Reading) -> Result<Loads> {
        let branch = branch(&self.root, service);
        let pairs = self.agent.keys(&branch, reading).await?;
        Ok(pairs
            .iter()
            .filter_map(|pair| Some((owner(pair, &branch)?, stored(pair)?)))
            .collect())
    }
}

fn owner(pair: &Pair, branch: &str) -> Option<InstanceId> {
    let key = pair.key.strip_prefix(branch)?;
    InstanceId::new(unescape(key).ok()?).ok()
}

/// What no session holds keeps nobody's id: it is a copy, or a backup.
fn stored(pair: &Pair) -> Option<Stored> {
    pair.session.as_ref()?;
    Some(Stored {
        value: Value::read(pair)?,
        modified: pair.modify_index,
    })
}

impl View {
    /// The listing that this comes to, at `revision`.
    pub(crate) fn listing(&self, revision: Revision) -> Listing {
        let mut entries: Vec<_> = self
            .resolved
            .present
            .values()
            .map(|present| present.entry.clone())
            .collect();
        let loads = self.loads.as_deref().unwrap_or_default();
        for entry in &mut entries {
            let stored = loads.iter().find(|(id, _)| id == entry.instance.id());
            let stored = stored.filter(|(_, stored)| stored.value.life == entry.incarnation);
            entry.load = stored.map(|(_, stored)| stored.value.load);
        }
        let skipped = self.resolved.skipped.values().cloned().collect();
        Listing::new(revision, entries, skipped)
    }
}
