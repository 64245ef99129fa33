//! Which endpoints may be picked.

use std::fmt;
use std::sync::Arc;

use plimsoll_discovery_api::{Endpoint, Endpoints, Health, Instance, Status, Weight};

use super::NoEndpointReason;

type Filter = Box<dyn Fn(&Instance) -> bool + Send + Sync>;

/// The rule by which endpoints may be picked.
pub(super) struct Eligibility {
    pub(super) filters: Vec<Filter>,
    /// The share of candidates, 0 to 1, that must be usable for the others to be left out.
    pub(super) fail_open_below: f64,
}

/// What the rule makes of a set of endpoints.
#[derive(Debug)]
pub(super) struct Selection {
    /// Sorted as the set is.
    pub(super) usable: Endpoints,
    /// Whether unusable endpoints had to be let in.
    pub(super) failing_open: bool,
    /// Why there are none; `None` if there are some.
    pub(super) nothing: Option<NoEndpointReason>,
}

impl Eligibility {
    /// Applies the rule.
    ///
    /// What an instance says of itself (status, weight) and what the user's filters say is
    /// binding: the rest are candidates. What health checks and the registry suspect of a
    /// candidate is heeded only while enough others remain: when most look dead, the looking is
    /// the likelier culprit, and the few left would be crowded out.
    pub(super) fn select(&self, endpoints: &Endpoints) -> Selection {
        let nothing = |reason| Selection {
            usable: Arc::new([]),
            failing_open: false,
            nothing: Some(reason),
        };
        if endpoints.is_empty() {
            return nothing(NoEndpointReason::NoneRegistered);
        }
        let instances = endpoints
            .iter()
            .map(|endpoint| (endpoint, endpoint.instance()));
        let available: Vec<_> = instances
            .filter(|(_, instance)| is_available(instance))
            .collect();
        if available.is_empty() {
            return nothing(NoEndpointReason::AllUnavailable);
        }
        let passes = |instance: &Instance| self.filters.iter().all(|filter| filter(instance));
        let candidates: Vec<&Arc<Endpoint>> = available
            .iter()
            .filter(|(_, instance)| passes(instance))
            .map(|(endpoint, _)| *endpoint)
            .collect();
        if candidates.is_empty() {
            return nothing(NoEndpointReason::AllFiltered);
        }
        let usable: Vec<Arc<Endpoint>> = candidates
            .iter()
            .copied()
            .filter(|e| is_usable(e))
            .map(Arc::clone)
            .collect();
        let failing_open = self.too_few(usable.len(), candidates.len());
        let usable = if failing_open {
            candidates.into_iter().map(Arc::clone).collect()
        } else {
            usable
        };
        if usable.is_empty() {
            return nothing(NoEndpointReason::AllUnhealthy);
        }
        Selection {
            usable: usable.into(),
            failing_open,
            nothing: None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "no set has 2^52 members")]
    fn too_few(&self, usable: usize, candidates: usize) -> bool {
        (usable as f64) < self.fail_open_below * candidates as f64
    }
}

impl fmt::Debug for Eligibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eligibility")
            .field("filters", &self.filters.len())
            .field("fail_open_below", &self.fail_open_below)
            .finish()
    }
}

fn is_available(instance: &Instance) -> bool {
    instance.status() == Status::Up && instance.weight() != Weight::ZERO
}

fn is_usable(endpoint: &Endpoint) -> bool {
    endpoint.health() != Health::Unhealthy && !endpoint.is_suspect()
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::{Incarnation, Member, Standing, Timestamp};

    use super::*;

    fn endpoints(count: u128) -> Endpoints {
        (0..count).map(|n| endpoint(n, |m| m)).collect()
    }

    fn endpoint(n: u128, change: impl FnOnce(Member) -> Member) -> Arc<Endpoint> {
        let instance = Instance::builder("s", "h", 1)
            .with_id(format!("{n:03}"))
            .build()
            .unwrap();
        let member = Member::new(
            Arc::new(instance),
            Incarnation::from_bits(n),
            Arc::default(),
        );
        Arc::new(Endpoint::new(&change(member)))
    }

    fn rule(fail_open_below: f64) -> Eligibility {
        Eligibility {
            filters: Vec::new(),
            fail_open_below,
        }
    }

    #[test]
    fn the_unusable_are_left_out_exactly_while_the_share_that_remains_is_not_below_the_bound() {
        for (bound, unhealthy, failing_open) in [
            (0.5, 4, false),
            (0.5, 5, false),
            (0.5, 6, true),
            (0.0, 9, false),
            (1.0, 0, false),
            (1.0, 1, true),
        ] {
            let all = endpoints(10);
            all.iter()
                .take(unhealthy)
                .for_each(|e| assert!(e.set_health(Health::Unhealthy)));
            let selection = rule(bound).select(&all);
            assert_eq!(
                selection.failing_open, failing_open,
                "{bound} with {unhealthy}"
            );
            let expected = if failing_open { 10 } else { 10 - unhealthy };
            assert_eq!(selection.usable.len(), expected, "{bound} with {unhealthy}");
        }
    }

    #[test]
    fn never_failing_open_may_leave_none() {
        let all = endpoints(2);
        all.iter()
            .for_each(|e| assert!(e.set_health(Health::Unhealthy)));
        assert_eq!(
            rule(0.0).select(&all).nothing,
            Some(NoEndpointReason::AllUnhealthy)
        );
        assert_eq!(rule(0.1).select(&all).nothing, None);
    }

    #[test]
    fn the_suspect_are_left_out_like_the_unhealthy() {
        let since = Timestamp::ZERO;
        let suspect = endpoint(1, |m| m.with_standing(Standing::Suspect { since }));
        let all: Endpoints = [endpoint(0, |m| m), suspect].into();
        let selection = rule(0.5).select(&all);
        assert_eq!(selection.usable.len(), 1);
        assert!(Arc::ptr_eq(&selection.usable[0], &all[0]));
    }

    #[test]
    fn failing_open_never_lets_in_what_does_not_want_traffic() {
        let changed = |n, change: fn(Instance) -> Instance| {
            endpoint(n, |m| {
                let instance = change(Instance::clone(m.instance()));
                Member::new(Arc::new(instance), m.incarnation(), Arc::clone(m.load()))
            })
        };
        let out: Endpoints = [
            changed(0, |i| i.with_status(Status::Draining)),
            changed(1, |i| i.with_status(Status::OutOfService)),
            changed(2, |i| i.with_weight(Weight::ZERO)),
        ]
        .into();
        assert_eq!(
            rule(1.0).select(&out).nothing,
            Some(NoEndpointReason::AllUnavailable)
        );
        let sick = endpoint(3, |m| m);
        sick.set_health(Health::Unhealthy);
        let all: Endpoints = out.iter().cloned().chain([Arc::clone(&sick)]).collect();
        let selection = rule(0.5).select(&all);
        assert!(selection.failing_open);
        assert_eq!(selection.usable.len(), 1);
        assert!(Arc::ptr_eq(&selection.usable[0], &sick));
    }

    #[test]
    fn every_filter_must_pass() {
        let mut rule = rule(0.5);
        rule.filters.push(Box::new(|i| i.id().as_str() < "002"));
        rule.filters.push(Box::new(|i| i.id().as_str() > "000"));
        let selection = rule.select(&endpoints(5));
        let ids: Vec<_> = selection.usable.iter().map(|e| e.id().as_str()).collect();
        assert_eq!(ids, ["001"]);
        rule.filters.push(Box::new(|_| false));
        assert_eq!(
            rule.select(&endpoints(5)).nothing,
            Some(NoEndpointReason::AllFiltered)
        );
        assert_eq!(
            rule.select(&endpoints(0)).nothing,
            Some(NoEndpointReason::NoneRegistered)
        );
    }
}
