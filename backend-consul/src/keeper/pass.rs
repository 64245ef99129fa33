//! Passing checks.

use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_backend_kit::Class;
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Shared;
use crate::error::Failure;
use crate::http::agent::Beat;
use crate::life::Life;

/// A pass is a few requests at most, of which each has its own time.
const REQUESTS: u32 = 5;
/// So many checks are passed at one time, each over a connection of its own.
const ABREAST: usize = 8;

/// Passes the checks of those of `lives` that have not ended. Fails with what is the least likely to
/// pass by itself.
pub(super) async fn pass_all(shared: &Arc<Shared>, lives: Vec<Arc<Life>>) -> Result<()> {
    // What one request fails with for the agent's sake or the token's the others need not be told.
    let hopeless = Arc::new(Mutex::new(None::<Error>));
    let abreast = Arc::new(Semaphore::new(ABREAST));
    let mut passes = JoinSet::new();
    for life in lives {
        let (shared, hopeless) = (Arc::clone(shared), Arc::clone(&hopeless));
        let abreast = Arc::clone(&abreast);
        passes.spawn(async move {
            // Never closed, so there is one.
            let _place = abreast.acquire_owned().await;
            let permit = shared.agent.admission().enter(Class::Liveness).await;
            if life.ended().is_some() {
                return Ok(());
            }
            let cause = hopeless
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some(cause) = cause {
                life.failed(cause.clone());
                return Err(cause);
            }
            let mut answered = false;
            let limit = shared.config.request_timeout * REQUESTS;
            let passed = permit.run(limit, async {
                pass(&shared, &life).await.map_err(|failure| {
                    answered = !concerns_all(&failure);
                    failure.error
                })
            });
            passed.await.inspect_err(|cause| {
                life.failed(cause.clone());
                if !answered {
                    let mut hopeless = hopeless.lock().unwrap_or_else(PoisonError::into_inner);
                    hopeless.get_or_insert_with(|| cause.clone());
                }
            })
        });
    }
    let mut worst = Ok(());
    while let Some(passed) = passes.join_next().await {
        let passed = passed.unwrap_or_else(|cause| {
            Err(Error::new(ErrorKind::Unexpected, "a pass came to nothing").with_source(cause))
        });
        worst = worse(worst, passed);
    }
    worst
}

/// Of two outcomes the one that is less likely to get better by itself.
pub(super) fn worse(one: Result<()>, other: Result<()>) -> Result<()> {
    match (one, other) {
        (Err(one), Err(other)) if one.is_retryable() => Err(other),
        (one, other) => one.and(other),
    }
}

/// Whether whatever else is asked at this time would fail as well: there was no answer, the agent
/// takes no more, or it does not know the token. One that knows it may allow it other services.
fn concerns_all(failure: &Failure) -> bool {
    use ErrorKind::{ResourceExhausted, Unauthenticated};
    failure.status.is_none() || matches!(failure.error.kind(), ResourceExhausted | Unauthenticated)
}

async fn pass(shared: &Shared, life: &Life) -> Result<(), Failure> {
    let began = Instant::now();
    let id = &life.names.service_id;
    let mut answer = shared.agent.pass(id).await?;
    if let Beat::Refused(why) = &answer {
        tracing::debug!(service_id = id, cause = %why.error, "not passed; registering its check anew");
        shared.write(life, None).await?;
        if life.ended().is_some() {
            return Ok(());
        }
        answer = shared.agent.pass(id).await?;
    }
    match answer {
        Beat::Alive => {
            life.passed(began);
            if life.is_in_doubt(began) {
                settle(shared, life).await;
            }
            Ok(())
        }
        Beat::Unknown => {
            life.end("the agent does not know of the service any more", None);
            Ok(())
        }
        Beat::Refused(failure) => Err(failure),
    }
}

/// Writes again what a registration that arrived late has replaced.
async fn settle(shared: &Shared, life: &Life) {
    if let Ok(Some(service)) = shared.agent.service(&life.names.service_id).await
        && !life.is_as_written(&service.meta)
    {
        tracing::debug!(
            service_id = life.names.service_id,
            "older attributes arrived late"
        );
        let _repeated_with_the_next_beat = shared.write(life, None).await;
    }
}
