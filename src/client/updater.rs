//! The one writer of a client's view.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use plimsoll_discovery_api::{
    Balancer, Endpoint, Endpoints, Error, ErrorKind, Freshness, Member, Snapshot, Watch,
};
use tokio::sync::{Notify, watch};

use super::NoEndpointReason;
use super::accrual::{self, Accrual};
use super::eligible::{Eligibility, Selection};
use super::shared::Shared;
use super::view::{Choice, Nothing, View};

/// Owns the watch and the balancer; makes views of snapshots and of what health checks found.
#[derive(Debug)]
pub(super) struct Updater {
    watch: Watch,
    balancer: Box<dyn Balancer>,
    eligibility: Eligibility,
    shared: Arc<Shared>,
    health: HealthLink,
    /// `None` if the client was told to leave nobody out.
    accrual: Option<Accrual>,
    snapshot: Option<Arc<Snapshot>>,
    endpoints: Endpoints,
    /// Whether anything a balancer may look at has changed since the last picker was built.
    rebuild_due: bool,
}

/// How the updater and the health monitor hear of each other.
#[derive(Debug)]
pub(super) struct HealthLink {
    /// The endpoints to check.
    pub(super) endpoints: watch::Sender<Endpoints>,
    /// Told when a check changed an endpoint's health.
    pub(super) verdicts: Arc<Notify>,
}

impl Updater {
    /// Publishes at once what the registry has said already.
    pub(super) fn new(
        watch: Watch,
        balancer: Box<dyn Balancer>,
        eligibility: Eligibility,
        shared: Arc<Shared>,
        health: HealthLink,
        accrual: Option<Accrual>,
    ) -> Self {
        let known = watch.latest();
        let endpoints: Endpoints = Arc::new([]);
        let (snapshot, rebuild_due) = (None, true);
        let mut updater = Self {
            watch,
            balancer,
            eligibility,
            shared,
            health,
            accrual,
            snapshot,
            endpoints,
            rebuild_due,
        };
        if let Some(snapshot) = known {
            updater.take(snapshot);
            updater.publish();
        }
        updater
    }

    /// Never returns.
    pub(super) async fn run(mut self) {
        let mut followed = true;
        let mut errors = self.watch.clone();
        loop {
            tokio::select! {
                Some(error) = errors.next_error(), if followed => {
                    self.await_answer(error);
                    continue;
                }
                state = self.watch.next(), if followed => match state {
                    Some(snapshot) => self.take(snapshot),
                    None => {
                        followed = false;
                        self.mark_stale();
                    }
                },
                () = self.health.verdicts.notified() => self.rebuild_due = true,
                () = failures(self.accrual.as_mut()) => {
                    self.publish_if(|revised| revised);
                    continue;
                }
            }
            self.publish();
        }
    }

    /// Says why nothing is known yet, if nothing is.
    fn await_answer(&self, error: Error) {
        if self.snapshot.is_none() {
            self.shared.publish(View::unanswered(error));
        }
    }

    /// Brings the endpoints up to date; those whose identity stays, stay.
    fn take(&mut self, snapshot: Arc<Snapshot>) {
        let members = snapshot.members();
        let mut changed = members.len() != self.endpoints.len();
        // Whoever is there in the first answer may have been there for long.
        let joined = self.snapshot.is_some().then(|| self.shared.clock.now());
        let mut endpoint_of = |member: &Member| match find(&self.endpoints, member) {
            Some(endpoint) => {
                changed |= endpoint.refresh(member);
                Arc::clone(endpoint)
            }
            None => {
                changed = true;
                let endpoint = Endpoint::new(member);
                endpoint.mark_joined(joined);
                if let Some(accrual) = &self.accrual {
                    accrual.watch(&endpoint);
                }
                Arc::new(endpoint)
            }
        };
        let endpoints: Endpoints = members.iter().map(&mut endpoint_of).collect();
        if changed {
            self.rebuild_due = true;
            self.endpoints = endpoints;
            self.health
                .endpoints
                .send_replace(Arc::clone(&self.endpoints));
        }
        self.snapshot = Some(snapshot);
    }

    /// For when nothing follows the registry any more: the last good set stays.
    fn mark_stale(&mut self) {
        let is_live = |snapshot: &mut Arc<Snapshot>| snapshot.freshness().is_live();
        if let Some(snapshot) = self.snapshot.take_if(is_live) {
            let since = self.shared.clock.now();
            let stale = Snapshot::clone(&snapshot).with_freshness(Freshness::Stale { since });
            self.snapshot = Some(Arc::new(stale.with_cause(ended())));
        }
    }

    fn publish(&mut self) {
        self.publish_if(|_| true);
    }

    /// Publishes what is known now, if `is_due`, which is told whether the failure accrual has
    /// decided anything new.
    fn publish_if(&mut self, is_due: fn(bool) -> bool) {
        let Some(snapshot) = self.snapshot.clone() else {
            return;
        };
        let before = self.shared.view.load_full();
        // The user's balancer and filters run here; the updater must survive them.
        match catch_unwind(AssertUnwindSafe(|| self.make(snapshot, &before, is_due))) {
            Ok(None) => {}
            Ok(Some(view)) => {
                log_failing_open(&self.shared, &before, &view);
                self.rebuild_due = false;
                self.shared.publish(view);
                self.shared.changed.notify_waiters();
            }
            Err(_) => {
                self.shared.counters.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    service = %self.shared.service,
                    "a balancer or a filter panicked; the client keeps the view before it"
                );
            }
        }
    }

    fn make(
        &mut self,
        snapshot: Arc<Snapshot>,
        before: &View,
        is_due: fn(bool) -> bool,
    ) -> Option<View> {
        let Selection {
            usable,
            failing_open,
            nothing,
        } = self.eligibility.select(&self.endpoints);
        let service = self.shared.service.as_str();
        let revise = |accrual: &mut Accrual| accrual.revise(&self.endpoints, &usable, service);
        let revised = self.accrual.as_mut().is_some_and(revise);
        if !is_due(revised) {
            return None;
        }
        let (eligible, trials) = accrual::admitted(usable);
        let unchanged = !self.rebuild_due && is_same(&eligible, &before.eligible);
        let choice = match nothing {
            _ if unchanged && nothing == before.nothing() => before.choice.clone(),
            None => self.build(&eligible),
            Some(reason) => {
                // The picker is of no use, but a balancer that keeps endpoints lets go of them.
                let _nothing_to_pick = self.balancer.build(&eligible);
                Err(reason.into())
            }
        };
        let endpoints = Arc::clone(&self.endpoints);
        Some(View {
            generation: 0,
            snapshot: Some(snapshot),
            endpoints,
            eligible,
            trials,
            failing_open,
            choice,
        })
    }

    fn build(&mut self, eligible: &Endpoints) -> Choice {
        self.shared
            .counters
            .rebuilds
            .fetch_add(1, Ordering::Relaxed);
        let built = self.balancer.build(eligible);
        if self.balancer.ejects()
            && let Some(accrual) = self.accrual.take()
        {
            accrual.retire(&self.endpoints);
        }
        built.map(Arc::from).map_err(|error| {
            tracing::error!(
                service = %self.shared.service,
                balancer = self.balancer.name(),
                %error,
                "the balancer can make nothing of the endpoints"
            );
            Nothing {
                reason: NoEndpointReason::Unbalanceable,
                source: Some(error),
            }
        })
    }
}

/// Returns when failures give reason to look; never without an accrual.
async fn failures(accrual: Option<&mut Accrual>) {
    match accrual {
        Some(accrual) => accrual.due().await,
        None => std::future::pending().await,
    }
}

/// The runtime has ended, or nobody can pick any more. Whoever still can, from outside, is told.
impl Drop for Updater {
    fn drop(&mut self) {
        if Arc::strong_count(&self.shared) == 1 {
            return;
        }
        self.mark_stale();
        match &self.snapshot {
            Some(snapshot) => {
                // Nothing of the user's runs here.
                let view = self.shared.view.load();
                let view = view.with_snapshot(Arc::clone(snapshot));
                self.shared.publish(view);
            }
            None => self.await_answer(ended()),
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the registry is followed no more")
}

fn find<'a>(endpoints: &'a Endpoints, member: &Member) -> Option<&'a Arc<Endpoint>> {
    let index = endpoints
        .binary_search_by(|endpoint| endpoint.id().cmp(member.id()))
        .ok()?;
    endpoints
        .get(index)
        .filter(|endpoint| endpoint.is_view_of(member))
}

fn is_same(one: &Endpoints, other: &Endpoints) -> bool {
    one.len() == other.len() && one.iter().zip(other.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn log_failing_open(shared: &Shared, before: &View, view: &View) {
    let (service, members) = (&shared.service, view.endpoints.len());
    match (before.failing_open, view.failing_open) {
        (false, true) => tracing::warn!(
            %service, members, "too few endpoints are healthy; picking among all of them"
        ),
        (true, false) => tracing::info!(
            %service, members, "enough endpoints are healthy again; the others are left out"
        ),
        _ => {}
    }
}
