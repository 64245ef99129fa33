//! What a client's handles and its updater share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use plimsoll_discovery_api::{Clock, ServiceName, Watch};
use tokio::sync::Notify;

use super::random::Randomness;
use super::stats::Counters;
use super::{NoEndpoint, NoEndpointReason, View};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) view: ArcSwap<View>,
    /// That of the view, or of the next if it is about to be stored.
    pub(super) generation: AtomicU64,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) randomness: Randomness,
    pub(super) service: ServiceName,
    /// For the registry's last error.
    pub(super) watch: Watch,
    pub(super) counters: Counters,
    /// Told after every new view.
    pub(super) changed: Notify,
}

impl Shared {
    /// Exchanges the view. For its one writer.
    pub(super) fn publish(&self, view: View) {
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        // Before the view, so that a handle looks again for as long as it has an older one, and
        // finds the new one at the latest when anybody else has.
        self.generation.store(generation, Ordering::Relaxed);
        self.view.store(Arc::new(View { generation, ..view }));
    }

    /// Counts a pick that was refused.
    #[cold]
    pub(super) fn refuse(&self, view: &View, reason: NoEndpointReason) -> NoEndpoint {
        self.counters.refuse(reason);
        self.no_endpoint(view, reason)
    }

    pub(super) fn no_endpoint(&self, view: &View, reason: NoEndpointReason) -> NoEndpoint {
        NoEndpoint::new(reason, self.service.clone(), view.source_of(reason))
    }
}
