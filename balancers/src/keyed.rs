//! Choosing by key, with alternatives.

use plimsoll_discovery_api::{Balancer, Endpoints, Picker, Result};

/// A balancer whose pickers choose by key and can name alternatives: what
/// [`BoundedLoadHash`](crate::BoundedLoadHash) goes round.
pub trait KeyedBalancer: Balancer {
    /// What it builds.
    type Picker: KeyedPicker;

    /// As [`build`](Balancer::build), with the picker's type kept.
    ///
    /// # Errors
    /// As [`build`](Balancer::build).
    fn build_keyed(&mut self, endpoints: &Endpoints) -> Result<Self::Picker>;
}

/// A picker by key that can name alternatives.
pub trait KeyedPicker: Picker {
    /// What it picks from: all endpoints that weigh something.
    fn endpoints(&self) -> &Endpoints;

    /// The first endpoint that `accept` takes, in an order which `key` alone decides and which
    /// begins with the one that [`pick`](Picker::pick) names; an index into
    /// [`endpoints`](Self::endpoints).
    ///
    /// The order need not reach all, and may name one more than once. `None` if it ends, or goes on
    /// for so long that looking at all endpoints in turn is cheaper.
    fn find(&self, key: u64, accept: impl FnMut(usize) -> bool) -> Option<usize>;
}

/// How many alternatives are worth trying one by one. With 4 in 5 refused, which is the most under
/// [`BoundedLoadHash`](crate::BoundedLoadHash)'s default, 32 that look random are all refused with
/// probability below 0.001.
pub(crate) const MAX_TRIES: u64 = 32;
