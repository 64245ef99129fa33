//! A registration's two keys, and the fence against its own late requests.

use std::collections::HashSet;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etcd_client::{Compare, CompareOp, PutOptions, TxnOp};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation};

use crate::holdings::Held;
use crate::keys::Keys;
use crate::lease::Granted;
use crate::sentinel::Watched;

/// Two keys under one lease.
#[derive(Debug)]
pub(crate) struct EtcdClaim {
    pub(crate) keys: Keys,
    pub(crate) incarnation: Incarnation,
    pub(crate) lease: Granted,
    /// When the identity was created: what stands there later is another's.
    pub(crate) created: i64,
    pub(crate) watched: Watched,
    /// The revision at which the identity was last written, as far as that is known: one that stands
    /// at an earlier one was set back.
    pub(crate) written: Arc<AtomicI64>,
    pub(crate) _held: Held,
    /// The revisions that the next writes follow on: one writer of each key at a time, so that they
    /// are a chain, and one that arrives late is refused.
    pub(crate) identity: tokio::sync::Mutex<i64>,
    pub(crate) load: tokio::sync::Mutex<i64>,
}

impl EtcdClaim {
    /// Whether this life still holds its identity.
    pub(crate) fn is_held(&self) -> [Compare; 2] {
        let key = self.keys.identity.as_str();
        [
            Compare::create_revision(key, CompareOp::Equal, self.created),
            Compare::lease(key, CompareOp::Equal, self.lease.id),
        ]
    }
}

/// Makes claims void that were sent and given up, and may be on their way still.
///
/// A claim is written if nothing stands under its key. That alone would let one arrive after the
/// removal that was to undo it. So every claim is also conditional on the revision of a key that
/// the process keeps for this, and a removal that follows on a claim in doubt writes that key. It
/// is under the process's lease like all others, and with the lease go the claims under it.
#[derive(Debug, Default)]
pub(crate) struct Fence(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lease: i64,
    revision: i64,
    in_doubt: HashSet<Incarnation>,
}

impl Fence {
    /// The revision that the fence of `lease` is known to have: 0 while nobody has needed it.
    ///
    /// Another lease begins without doubts: what was sent under the one before is refused with it.
    pub(crate) fn enter(&self, lease: i64) -> i64 {
        let mut state = self.lock();
        if state.lease != lease {
            *state = State {
                lease,
                ..State::default()
            };
        }
        state.revision
    }

    pub(crate) fn learn(&self, lease: i64, revision: i64) {
        let mut state = self.lock();
        if state.lease == lease {
            state.revision = state.revision.max(revision);
        }
    }

    /// In doubt until the guard is told otherwise.
    pub(crate) fn doubt(&self, lease: i64, incarnation: Incarnation) -> Doubt<'_> {
        Doubt {
            fence: self,
            lease,
            incarnation,
            settled: false,
        }
    }

    /// The lease under which one of `incarnations` may still be claimed.
    pub(crate) fn lease_in_doubt(&self, incarnations: &[Incarnation]) -> Option<i64> {
        let state = self.lock();
        let in_doubt = incarnations.iter().any(|i| state.in_doubt.contains(i));
        in_doubt.then_some(state.lease)
    }

    /// The fence was written: nothing that was sent for `incarnations` before can be carried out.
    pub(crate) fn written(&self, lease: i64, revision: i64, incarnations: &[Incarnation]) {
        let mut state = self.lock();
        if state.lease == lease {
            state.revision = state.revision.max(revision);
            for incarnation in incarnations {
                state.in_doubt.remove(incarnation);
            }
        }
    }

    /// The lease has ended, and with it every doubt.
    pub(crate) fn ended(&self, lease: i64) {
        let mut state = self.lock();
        if state.lease == lease {
            *state = State::default();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim whose outcome is not known; dropped as such, it is remembered.
#[derive(Debug)]
pub(crate) struct Doubt<'a> {
    fence: &'a Fence,
    lease: i64,
    incarnation: Incarnation,
    settled: bool,
}

impl Doubt<'_> {
    /// Every request has been answered.
    pub(crate) fn settle(mut self) {
        self.settled = true;
    }

    /// The same if `error` is an answer.
    pub(crate) fn settle_if_refused(self, error: &Error) {
        use ErrorKind::{
            Conflict, InvalidArgument, LeaseExpired, PermissionDenied, ResourceExhausted,
            Unauthenticated,
        };
        if matches!(
            error.kind(),
            Conflict
                | InvalidArgument
                | LeaseExpired
                | PermissionDenied
                | ResourceExhausted
                | Unauthenticated
        ) {
            self.settle();
        }
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            let mut state = self.fence.lock();
            if state.lease == self.lease {
                state.in_doubt.insert(self.incarnation);
            }
        }
    }
}

/// That `key` has not been written since `revision`; of revision 0, that it does not exist.
pub(crate) fn unchanged(key: &str, revision: i64) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, revision)
}

/// No key is ever without its lease: a write that did not name it would detach it.
pub(crate) fn put(key: &str, value: impl Into<Vec<u8>>, lease: i64) -> TxnOp {
    TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_claims_without_an_answer_are_in_doubt() {
        let fence = Fence::default();
        let lives = [Incarnation::from_bits(1), Incarnation::from_bits(2)];
        assert_eq!(fence.enter(7), 0);
        fence.doubt(7, lives[0]).settle();
        fence
            .doubt(7, lives[0])
            .settle_if_refused(&Error::new(ErrorKind::Conflict, "x"));
        assert_eq!(fence.lease_in_doubt(&lives), None);
        fence
            .doubt(7, lives[0])
            .settle_if_refused(&Error::new(ErrorKind::TimedOut, "x"));
        drop(fence.doubt(7, lives[1]));
        assert_eq!(fence.lease_in_doubt(&lives[..1]), Some(7));
        fence.written(7, 5, &lives[..1]);
        assert_eq!(fence.lease_in_doubt(&lives[..1]), None);
        assert_eq!(fence.lease_in_doubt(&lives[1..]), Some(7));
        assert_eq!(fence.enter(7), 5);
    }

    #[test]
    fn another_lease_has_a_fence_of_its_own() {
        let fence = Fence::default();
        let life = Incarnation::from_bits(1);
        fence.enter(7);
        let late = fence.doubt(7, life);
        fence.learn(7, 5);
        assert_eq!(fence.enter(8), 0);
        drop(late);
        fence.written(7, 9, &[]);
        assert_eq!((fence.lease_in_doubt(&[life]), fence.enter(8)), (None, 0));
    }
}
