//! For how long an endpoint has been there.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Endpoint;
use crate::Timestamp;

/// When it joined, in nanoseconds of a [`Timestamp`], plus one; 0 before anybody said, and the
/// largest number for one that was there before.
#[derive(Debug, Default)]
pub(super) struct Tenure(AtomicU64);

const LONG_AGO: u64 = u64::MAX;

impl Endpoint {
    /// When it was first seen, if it joined under this client's eyes; `None` for one that was
    /// there when the client began to look, and before anybody [said](Self::mark_joined).
    #[inline]
    #[must_use]
    pub fn joined_at(&self) -> Option<Timestamp> {
        match self.tenure.0.load(Ordering::Relaxed) {
            0 | LONG_AGO => None,
            stamp => Some(Timestamp::from_nanos(stamp - 1)),
        }
    }

    /// Says when it was first seen, or `None` if it was there before. The first word counts.
    pub fn mark_joined(&self, at: Option<Timestamp>) {
        let stamp = at.map_or(LONG_AGO, |at| {
            at.as_nanos().saturating_add(1).min(LONG_AGO - 1)
        });
        let _unless_said =
            self.tenure
                .0
                .compare_exchange(0, stamp, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Incarnation, Instance, Member};

    #[test]
    fn the_first_word_counts() {
        let instance = Arc::new(Instance::builder("s", "h", 1).with_id("a").build().unwrap());
        let member = Member::new(instance, Incarnation::from_bits(1), Arc::default());
        let (new, old) = (Endpoint::new(&member), Endpoint::new(&member));
        assert_eq!(new.joined_at(), None);
        new.mark_joined(Some(Timestamp::ZERO));
        old.mark_joined(None);
        for endpoint in [&new, &old] {
            endpoint.mark_joined(Some(Timestamp::from_nanos(7)));
        }
        assert_eq!(
            (new.joined_at(), old.joined_at()),
            (Some(Timestamp::ZERO), None)
        );
    }
}
