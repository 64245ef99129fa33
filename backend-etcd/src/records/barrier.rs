//! The barrier against this process's own late requests.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll_discovery_api::{Error, ErrorKind, Incarnation};

/// Makes claims void that were sent and given up, and may be on their way still.
///
/// A claim is written if nothing stands under its key. That alone would let one arrive after the
/// removal that was to undo it. So every claim is also conditional on the revision of a key that
/// the process keeps for this, and a removal that follows on a claim in doubt writes that key. It
/// is under the process's lease like all others, and with the lease go the claims under it.
#[derive(Debug, Default)]
pub(super) struct Barrier(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lease: i64,
    revision: i64,
    in_doubt: HashSet<Incarnation>,
}

impl Barrier {
    /// The revision that the barrier of `lease` is known to have: 0 while nobody has needed it.
    ///
    /// Another lease begins without doubts: what was sent under the one before is refused with it.
    pub(super) fn enter(&self, lease: i64) -> i64 {
        let mut state = self.lock();
        if state.lease != lease {
            *state = State {
                lease,
                ..State::default()
            };
        }
        state.revision
    }

    pub(super) fn learn(&self, lease: i64, revision: i64) {
        let mut state = self.lock();
        if state.lease == lease {
            state.revision = state.revision.max(revision);
        }
    }

    /// In doubt until the guard is told otherwise.
    pub(super) fn doubt(&self, lease: i64, incarnation: Incarnation) -> UncertainClaim<'_> {
        UncertainClaim {
            barrier: self,
            lease,
            incarnation,
            settled: false,
        }
    }

    /// The lease under which one of `incarnations` may still be claimed.
    pub(super) fn lease_in_doubt(&self, incarnations: &[Incarnation]) -> Option<i64> {
        let state = self.lock();
        let in_doubt = incarnations.iter().any(|i| state.in_doubt.contains(i));
        in_doubt.then_some(state.lease)
    }

    /// The barrier was written: nothing that was sent for `incarnations` before can be carried out.
    pub(super) fn written(&self, lease: i64, revision: i64, incarnations: &[Incarnation]) {
        let mut state = self.lock();
        if state.lease == lease {
            state.revision = state.revision.max(revision);
            for incarnation in incarnations {
                state.in_doubt.remove(incarnation);
            }
        }
    }

    /// The lease has ended, and with it every doubt.
    pub(super) fn ended(&self, lease: i64) {
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
pub(super) struct UncertainClaim<'a> {
    barrier: &'a Barrier,
    lease: i64,
    incarnation: Incarnation,
    settled: bool,
}

impl UncertainClaim<'_> {
    /// Every request has been answered.
    pub(super) fn settle(mut self) {
        self.settled = true;
    }

    /// The same if `error` is an answer.
    pub(super) fn settle_if_refused(self, error: &Error) {
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

impl Drop for UncertainClaim<'_> {
    fn drop(&mut self) {
        if !self.settled {
            let mut state = self.barrier.lock();
            if state.lease == self.lease {
                state.in_doubt.insert(self.incarnation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_claims_without_an_answer_are_in_doubt() {
        let barrier = Barrier::default();
        let lives = [Incarnation::from_bits(1), Incarnation::from_bits(2)];
        assert_eq!(barrier.enter(7), 0);
        barrier.doubt(7, lives[0]).settle();
        barrier
            .doubt(7, lives[0])
            .settle_if_refused(&Error::new(ErrorKind::Conflict, "x"));
        assert_eq!(barrier.lease_in_doubt(&lives), None);
        barrier
            .doubt(7, lives[0])
            .settle_if_refused(&Error::new(ErrorKind::TimedOut, "x"));
        drop(barrier.doubt(7, lives[1]));
        assert_eq!(barrier.lease_in_doubt(&lives[..1]), Some(7));
        barrier.written(7, 5, &lives[..1]);
        assert_eq!(barrier.lease_in_doubt(&lives[..1]), None);
        assert_eq!(barrier.lease_in_doubt(&lives[1..]), Some(7));
        assert_eq!(barrier.enter(7), 5);
    }

    #[test]
    fn another_lease_has_a_barrier_of_its_own() {
        let barrier = Barrier::default();
        let life = Incarnation::from_bits(1);
        barrier.enter(7);
        let late = barrier.doubt(7, life);
        barrier.learn(7, 5);
        assert_eq!(barrier.enter(8), 0);
        drop(late);
        barrier.written(7, 9, &[]);
        assert_eq!(
            (barrier.lease_in_doubt(&[life]), barrier.enter(8)),
            (None, 0)
        );
    }
}
