//! What may yet be carried out though nobody waits for it any more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll_discovery_api::Incarnation;

/// The lives for which a call is under way, or was given up and may yet be carried out: whoever
/// removes one of them must look again.
#[derive(Debug, Default)]
pub(crate) struct UncertainCalls(Mutex<HashMap<Incarnation, Calls>>);

#[derive(Debug, Default)]
struct Calls {
    under_way: usize,
    given_up: bool,
}

/// A call under way. Dropped unsettled, it was given up.
#[derive(Debug)]
pub(crate) struct Doubt<'a> {
    uncertain: &'a UncertainCalls,
    life: Incarnation,
    settled: bool,
}

impl UncertainCalls {
    /// A call for `life` begins.
    pub(crate) fn begin(&self, life: Incarnation) -> Doubt<'_> {
        self.calls().entry(life).or_default().under_way += 1;
        Doubt {
            uncertain: self,
            life,
            settled: false,
        }
    }

    /// Whether anything may yet come of calls for `life`.
    pub(crate) fn concern(&self, life: Incarnation) -> bool {
        self.calls().contains_key(&life)
    }

    /// Somebody else sees to what was given up for `life`.
    pub(crate) fn hand_over(&self, life: Incarnation) {
        self.change(life, |calls| calls.given_up = false);
    }

    fn change(&self, life: Incarnation, change: impl FnOnce(&mut Calls)) {
        let mut all = self.calls();
        if let Some(calls) = all.get_mut(&life) {
            change(calls);
            if calls.under_way == 0 && !calls.given_up {
                all.remove(&life);
            }
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<Incarnation, Calls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doubt<'_> {
    /// It was answered: nothing more comes of it. What was given up before stays in doubt.
    pub(crate) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.uncertain.change(self.life, |calls| {
            calls.under_way -= 1;
            calls.given_up |= !self.settled;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_settles_its_own_call_and_no_other() {
        let (uncertain, life) = (UncertainCalls::default(), Incarnation::random());
        uncertain.begin(life).settle();
        assert!(!uncertain.concern(life));
        drop(uncertain.begin(life));
        uncertain.begin(life).settle();
        assert!(uncertain.concern(life), "the first was never answered");
        assert!(!uncertain.concern(Incarnation::random()));
        uncertain.hand_over(life);
        assert!(!uncertain.concern(life));
    }

    #[test]
    fn of_two_at_one_time_one_that_is_given_up_stays_in_doubt() {
        let (uncertain, life) = (UncertainCalls::default(), Incarnation::random());
        let (load, attributes) = (uncertain.begin(life), uncertain.begin(life));
        attributes.settle();
        assert!(uncertain.concern(life), "the other is under way");
        uncertain.hand_over(life);
        assert!(uncertain.concern(life), "it still is");
        drop(load);
        assert!(uncertain.concern(life));
    }
}
