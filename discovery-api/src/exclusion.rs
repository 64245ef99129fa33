//! Which endpoints a pick must leave alone.

use std::fmt;
use std::sync::Arc;

use crate::Endpoint;

/// Endpoints that one pick must not return, though they are in the set: those that a request has
/// tried already, and those that a rule names.
///
/// Made on the stack of whoever picks and read by reference, so that several are chained without
/// allocation: what a client excludes, what a wrapper adds to that, what a wrapper within adds.
///
/// ```
/// # use plimsoll_discovery_api::{Endpoint, Exclusion, PickContext, Picker, Rng, SystemClock};
/// # use std::sync::Arc;
/// fn second_choice<'a>(picker: &'a dyn Picker, first: &Arc<Endpoint>) -> Option<&'a Arc<Endpoint>> {
///     let tried = Exclusion::listed(std::slice::from_ref(first));
///     let is_busy = |endpoint: &Endpoint| endpoint.in_flight() > 100;
///     let busy = Exclusion::by(&is_busy).and(Some(&tried));
///     let (mut rng, clock) = (Rng::from_entropy(), SystemClock::new());
///     picker.pick(&mut PickContext::new(&mut rng, &clock).with_exclusion(Some(&busy)))
/// }
/// ```
#[derive(Clone, Copy, Default)]
pub struct Exclusion<'a> {
    listed: &'a [Arc<Endpoint>],
    rule: Option<&'a dyn Fn(&Endpoint) -> bool>,
    outer: Option<&'a Self>,
}

impl<'a> Exclusion<'a> {
    /// Of these members, in the incarnation that is listed.
    #[must_use]
    pub const fn listed(endpoints: &'a [Arc<Endpoint>]) -> Self {
        Self {
            listed: endpoints,
            rule: None,
            outer: None,
        }
    }

    /// Of those for which `rule` is true. It may be asked about any endpoint, any number of times,
    /// by any picker, and should not change its mind within a pick.
    #[must_use]
    pub const fn by(rule: &'a dyn Fn(&Endpoint) -> bool) -> Self {
        Self {
            listed: &[],
            rule: Some(rule),
            outer: None,
        }
    }

    /// The same and what `outer` excludes, in place of what was added before.
    #[must_use]
    pub const fn and(mut self, outer: Option<&'a Self>) -> Self {
        self.outer = outer;
        self
    }

    /// Whether `endpoint` must not be picked.
    // Never inlined: it would make every picker larger for the sake of its rarest road.
    #[inline(never)]
    #[must_use]
    pub fn excludes(&self, endpoint: &Endpoint) -> bool {
        let same = |other: &Arc<Endpoint>| {
            other.incarnation() == endpoint.incarnation() && other.id() == endpoint.id()
        };
        self.listed.iter().any(same)
            || self.rule.is_some_and(|rule| rule(endpoint))
            || self.outer.is_some_and(|outer| outer.excludes(endpoint))
    }
}

impl fmt::Debug for Exclusion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusion")
            .field("listed", &self.listed)
            .field("by_rule", &self.rule.is_some())
            .field("outer", &self.outer)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incarnation, Instance, Member};

    fn endpoint(id: &str, incarnation: u128) -> Arc<Endpoint> {
        let instance = Instance::builder("s", "h", 1).with_id(id).build().unwrap();
        let incarnation = Incarnation::from_bits(incarnation);
        let member = Member::new(Arc::new(instance), incarnation, Arc::default());
        Arc::new(Endpoint::new(&member))
    }

    #[test]
    fn listed_ones_are_known_by_their_life_and_not_by_their_address_in_memory() {
        let listed = [endpoint("a", 1), endpoint("b", 1)];
        let exclusion = Exclusion::listed(&listed);
        assert!(exclusion.excludes(&endpoint("a", 1)));
        assert!(exclusion.excludes(&listed[1]));
        assert!(!exclusion.excludes(&endpoint("a", 2)), "another life");
        assert!(!exclusion.excludes(&endpoint("c", 1)));
        assert!(!Exclusion::default().excludes(&listed[0]));
    }

    #[test]
    fn a_chain_excludes_what_any_of_it_does() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|id| endpoint(id, 1));
        let tried = [Arc::clone(&a)];
        let tried = Exclusion::listed(&tried);
        let is_b = |endpoint: &Endpoint| endpoint.id() == b.id();
        let is_c = |endpoint: &Endpoint| endpoint.id() == c.id();
        let middle = Exclusion::by(&is_b).and(Some(&tried));
        let all = Exclusion::by(&is_c).and(Some(&middle));
        assert!([&a, &b, &c].iter().all(|endpoint| all.excludes(endpoint)));
        assert!(!all.excludes(&d));
        assert!(!middle.excludes(&c), "what is added is added to a copy");
    }
}
