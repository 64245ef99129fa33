//! What a client counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::NoEndpointReason;

const REASONS: usize = NoEndpointReason::ALL.len();

/// A client's counters at one moment. Picks that succeed are counted by their endpoint alone: a
/// counter that every pick writes would be what they all wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Members in the latest snapshot.
    pub members: usize,
    /// Those that may be picked.
    pub eligible: usize,
    /// Whether unhealthy or suspect ones may be picked because too few others are left.
    pub failing_open: bool,
    /// Pickers built.
    pub rebuilds: u64,
    /// Rebuilds given up because the balancer or a filter panicked; the view before it stayed.
    pub panics: u64,
    pub(super) refused: [u64; REASONS],
}

impl ClientStats {
    /// Picks refused for `reason`.
    #[must_use]
    pub fn refused(&self, reason: NoEndpointReason) -> u64 {
        self.refused[reason as usize]
    }

    /// Picks refused.
    #[must_use]
    pub fn refused_in_all(&self) -> u64 {
        self.refused.iter().sum()
    }
}

/// The counters behind [`ClientStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rebuilds: AtomicU64,
    pub(super) panics: AtomicU64,
    refused: [AtomicU64; REASONS],
}

impl Counters {
    pub(super) fn refuse(&self, reason: NoEndpointReason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) -> [u64; REASONS] {
        std::array::from_fn(|index| self.refused[index].load(Ordering::Relaxed))
    }
}
