//! Picking from one task.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use plimsoll_discovery_api::{Endpoint, Pick, Rng};

use super::shared::Shared;
use super::{Client, NoEndpoint, PickRequest, View, trial};

/// A handle of one task or thread on a [`Client`], which picks at a lower cost: it keeps the
/// present view and its own randomness, so that while membership stands still a pick is one load
/// and what the balancer does.
///
/// It sees a change at its next pick; until then it keeps the view of its last pick alive. Keeps
/// the client's tasks running like any clone. Cloning gives an independent handle.
pub struct LocalClient {
    client: Client,
    view: Arc<View>,
    rng: Rng,
}

impl LocalClient {
    pub(super) fn new(client: Client) -> Self {
        let view = client.view();
        let rng = client.shared.randomness.fork();
        Self { client, view, rng }
    }

    /// Picks an endpoint and counts a request on it until the pick is finished or dropped.
    ///
    /// Neither waits, nor locks, nor allocates. The pick borrows from the handle; for one that can
    /// be kept, use [`Client::pick`].
    ///
    /// # Errors
    /// As [`Client::pick`].
    #[inline]
    pub fn pick(&mut self, request: &PickRequest<'_>) -> Result<Pick<&Endpoint>, NoEndpoint> {
        self.pick_by(request.key(), request.excluded())
    }

    /// In registers: a request that comes in memory is read in pieces other than those it was just
    /// written in, and waits until they have left the core's store buffer.
    fn pick_by(
        &mut self,
        key: Option<u64>,
        excluded: &[Arc<Endpoint>],
    ) -> Result<Pick<&Endpoint>, NoEndpoint> {
        let shared = &*self.client.shared;
        if self.view.generation != shared.generation.load(Ordering::Relaxed) {
            refresh(&mut self.view, &self.client);
        }
        let (rng, clock) = (&mut self.rng, &*shared.clock);
        if !excluded.is_empty() || !self.view.trials.is_empty() {
            return pick_or_try(&self.view, shared, key, excluded, rng);
        }
        match self.view.first_choice(key, rng, clock) {
            Some(endpoint) => Ok(Pick::new(&**endpoint)),
            None => Err(shared.refuse(&self.view, self.view.no_choice())),
        }
    }

    /// The client behind the handle.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// Apart, so that picks stay small where they are inlined.
#[cold]
#[inline(never)]
fn pick_or_try<'a>(
    view: &'a View,
    shared: &Shared,
    key: Option<u64>,
    excluded: &[Arc<Endpoint>],
    rng: &mut Rng,
) -> Result<Pick<&'a Endpoint>, NoEndpoint> {
    match view.pick_or_try(key, excluded, rng, &*shared.clock) {
        Ok((endpoint, is_trial)) => Ok(trial::begin(&**endpoint, is_trial)),
        Err(reason) => Err(shared.refuse(view, reason)),
    }
}

/// Apart, so that picks stay small where they are inlined.
#[cold]
fn refresh(view: &mut Arc<View>, client: &Client) {
    *view = client.view();
}

impl Clone for LocalClient {
    /// Draws from elsewhere: two handles that drew alike would pick alike.
    fn clone(&self) -> Self {
        self.client.local()
    }
}

impl fmt::Debug for LocalClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalClient").field(&self.client).finish()
    }
}
