//! What a client's handles and its updater share.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use plimsoll_discovery_api::{Clock, ServiceName};
use tokio::sync::Notify;

use super::random::Randomness;
use super::stats::Counters;
use super::{NoEndpoint, NoEndpointReason, View};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) view: ArcSwap<View>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) randomness: Randomness,
    pub(super) service: ServiceName,
    pub(super) counters: Counters,
    /// Told after every new view.
    pub(super) changed: Notify,
}

impl Shared {
    #[cold]
    pub(super) fn refuse(&self, view: &View, reason: NoEndpointReason) -> NoEndpoint {
        self.counters.refuse(reason);
        NoEndpoint::new(reason, self.service.clone(), view.source_of(reason))
    }
}

/// The way to the present view, as a cache wants it.
#[derive(Clone, Debug)]
pub(super) struct Views(pub(super) Arc<Shared>);

impl Deref for Views {
    type Target = ArcSwap<View>;

    fn deref(&self) -> &ArcSwap<View> {
        &self.0.view
    }
}
