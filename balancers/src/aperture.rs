//! Using only some of many endpoints, evenly by number.

use std::sync::Arc;

use plimsoll_discovery_api::{
    Balancer, Capabilities, Endpoint, Endpoints, Error, PickContext, Picker, Result,
};

use crate::eligible::{eligible, weights};
use crate::repick::{chance_of, pick_admitted, pick_other};
use crate::{hash, parameter};

/// Lets an algorithm see some `size` of the endpoints only, so chosen that clients that know their
/// number use every endpoint alike: the deterministic aperture of
/// [Finagle](https://twitter.github.io/finagle/guide/ApertureLoadBalancers.html).
///
/// The endpoints share a ring in proportion to their weights, in the order of their hashed ids, so
/// that neighbours have nothing else in common. Client i of c looks at it from i / c on, over a
/// width of at least size / n that is a multiple of 1 / c: so every point of the ring is seen by
/// the same number of clients, exactly. An endpoint that is seen in part is picked in part: a pick
/// of it is kept with the probability of that part and otherwise made again.
///
/// When an endpoint joins or leaves, each border of the view moves by one place at most; at times
/// the width takes a step of 1 / c as well, and one of them moves by n / c places more. When the
/// number of clients changes, most borders move by up to n / c places.
///
/// A pick that excludes all of them, as a retry may where `size` is small, yields none rather than
/// one beyond.
///
/// *Pick*: the inner one and two comparisons; for an endpoint seen in part a random number, and
/// with the refused part of them another pick. *Rebuild*: the inner one for `size` endpoints, and
/// O(n log n).
///
/// *Use it* where clients are numbered: replicas with an ordinal, tasks of a scheduler. *Not* where
/// the number of a client is a rank in some list, so that one loss renumbers all: see
/// [`RandomSubset`](crate::RandomSubset).
#[derive(Clone, Debug)]
pub struct Aperture<B> {
    inner: B,
    size: usize,
    client: usize,
    clients: usize,
}

impl<B: Balancer> Aperture<B> {
    /// About `size` endpoints, at least 1, for `inner` in client `client`, from 0, of `clients`.
    /// Finagle takes 12 at least: with fewer, the algorithm has too little to choose from.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) for a `size` of 0,
    /// or a `client` that is not below `clients`.
    pub fn new(inner: B, size: usize, client: usize, clients: usize) -> Result<Self> {
        if client >= clients {
            let error = Error::invalid("client", client, "is not below the number of clients");
            return Err(error.with_context("clients", clients.to_string()));
        }
        Ok(Self {
            inner,
            size: parameter::at_least("size", size, 1)?,
            client,
            clients,
        })
    }

    /// What this client sees of each endpoint, as a part of it.
    fn parts(&self, endpoints: &Endpoints) -> Vec<f64> {
        let (n, clients) = (endpoints.len(), self.clients as f64);
        let steps = (self.size as f64 * clients / n as f64).ceil();
        if steps >= clients {
            return vec![1.0; n];
        }
        let from = self.client as f64 / clients;
        let to = from + steps / clients;
        let mut order: Vec<usize> = (0..n).collect();
        order
            .sort_by_cached_key(|&index| hash::xxh64(endpoints[index].id().as_str().as_bytes(), 0));
        let weights = weights(endpoints);
        let whole: f64 = weights.iter().sum();
        let (mut parts, mut start) = (vec![0.0; n], 0.0);
        for index in order {
            let length = weights[index] / whole;
            let end = start + length;
            // The view may reach beyond the end of the ring: once round.
            let overlap = |lap: f64| (to.min(end + lap) - from.max(start + lap)).max(0.0);
            parts[index] = (overlap(0.0) + overlap(1.0)) / length;
            start = end;
        }
        parts
    }
}

/// With a tenth of all picks refused, all of so many are once in 10^8.
const TRIES: usize = 8;

/// A part this close to none or all is a rounding error.
const ROUNDING: f64 = 1e-9;

#[deny(clippy::missing_trait_methods)]
impl<B: Balancer> Balancer for Aperture<B> {
    fn name(&self) -> &'static str {
        "aperture"
    }

    fn reads_load(&self) -> bool {
        self.inner.reads_load()
    }

    fn set_capabilities(&mut self, capabilities: &Capabilities) {
        self.inner.set_capabilities(capabilities);
    }

    fn ejects(&self) -> bool {
        self.inner.ejects()
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let endpoints = eligible(endpoints)?;
        let parts = self.parts(&endpoints);
        let seen = endpoints
            .iter()
            .zip(parts)
            .filter(|(_, part)| *part > ROUNDING);
        let (endpoints, parts): (Vec<_>, Vec<f64>) = seen
            .map(|(endpoint, part)| (Arc::clone(endpoint), part))
            .unzip();
        let endpoints: Endpoints = endpoints.into();
        let partial = endpoints
            .iter()
            .zip(parts)
            .filter(|(_, part)| *part < 1.0 - ROUNDING);
        let partial = partial.map(|(endpoint, part)| Partial {
            endpoint: Arc::clone(endpoint),
            part,
            purpose: hash::xxh64(endpoint.id().as_str().as_bytes(), 1),
        });
        let partial: Box<[_]> = partial.collect();
        let inner = self.inner.build(&endpoints)?;
        if partial.is_empty() {
            return Ok(inner);
        }
        Ok(Box::new(AperturePicker {
            inner,
            endpoints,
            partial,
        }))
    }
}

#[derive(Debug)]
struct AperturePicker {
    inner: Box<dyn Picker>,
    endpoints: Endpoints,
    /// Those at the two borders of the view.
    partial: Box<[Partial]>,
}

#[derive(Debug)]
struct Partial {
    endpoint: Arc<Endpoint>,
    part: f64,
    purpose: u64,
}

impl Picker for AperturePicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let Some(key) = context.key() else {
            return self.pick_by_chance(context);
        };
        pick_admitted(&*self.inner, &self.endpoints, context, |endpoint| {
            let partial = self.partial(endpoint);
            partial.is_some_and(|partial| chance_of(key, partial.purpose) >= partial.part)
        })
    }
}

impl AperturePicker {
    #[inline]
    fn partial(&self, endpoint: &Endpoint) -> Option<&Partial> {
        let is_it = |partial: &&Partial| std::ptr::eq(&*partial.endpoint, endpoint);
        self.partial.iter().find(is_it)
    }

    /// Every pick of an endpoint that is seen in part is kept by a draw of its own, as parts are
    /// exact only where a refused pick leaves the next one free. An algorithm that insists gets
    /// one that is seen as a whole.
    #[inline]
    fn pick_by_chance(&self, context: &mut PickContext<'_>) -> Option<&Arc<Endpoint>> {
        let first = self.inner.pick(context)?;
        let mut picked = first;
        for _ in 0..TRIES {
            let Some(partial) = self.partial(picked) else {
                return Some(picked);
            };
            if context.rng().next_f64() < partial.part {
                return Some(picked);
            }
            picked = self.inner.pick(context)?;
        }
        let is_partial = |endpoint: &Endpoint| self.partial(endpoint).is_some();
        pick_other(&*self.inner, &self.endpoints, context, &is_partial).or(Some(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, assert_shares, assert_small_sets, endpoints, weighted};
    use crate::{Maglev, Random, WeightedRandom};

    fn aperture(size: usize, client: usize, clients: usize) -> Aperture<Random> {
        Aperture::new(Random::new(), size, client, clients).unwrap()
    }

    fn seen(endpoints: &Endpoints, size: usize, client: usize, clients: usize) -> Vec<String> {
        let parts = aperture(size, client, clients).parts(endpoints);
        let seen = endpoints
            .iter()
            .zip(parts)
            .filter(|(_, part)| *part > ROUNDING);
        seen.map(|(endpoint, _)| endpoint.id().to_string())
            .collect()
    }

    #[test]
    fn all_clients_together_see_every_endpoint_alike_whatever_the_numbers() {
        for (n, size, clients) in [
            (10, 3, 7),
            (50, 12, 100),
            (7, 5, 3),
            (100, 12, 5),
            (3, 1, 11),
        ] {
            let all = endpoints(n);
            let mut total = vec![0.0; n];
            let mut sum = 0.0;
            for client in 0..clients {
                let parts = aperture(size, client, clients).parts(&all);
                let own: f64 = parts.iter().sum();
                assert!(own > size as f64 - 1e-9, "{own} is less than {size}");
                assert!(
                    own < size as f64 + n as f64 / clients as f64,
                    "{own} is too much"
                );
                sum += own;
                total
                    .iter_mut()
                    .zip(parts)
                    .for_each(|(total, part)| *total += part);
            }
            let mean = sum / n as f64;
            assert!(
                total.iter().all(|total| (total - mean).abs() < 1e-9),
                "{total:?}"
            );
        }
    }

    #[test]
    fn by_weight_as_well() {
        let all = weighted(&[100, 50, 300, 20, 70, 100, 110]);
        let mut total = [0.0; 7];
        for client in 0..9 {
            let parts = aperture(2, client, 9).parts(&all);
            total
                .iter_mut()
                .zip(parts)
                .for_each(|(total, part)| *total += part);
        }
        assert!(
            total.iter().all(|part| (part - total[0]).abs() < 1e-9),
            "{total:?}"
        );
    }

    #[test]
    fn picks_of_all_clients_are_even_though_each_sees_but_a_few() {
        let all = endpoints(10);
        let mut total = vec![0; 10];
        for client in 0..7 {
            let mut bench = Bench::new(aperture(3, client, 7), &all, client as u64);
            let own = bench.tally(10_000);
            let used = own.iter().filter(|&&count| count > 0).count();
            assert!((4..=6).contains(&used), "{own:?}");
            total
                .iter_mut()
                .zip(own)
                .for_each(|(total, own)| *total += own);
        }
        // Each is due 7,000, with a deviation of 84 at most; 5 of them have a probability below
        // 1e-6.
        assert!(
            total.iter().all(|total| total.abs_diff(7000) < 420),
            "{total:?}"
        );
    }

    #[test]
    fn an_endpoint_seen_in_part_is_picked_in_part() {
        let all = weighted(&[100, 50, 300, 20, 70, 100, 110, 50]);
        let balancer = || Aperture::new(WeightedRandom::new(), 3, 4, 9).unwrap();
        let parts = balancer().parts(&all);
        let mut bench = Bench::new(balancer(), &all, 1);
        let shares = weights(&all)
            .into_iter()
            .zip(parts)
            .map(|(weight, part)| weight * part);
        let (shares, counts): (Vec<f64>, Vec<u64>) = shares
            .zip(bench.tally(20_000))
            .filter(|(share, _)| *share > 0.0)
            .unzip();
        assert_eq!(counts.iter().sum::<u64>(), 20_000);
        assert_shares(&counts, &shares);
    }

    #[test]
    fn who_joins_or_leaves_moves_each_border_by_one_place_and_a_step_of_the_width_at_most() {
        for n in [20, 50, 101] {
            let all = endpoints(n);
            let most = 2 + n.div_ceil(40);
            for left in 0..n {
                let others = all.iter().enumerate().filter(|(index, _)| *index != left);
                let fewer: Endpoints = others.map(|(_, endpoint)| Arc::clone(endpoint)).collect();
                for client in 0..40 {
                    let more = seen(&all, 12, client, 40);
                    let less = seen(&fewer, 12, client, 40);
                    let lacks = |from: &[String], of: &[String]| {
                        from.iter().filter(|id| !of.contains(id)).count()
                    };
                    let (gone, new) = (lacks(&more, &less), lacks(&less, &more));
                    assert!(gone <= most && new <= most, "{n}: -{gone} +{new}");
                }
            }
        }
    }

    #[test]
    fn with_few_endpoints_all_are_seen() {
        assert_eq!(seen(&endpoints(5), 5, 3, 10).len(), 5);
        assert_eq!(seen(&endpoints(5), 100, 3, 10).len(), 5);
        assert_eq!(seen(&endpoints(5), 1, 0, 1).len(), 5);
    }

    #[test]
    fn equal_keys_go_to_one_endpoint() {
        let all = endpoints(10);
        let balancer = Aperture::new(Maglev::new(), 3, 2, 7).unwrap();
        let mut bench = Bench::new(balancer, &all, 1);
        for key in 0..1000 {
            bench.key = Some(key);
            let owner = bench.id();
            assert_eq!(owner, bench.id());
        }
    }

    #[test]
    fn a_client_beyond_the_number_of_clients_is_refused() {
        let error = Aperture::new(Random::new(), 12, 5, 5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid argument: client is not below the number of clients (client: 5, clients: 5)"
        );
        assert!(Aperture::new(Random::new(), 0, 0, 5).is_err());
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        assert_small_sets(|| Aperture::new(Random::new(), 2, 3, 4).unwrap());
    }
}
