//! Using the next level for what the one before cannot carry.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use plimsoll_discovery_api::{
    Balancer, Capabilities, Endpoint, Endpoints, Error, Instance, Picker, Result,
};

use crate::eligible::{eligible, is_well};
use crate::groups::{Groups, Split};
use crate::parameter;

/// Sends requests to the endpoints of the first level, and only what these cannot carry any more to
/// the next, and so on
/// ([Envoy's priority levels](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority)).
///
/// A level can carry everything while 1 / 1.4, some 71 %, of its endpoints are usable: neither
/// unhealthy nor suspect nor ejected. Below that it gets 1.4 times the part that is, and the rest
/// goes down the levels. Where all levels together cannot carry everything, each gets traffic in
/// proportion to what it can, and levels of which less than half is usable use all endpoints
/// nonetheless. Where nothing is usable, the first level gets everything.
///
/// It has to see the endpoints that are not usable in order to miss them: a client that leaves them
/// out itself must be told not to (`with_fail_open_below(1.0)` on plimsoll's). Otherwise a level
/// counts as whole until it is empty, and failover is a switch. What is usable is judged when the
/// picker is built: an ejection, or its end, between two rebuilds moves no traffic from level to
/// level. Ejection itself is left to [`OutlierEjection`](crate::OutlierEjection), within each level
/// rather than round all, where it would share out what an ejected endpoint misses over all levels.
///
/// A request with a key keeps to one level, and there to what the inner algorithm makes of the key.
/// Where a pick excludes all endpoints of its level, as a retry may, it goes to another that has
/// traffic, and if there is none to the usable endpoints of the first level that has not.
///
/// *Pick*: a random number where more than one level is in use, O(levels) comparisons, and the
/// inner one. *Rebuild*: the inner one for each level in use, and O(n log levels).
///
/// *Use it* for a standby: another region, a slower or dearer kind of server. *Not* between zones
/// of one region: see [`ZoneAware`](crate::ZoneAware).
pub struct PriorityFailover<F> {
    level: Box<dyn Fn(&Instance) -> u32 + Send>,
    overprovisioning: f64,
    panic_below: f64,
    groups: Groups<u32, F>,
}

/// A level is built to carry everything with 71 % of its endpoints; Envoy's default.
const DEFAULT_OVERPROVISIONING: f64 = 1.4;
/// With fewer left, the rest would carry more than twice their load; Envoy's default.
const DEFAULT_PANIC_BELOW: f64 = 0.5;

const PURPOSE: u64 = 0x5052_494F;

impl<B: Balancer, F: FnMut() -> B + Send + 'static> PriorityFailover<F> {
    /// With the level of each instance as `level` says, lower ones first; they need not be
    /// contiguous. `make` makes the balancer for each level, as does `LeastLoad::new`.
    #[must_use]
    pub fn new(level: impl Fn(&Instance) -> u32 + Send + 'static, make: F) -> Self {
        Self {
            level: Box::new(level),
            overprovisioning: DEFAULT_OVERPROVISIONING,
            panic_below: DEFAULT_PANIC_BELOW,
            groups: Groups::new(make),
        }
    }

    /// With the level of each instance as its metadata say under `key`, a whole number. Instances
    /// that do not say, or not that, come last.
    #[must_use]
    pub fn by_metadata(key: impl Into<String>, make: F) -> Self {
        let key = key.into();
        let said = move |instance: &Instance| instance.metadata().get(&key)?.parse().ok();
        Self::new(move |instance| said(instance).unwrap_or(u32::MAX), make)
    }

    /// How many times over a level can carry everything while it is whole: 1 to 100. Default: 1.4,
    /// as in Envoy. With 1 every endpoint lost moves its share to the next level; with 100 a level
    /// keeps everything down to its last hundredth.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_overprovisioning(mut self, factor: f64) -> Result<Self> {
        if !(1.0..=100.0).contains(&factor) {
            let why = "is not between 1 and 100";
            return Err(Error::invalid("overprovisioning", factor, why));
        }
        self.overprovisioning = factor;
        Ok(self)
    }

    /// A level of which less than this share is usable uses all its endpoints, unless all levels
    /// together can carry everything: 0 (never) to 1. Default: 0.5.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range.
    pub fn with_panic_below(mut self, share: f64) -> Result<Self> {
        self.panic_below = parameter::share("panic_below", share)?;
        Ok(self)
    }

    /// Which part of the requests each level gets, if these parts of them are usable; and whether
    /// that is everything they can carry.
    fn loads(&self, usable: &[f64]) -> (Vec<f64>, bool) {
        let carries = |part: &f64| (part * self.overprovisioning).min(1.0);
        let total: f64 = usable.iter().map(carries).sum();
        if total == 0.0 {
            let first = |level| if level == 0 { 1.0 } else { 0.0 };
            return ((0..usable.len()).map(first).collect(), true);
        }
        if total < 1.0 {
            return (
                usable.iter().map(|part| carries(part) / total).collect(),
                true,
            );
        }
        let mut left = 1.0_f64;
        let load = |part| {
            let load = carries(part).min(left);
            left -= load;
            load
        };
        (usable.iter().map(load).collect(), false)
    }
}

#[derive(Default)]
struct Level {
    all: Vec<Arc<Endpoint>>,
    well: Vec<Arc<Endpoint>>,
    usable: usize,
}

#[deny(clippy::missing_trait_methods)]
impl<B: Balancer, F: FnMut() -> B + Send + 'static> Balancer for PriorityFailover<F> {
    fn name(&self) -> &'static str {
        "priority_failover"
    }

    /// The balancers are made later: they may.
    fn reads_load(&self) -> bool {
        true
    }

    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        self.groups.set_capabilities(capabilities);
    }

    fn ejects(&self) -> bool {
        self.groups.eject()
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let mut levels = BTreeMap::<u32, Level>::new();
        for endpoint in eligible(endpoints)?.iter() {
            let level = levels
                .entry((self.level)(&endpoint.instance()))
                .or_default();
            level.all.push(Arc::clone(endpoint));
            // The ejected are passed on all the same: who ejects within a level readmits there.
            if is_well(endpoint) {
                level.well.push(Arc::clone(endpoint));
                level.usable += usize::from(endpoint.ejected_until().is_none());
            }
        }
        self.groups.retain(|level| levels.contains_key(level));
        let part = |level: &Level| level.usable as f64 / level.all.len() as f64;
        let parts: Vec<f64> = levels.values().map(part).collect();
        let (loads, stretched) = self.loads(&parts);
        let (mut shares, mut spare) = (Vec::with_capacity(levels.len()), Vec::new());
        for (((number, level), part), load) in levels.into_iter().zip(parts).zip(loads) {
            if load == 0.0 {
                spare.push(level.well.into());
                continue;
            }
            let panics = level.usable == 0 || stretched && part < self.panic_below;
            let endpoints: Endpoints = if panics { level.all } else { level.well }.into();
            shares.push((load, self.groups.build(number, &endpoints)?));
        }
        Ok(Box::new(Split::new(shares, spare, PURPOSE)))
    }
}

impl<F> fmt::Debug for PriorityFailover<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriorityFailover")
            .field("overprovisioning", &self.overprovisioning)
            .field("panic_below", &self.panic_below)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plimsoll_discovery_api::{Health, Timestamp};

    use super::*;
    use crate::testing::{Bench, Server, assert_shares, assert_small_sets, endpoints, views};
    use crate::{Maglev, OutlierEjection, Random, RoundRobin};

    fn failover() -> PriorityFailover<fn() -> Random> {
        PriorityFailover::by_metadata("level", Random::new)
    }

    /// So many endpoints on each level.
    fn levels(levels: &[(&str, usize)]) -> Endpoints {
        let names = levels.iter().flat_map(|&(level, count)| vec![level; count]);
        let server = |(index, level): (usize, &str)| {
            Server::with(&format!("{index:06}"), |builder| {
                if level.is_empty() {
                    builder
                } else {
                    builder.with_metadata("level", level)
                }
            })
        };
        views(&names.enumerate().map(server).collect::<Vec<_>>())
    }

    fn fail(endpoints: &[Arc<Endpoint>]) {
        for endpoint in endpoints {
            endpoint.set_health(Health::Unhealthy);
        }
    }

    #[test]
    fn loads_are_those_of_envoys_manual() {
        let percent = |usable: &[f64]| -> Vec<u32> {
            let parts: Vec<_> = usable.iter().map(|percent| percent / 100.0).collect();
            let (loads, _) = failover().loads(&parts);
            assert!((loads.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 100"
            )]
            loads
                .iter()
                .map(|load| (load * 100.0).round() as u32)
                .collect()
        };
        assert_eq!(percent(&[100.0, 100.0]), [100, 0]);
        assert_eq!(percent(&[72.0, 72.0]), [100, 0]);
        assert_eq!(percent(&[71.0, 71.0]), [99, 1]);
        assert_eq!(percent(&[50.0, 50.0]), [70, 30]);
        assert_eq!(percent(&[25.0, 100.0]), [35, 65]);
        assert_eq!(percent(&[25.0, 25.0]), [50, 50]);
        assert_eq!(percent(&[20.0, 20.0, 10.0]), [40, 40, 20]);
        assert_eq!(percent(&[0.0, 0.0]), [100, 0]);
        assert_eq!(percent(&[0.0, 100.0, 100.0]), [0, 100, 0]);
    }

    #[test]
    fn the_next_level_gets_what_the_one_before_cannot_carry() {
        let all = levels(&[("0", 10), ("1", 5), ("7", 5)]);
        let mut bench = Bench::new(failover(), &all, 1);
        let sums = |counts: &[u64]| -> [u64; 3] {
            [&counts[..10], &counts[10..15], &counts[15..]].map(|level| level.iter().sum())
        };
        assert_eq!(sums(&bench.tally(1000)), [1000, 0, 0]);
        fail(&all[..2]);
        bench.rebuild(&all);
        assert_eq!(
            sums(&bench.tally(1000)),
            [1000, 0, 0],
            "8 of 10 carry everything"
        );
        fail(&all[2..5]);
        bench.rebuild(&all);
        let counts = bench.tally(10_000);
        assert_eq!(counts[..5], [0; 5], "the unhealthy get nothing");
        let [first, second, third] = sums(&counts);
        assert_eq!(third, 0);
        assert_shares(&[first, second], &[0.7, 0.3]);
        fail(&all[..15]);
        bench.rebuild(&all);
        assert_eq!(sums(&bench.tally(1000)), [0, 0, 1000]);
    }

    #[test]
    fn where_all_together_are_too_few_the_sparse_levels_use_all_they_have() {
        let all = levels(&[("0", 10), ("1", 10)]);
        fail(&all[2..10]);
        fail(&all[12..20]);
        let counts = Bench::new(failover(), &all, 2).tally(10_000);
        assert_shares(&counts, &[1.0; 20]);
        let never = failover().with_panic_below(0.0).unwrap();
        let counts = Bench::new(never, &all, 2).tally(10_000);
        assert_shares(&[counts[0], counts[1], counts[10], counts[11]], &[1.0; 4]);
        // With one level whole there is no need.
        for endpoint in &all[10..] {
            endpoint.set_health(Health::Healthy);
        }
        let counts = Bench::new(failover(), &all, 2).tally(10_000);
        assert_eq!(counts[2..10], [0; 8]);
        assert_shares(
            &[counts[..2].iter().sum(), counts[10..].iter().sum()],
            &[0.28, 0.72],
        );
    }

    #[test]
    fn where_nothing_is_usable_the_first_level_gets_everything() {
        let all = levels(&[("0", 3), ("1", 3)]);
        fail(&all);
        let counts = Bench::new(failover(), &all, 3).tally(3000);
        assert_shares(&counts[..3], &[1.0; 3]);
        assert_eq!(counts[3..], [0; 3]);
    }

    #[test]
    fn the_ejected_are_not_usable_but_can_be_readmitted() {
        let all = levels(&[("0", 2), ("1", 2)]);
        all[0].eject(Timestamp::from_nanos(5));
        let make = || OutlierEjection::new(Random::new());
        let within = PriorityFailover::by_metadata("level", make);
        let round: Box<dyn Balancer> = Box::new(OutlierEjection::new(failover()));
        // From without, what the ejected one would get, 0.35, is shared out over all levels.
        let shared = [0.35 + 0.35 * 0.7, 0.3 + 0.35 * 0.3];
        for (balancer, shares) in [(Box::new(within) as _, [0.7, 0.3]), (round, shared)] {
            let mut bench = Bench::new(balancer, &all, 4);
            let counts = bench.tally(10_000);
            assert_eq!(counts[0], 0);
            assert_shares(&[counts[1], counts[2] + counts[3]], &shares);
            bench.advance(Duration::from_nanos(5));
            assert!(bench.tally(100)[0] > 0);
            all[0].eject(Timestamp::from_nanos(5));
        }
    }

    #[test]
    fn who_does_not_say_comes_last() {
        let all = levels(&[("", 2), ("high", 2), ("4000000000", 2)]);
        let counts = Bench::new(failover(), &all, 5).tally(1000);
        assert_eq!(counts[4] + counts[5], 1000);
    }

    #[test]
    fn levels_may_be_computed_and_keep_their_turns() {
        let all = endpoints(6);
        let level = |instance: &Instance| u32::from(instance.id().as_str() < "000003");
        let make = || RoundRobin::starting_at(0);
        let mut bench = Bench::new(PriorityFailover::new(level, make), &all, 6);
        for turn in 0..9 {
            assert_eq!(bench.index(), 3 + turn % 3);
            bench.rebuild(&all);
        }
    }

    #[test]
    fn keys_keep_to_one_endpoint() {
        let all = levels(&[("0", 4), ("1", 4)]);
        fail(&all[..2]);
        let balancer = PriorityFailover::by_metadata("level", Maglev::new);
        let mut bench = Bench::new(balancer, &all, 7);
        let mut counts = [0; 2];
        for key in 0..2000 {
            bench.key = Some(key);
            let owner = bench.index();
            assert_eq!(owner, bench.index());
            counts[usize::from(owner >= 4)] += 1;
        }
        assert_shares(&counts, &[0.7, 0.3]);
    }

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        for factor in [0.9, 101.0, f64::NAN] {
            let error = failover().with_overprovisioning(factor).unwrap_err();
            let name = error.context().next().map(|(name, _)| name);
            assert_eq!(name, Some("overprovisioning"));
        }
        assert!(failover().with_panic_below(2.0).is_err());
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        assert_small_sets(failover);
    }
}
