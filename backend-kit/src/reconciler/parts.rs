//! What the actor and the holding of its record share: what is wanted, and whom to tell.

use std::future::pending;
use std::sync::Arc;

use plimsoll_discovery_api::{
    Error, ErrorKind, Instance, LoadGauge, RegistrationState, Result, Rng,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::admission::{Permit, bounded};
use crate::handle_guard::HandlesGone;
use crate::log::StateLog;
use crate::unfinished::Unfinished;
use crate::{Admission, Class, Driver, Record, Timings};

/// What the user wants.
#[derive(Clone, Debug)]
pub(super) struct Desired {
    pub(super) instance: Arc<Instance>,
    pub(super) given_up: bool,
}

/// How far the removal has come.
#[derive(Clone, Debug)]
pub(super) enum Removal {
    Waiting,
    Failing(Error),
    Done,
}

pub(super) type FlushReply = oneshot::Sender<Result<()>>;

pub(super) struct Parts<D> {
    pub(super) timings: Timings,
    pub(super) driver: Arc<D>,
    pub(super) admission: Admission,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) state: watch::Sender<RegistrationState>,
    pub(super) log: StateLog,
    pub(super) removal: watch::Sender<Removal>,
    pub(super) gauge: Arc<LoadGauge>,
    pub(super) flushes: mpsc::Receiver<FlushReply>,
    pub(super) handle_guard: HandlesGone,
    pub(super) unfinished: Unfinished,
    pub(super) rng: Rng,
}

/// A record that was obtained, what was written of it, and when the call that did was sent.
pub(super) struct Claimed<D: Driver> {
    pub(super) claim: Arc<D::Claim>,
    pub(super) record: Record,
    pub(super) started: Instant,
}

impl<D: Driver> Parts<D> {
    pub(super) fn show(&mut self, state: RegistrationState) {
        self.log.stands(&state, state.cause());
        self.state.send_replace(state);
    }

    /// Awaits `wanted`, refusing flushes; `None` once given up.
    pub(super) async fn idle<T>(&mut self, wanted: impl Future<Output = T>) -> Option<T> {
        let mut wanted = std::pin::pin!(wanted);
        loop {
            let flushes = &mut self.flushes;
            let refuse = async {
                match flushes.recv().await {
                    Some(reply) => drop(reply.send(Err(not_live()))),
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.desired.wait_for(|desired| desired.given_up) => return None,
                done = &mut wanted => return Some(done),
                () = refuse => {}
            }
        }
    }

    /// Waits until a claim may be made: first for what all claims need, which many share, and then
    /// for its turn. `None` once given up, when nothing was sent that would have to be undone.
    pub(super) async fn await_leave(&mut self) -> Option<Result<Permit>> {
        let (driver, admission) = (Arc::clone(&self.driver), self.admission.clone());
        let limit = admission.patience(self.timings.call_timeout);
        self.idle(async move {
            bounded(limit, driver.prepare()).await?;
            Ok(admission.enter(Class::Claim).await)
        })
        .await
    }

    /// Awaits `call`, refusing flushes.
    pub(super) async fn attend<T>(&mut self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mut call = std::pin::pin!(call);
        loop {
            tokio::select! {
                biased;
                result = &mut call => return result,
                Some(reply) = self.flushes.recv() => drop(reply.send(Err(not_live()))),
            }
        }
    }
}

pub(super) fn not_live() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the registration is not live; the load is kept",
    )
}
