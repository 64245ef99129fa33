//! What one pick asks for.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use plimsoll_discovery_api::Endpoint;

use super::hash::KeyHasher;

/// What one pick asks for, beyond any endpoint: nothing, by default.
///
/// ```
/// # use plimsoll::PickRequest;
/// let any = PickRequest::new();
/// let sticky = PickRequest::keyed("user-17");
/// assert_eq!(sticky.key(), PickRequest::keyed("user-17").key());
/// assert_ne!(sticky.key(), any.key());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PickRequest<'a> {
    key: Option<u64>,
    excluded: &'a [Arc<Endpoint>],
    idempotent: bool,
}

impl<'a> PickRequest<'a> {
    /// Any endpoint will do.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            key: None,
            excluded: &[],
            idempotent: false,
        }
    }

    /// With a key to hash: balancers that hash send equal keys to one endpoint, others ignore it.
    ///
    /// The hash is fixed: equal keys hash alike in every process and every run.
    #[must_use]
    pub fn keyed(key: &(impl Hash + ?Sized)) -> Self {
        let mut hasher = KeyHasher::default();
        key.hash(&mut hasher);
        Self::new().with_key(hasher.finish())
    }

    /// With a key that is a good hash already. See [`keyed`](Self::keyed).
    #[must_use]
    pub const fn with_key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// Never one of `excluded`, as those that were tried already.
    #[must_use]
    pub const fn with_excluded(mut self, excluded: &'a [Arc<Endpoint>]) -> Self {
        self.excluded = excluded;
        self
    }

    /// Doing it twice does no harm: [`Client::call`](super::Client::call) may try it elsewhere
    /// when an attempt was not answered in time. Default: it may not.
    #[must_use]
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Whether doing it twice does no harm.
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    /// The key, hashed.
    #[must_use]
    pub const fn key(&self) -> Option<u64> {
        self.key
    }

    /// The endpoints that must not be picked.
    #[must_use]
    pub const fn excluded(&self) -> &'a [Arc<Endpoint>] {
        self.excluded
    }
}
