//! Staying in one's own zone as far as it can carry that.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use plimsoll_discovery_api::{
    Balancer, Capabilities, Endpoint, Endpoints, Error, Picker, Result, Zone,
};

use crate::eligible::{eligible, weights};
use crate::groups::{Groups, Split};
use crate::parameter;

/// Sends requests to endpoints in the client's own zone, as far as these are enough, and the rest
/// elsewhere, so that every endpoint gets its share all the same
/// ([Envoy's zone-aware routing](https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/zone_aware)).
///
/// If a zone holds a part p of all requests' clients and a part q of the endpoints' weight, then
/// its clients keep q / p of their requests at home (all, if q ≥ p), and send the rest to the zones
/// with more weight than clients, in proportion to what those have to spare. So no zone is asked
/// for more than its part, and the loss of endpoints in one moves only what it cannot carry any
/// more: there is no switch that could flap.
///
/// Which part of the clients is where, a client cannot see; see
/// [`with_clients`](Self::with_clients). Unless told, each zone that has endpoints counts as having
/// as many as any other. If that is wrong, zones of few clients send away more than they need to,
/// and zones of many keep more than they should.
///
/// With fewer than 6 endpoints in all, zones are disregarded; so they are in a zone without
/// endpoints, unless it was told of the clients. Endpoints that name no zone count as one more
/// zone, without clients. A request with a key keeps to one zone, and there to what the inner
/// algorithm makes of the key.
///
/// Where a pick excludes all endpoints of its zone, as a retry may, it goes to another zone in these
/// shares, and if there is none to zones that have none.
///
/// *Pick*: a random number, O(zones) comparisons, and the inner one. *Rebuild*: the inner one
/// for each zone, and O(n log zones).
///
/// *Use it* where traffic between zones costs money or time. *Not* where a zone has so few
/// endpoints that the inner algorithm has nothing to choose from.
pub struct ZoneAware<F> {
    zone: Zone,
    clients: Option<BTreeMap<Zone, f64>>,
    min_endpoints: usize,
    groups: Groups<Group, F>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    All,
    Zone(Option<Zone>),
}

/// With fewer, a zone has one or two, and to lose one is to lose the zone; as in Envoy.
const DEFAULT_MIN_ENDPOINTS: usize = 6;

const PURPOSE: u64 = 0x5A_4F_4E_45;

impl<B: Balancer, F: FnMut() -> B + Send + 'static> ZoneAware<F> {
    /// For a client in `zone`; `make` makes the balancer for each zone, as does
    /// `LeastLoad::new`.
    #[must_use]
    pub const fn new(zone: Zone, make: F) -> Self {
        Self {
            zone,
            clients: None,
            min_endpoints: DEFAULT_MIN_ENDPOINTS,
            groups: Groups::new(make),
        }
    }

    /// How much of the traffic has its clients in which zone, in any unit. A zone not named has
    /// none. Default: all zones that have endpoints alike.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for a share that is
    /// negative or not finite, and if the own zone has none.
    pub fn with_clients(mut self, shares: impl IntoIterator<Item = (Zone, f64)>) -> Result<Self> {
        let shares: BTreeMap<_, _> = shares.into_iter().collect();
        for (zone, share) in &shares {
            if !(0.0..f64::INFINITY).contains(share) {
                let error = Error::invalid("clients", share, "is not a share");
                return Err(error.with_context("zone", zone.to_string()));
            }
        }
        if shares.get(&self.zone).is_none_or(|share| *share == 0.0) {
            return Err(Error::invalid(
                "clients",
                &self.zone,
                "are none in the own zone",
            ));
        }
        self.clients = Some(shares);
        Ok(self)
    }

    /// With fewer endpoints in all, zones are disregarded. Default: 6, as in Envoy: with fewer, to
    /// lose one is to lose half a zone.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for 0.
    pub fn with_min_endpoints(mut self, endpoints: usize) -> Result<Self> {
        self.min_endpoints = parameter::at_least("min_endpoints", endpoints, 1)?;
        Ok(self)
    }

    /// The part of this client's requests for each zone, of the parts of all weight they hold.
    fn shares(&self, weights: &BTreeMap<Option<Zone>, f64>) -> BTreeMap<Option<Zone>, f64> {
        let named = weights.keys().flatten();
        let all: f64 = match &self.clients {
            Some(shares) => shares.values().sum(),
            None => named.count() as f64,
        };
        let clients = |zone: &Option<Zone>| match (&self.clients, zone) {
            (_, None) => 0.0,
            (None, Some(_)) => 1.0 / all,
            (Some(shares), Some(zone)) => shares.get(zone).map_or(0.0, |share| share / all),
        };
        let own = Some(self.zone.clone());
        let whole: f64 = weights.values().sum();
        let spare = |zone: &Option<Zone>| (weights[zone] / whole - clients(zone)).max(0.0);
        let at_home = weights.get(&own).map_or(0.0, |weight| weight / whole);
        let home = (at_home / clients(&own)).min(1.0);
        let others: f64 = weights.keys().filter(|zone| **zone != own).map(spare).sum();
        let share = |zone: &Option<Zone>| {
            if *zone == own {
                home
            } else if others > 0.0 {
                (1.0 - home) * spare(zone) / others
            } else {
                0.0
            }
        };
        weights
            .keys()
            .map(|zone| (zone.clone(), share(zone)))
            .collect()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: Balancer, F: FnMut() -> B + Send + 'static> Balancer for ZoneAware<F> {
    fn name(&self) -> &'static str {
        "zone_aware"
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
        let endpoints = eligible(endpoints)?;
        let mut zones = BTreeMap::<Option<Zone>, Vec<Arc<Endpoint>>>::new();
        for endpoint in endpoints.iter() {
            let zone = endpoint.instance().zone().cloned();
            zones.entry(zone).or_default().push(Arc::clone(endpoint));
        }
        let own = Some(self.zone.clone());
        let homeless = self.clients.is_none() && !zones.contains_key(&own);
        if endpoints.len() < self.min_endpoints || homeless {
            return self.groups.build(Group::All, &endpoints);
        }
        let zones: BTreeMap<_, Endpoints> = zones
            .into_iter()
            .map(|(zone, endpoints)| (zone, endpoints.into()))
            .collect();
        let weight = |endpoints: &Endpoints| weights(endpoints).iter().sum();
        let weights = zones
            .iter()
            .map(|(zone, endpoints)| (zone.clone(), weight(endpoints)));
        let shares = self.shares(&weights.collect());
        let (mut parts, mut spare) = (Vec::with_capacity(zones.len()), Vec::new());
        for (zone, endpoints) in &zones {
            if shares[zone] > 0.0 {
                let picker = self.groups.build(Group::Zone(zone.clone()), endpoints)?;
                parts.push((shares[zone], picker));
            } else {
                spare.extend(endpoints.iter().map(Arc::clone));
            }
        }
        self.groups.retain(|group| match group {
            Group::All => true,
            Group::Zone(zone) => zones.contains_key(zone),
        });
        Ok(Box::new(Split::new(parts, vec![spare.into()], PURPOSE)))
    }
}

impl<F> fmt::Debug for ZoneAware<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZoneAware")
            .field("zone", &self.zone)
            .field("clients", &self.clients)
            .field("min_endpoints", &self.min_endpoints)
            .field("groups", &self.groups)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, Server, assert_shares, assert_small_sets, views};
    use crate::{Maglev, RoundRobin, WeightedRandom};

    fn zone(name: &str) -> Zone {
        Zone::new(name).unwrap()
    }

    /// So many endpoints in each zone; "" is none.
    fn zoned(zones: &[(&str, usize)]) -> Endpoints {
        let names = zones.iter().flat_map(|&(zone, count)| vec![zone; count]);
        let server = |(index, zone): (usize, &str)| {
            Server::with(&format!("{index:06}"), |builder| {
                if zone.is_empty() {
                    builder
                } else {
                    builder.with_zone(zone)
                }
            })
        };
        views(&names.enumerate().map(server).collect::<Vec<_>>())
    }

    fn aware(own: &str) -> ZoneAware<fn() -> WeightedRandom> {
        ZoneAware::new(zone(own), WeightedRandom::new)
    }

    /// How many of `picks` picks go to each zone.
    fn per_zone(balancer: impl Balancer, zones: &[(&str, usize)], picks: usize) -> Vec<u64> {
        let mut counts = Bench::new(balancer, &zoned(zones), 1)
            .tally(picks)
            .into_iter();
        let sum = |&(_, count): &(&str, usize)| counts.by_ref().take(count).sum();
        zones.iter().map(sum).collect()
    }

    #[test]
    fn a_zone_that_is_enough_for_its_clients_keeps_all() {
        assert_eq!(
            per_zone(aware("a"), &[("a", 2), ("b", 2), ("c", 2)], 500),
            [500, 0, 0]
        );
        assert_eq!(per_zone(aware("b"), &[("a", 2), ("b", 5)], 500), [0, 500]);
    }

    #[test]
    fn what_a_zone_cannot_carry_goes_where_there_is_room_by_fraction() {
        // a has a third of the clients and a tenth of the endpoints: 3 of 10 stay. b has 1/6 to
        // spare, c has 1/15.
        let counts = per_zone(aware("a"), &[("a", 10), ("b", 50), ("c", 40)], 50_000);
        let (b, c) = (1.0 / 6.0, 1.0 / 15.0);
        assert_shares(&counts, &[0.3, 0.7 * b / (b + c), 0.7 * c / (b + c)]);
        // One more endpoint moves the shares a little, not all at once.
        let counts = per_zone(aware("a"), &[("a", 32), ("b", 68)], 50_000);
        assert_shares(&counts, &[0.64, 0.36]);
        let counts = per_zone(aware("a"), &[("a", 33), ("b", 67)], 50_000);
        assert_shares(&counts, &[0.66, 0.34]);
    }

    #[test]
    fn all_clients_together_load_every_endpoint_alike() {
        let zones = [("a", 3), ("b", 9), ("c", 6), ("", 2)];
        let clients = || {
            [
                (zone("a"), 5.0),
                (zone("b"), 3.0),
                (zone("c"), 2.0),
                (zone("d"), 0.5),
            ]
        };
        let mut total = vec![0.0; 20];
        for (own, share) in clients() {
            let balancer = aware(own.as_str()).with_clients(clients()).unwrap();
            let counts = Bench::new(balancer, &zoned(&zones), 2).tally(100_000);
            total
                .iter_mut()
                .zip(counts)
                .for_each(|(total, count)| *total += share * count as f64);
        }
        // Each is due 10.5 * 100,000 / 20 = 52,500. Those in a vary most: from its own clients each
        // gets 5 times a count with a deviation of 97, and 5 % are more than 5 of these: a false
        // alarm in any of 20 has a probability below 2e-6. d has no endpoints of its own.
        let near = |total: &f64| (total - 52_500.0).abs() < 52_500.0 * 0.05;
        assert!(total.iter().all(near), "{total:?}");
    }

    #[test]
    fn small_sets_and_zones_without_endpoints_disregard_zones() {
        let counts = per_zone(aware("a"), &[("a", 2), ("b", 3)], 10_000);
        assert_shares(&counts, &[2.0, 3.0]);
        let counts = per_zone(aware("x"), &[("a", 4), ("b", 6)], 10_000);
        assert_shares(&counts, &[4.0, 6.0]);
        let small = aware("a").with_min_endpoints(2).unwrap();
        assert_eq!(per_zone(small, &[("a", 1), ("b", 1)], 100), [100, 0]);
    }

    #[test]
    fn weights_are_what_counts_as_capacity() {
        let server = |id: &str, zone: &str, weight| {
            Server::with(id, |builder| builder.with_zone(zone).with_weight(weight))
        };
        let ids = ["1", "2", "3", "4", "5"];
        let mut servers: Vec<_> = ids.map(|id| server(id, "b", 100)).into();
        servers.push(server("6", "a", 300));
        let mut bench = Bench::new(aware("a"), &views(&servers), 3);
        // 3/8 of the weight for half of the clients.
        let counts = bench.tally(50_000);
        assert_shares(&[counts[5], counts[..5].iter().sum()], &[0.75, 0.25]);
    }

    #[test]
    fn keys_keep_to_one_endpoint() {
        let all = zoned(&[("a", 2), ("b", 8)]);
        let mut bench = Bench::new(ZoneAware::new(zone("a"), Maglev::new), &all, 4);
        let mut counts = [0; 2];
        for key in 0..2000 {
            bench.key = Some(key);
            let owner = bench.index();
            assert_eq!(owner, bench.index());
            counts[usize::from(owner >= 2)] += 1;
        }
        assert_shares(&counts, &[0.4, 0.6]);
    }

    #[test]
    fn each_zone_keeps_its_turn() {
        let make = || RoundRobin::starting_at(0);
        let all = zoned(&[("a", 4), ("b", 2)]);
        let mut bench = Bench::new(ZoneAware::new(zone("a"), make), &all, 5);
        for turn in 0..8 {
            assert_eq!(bench.index(), turn % 4);
            bench.rebuild(&all);
        }
    }

    #[test]
    fn shares_that_are_none_are_refused() {
        for share in [-1.0, f64::NAN, f64::INFINITY] {
            let error = aware("a").with_clients([(zone("a"), share)]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("invalid argument: clients is not a share (clients: {share}, zone: a)")
            );
        }
        assert!(aware("a").with_clients([(zone("b"), 1.0)]).is_err());
        assert!(aware("a").with_clients([(zone("a"), 0.0)]).is_err());
        assert!(aware("a").with_min_endpoints(0).is_err());
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        assert_small_sets(|| aware("a"));
    }
}
