//! Picking from one task.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use plimsoll_discovery_api::{Endpoint, Pick, Rng};

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
        let picked = if self.view.trials.is_empty() {
            let picked = self.view.pick(key, excluded, rng, clock);
            picked.map(|endpoint| Pick::new(&**endpoint))
        } else {
            let picked = self.view.pick_or_try(key, excluded, rng, clock);
            picked.map(|(endpoint, is_trial)| trial::begin(&**endpoint, is_trial))
        };
        picked.map_err(|reason| shared.refuse(&self.view, reason))
    }

    /// The client behind the handle.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
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
