//! Writing to a record that is held.

use std::sync::Arc;

use plimsoll_backend_kit::Record;
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::Records;
use crate::http::agent::Beat;
use crate::life::Life;
use crate::owner_lock::{self, Chain, Refusal, Value};

impl Records {
    /// Replaces the attributes.
    pub(crate) async fn update(&self, claim: &Arc<Life>, record: &Record) -> Result<()> {
        self.keeper.confirm(claim).await?;
        let registration = Arc::new(self.write(record, &claim.names)?);
        self.keeper.write(claim, Some(registration)).await?;
        if let Some(cause) = claim.ended() {
            return Err(cause);
        }
        let passed = Instant::now();
        match self.agent.pass(&claim.names.service_id).await? {
            Beat::Alive => claim.passed(passed),
            Beat::Unknown => claim.end("the agent does not know of the service any more", None),
            Beat::Refused(failure) => return Err(failure.into()),
        }
        claim.ended().map_or(Ok(()), Err)
    }

    /// Replaces the load.
    pub(crate) async fn publish(&self, claim: &Arc<Life>, load: u64) -> Result<()> {
        if let Some(cause) = claim.ended() {
            return Err(cause);
        }
        let mut held = claim.held.lock().await;
        let (key, session) = (&claim.names.key, &claim.session);
        let life = claim.incarnation;
        let mut chain = owner_lock::publish(&self.agent, key, session, life, load, &mut held).await;
        if let Ok(Chain::Gone) = chain {
            let value = Value {
                life,
                sequence: held.sequence + 1,
                load,
            };
            let taken = self.acquire(&self.agent, key, session, value, &[]).await;
            chain = taken.map(|taken| {
                *held = taken;
                Chain::Cut
            });
        }
        match chain {
            Ok(Chain::Whole) => Ok(()),
            // So the catalog may have been set back as well, and the agent would notice only when
            // it next compares all that it knows, which takes minutes.
            Ok(Chain::Cut | Chain::Gone) => self.keeper.write(claim, None).await,
            Err(Refusal::NoSession) => {
                self.keeper.doubt_session(session);
                Err(Error::new(ErrorKind::LeaseExpired, "the session has ended"))
            }
            Err(Refusal::Foreign(cause)) => {
                claim.end("another life holds the id", Some(cause.clone()));
                Err(cause)
            }
            Err(Refusal::Failed(cause)) => Err(cause),
        }
    }
}
