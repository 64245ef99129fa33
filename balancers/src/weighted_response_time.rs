//! Chance in proportion to quickness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_discovery_api::{Balancer, Endpoint, Endpoints, PickContext, Picker, Result, Rng};

use crate::eligible::weighed;
use crate::left::only;
use crate::sample::Sampler;

/// Picks at random, in proportion to the weights and to the time an endpoint saves: the sum of
/// all mean latencies less its own, as Netflix Ribbon's rule of this name does
/// ([source, Apache 2.0](https://github.com/Netflix/ribbon/blob/v2.7.18/ribbon-loadbalancer/src/main/java/com/netflix/loadbalancer/WeightedResponseTimeRule.java)).
///
/// Four equal endpoints that take 10, 20, 30 and 40 ms get 30, 27, 23 and 20 % of the traffic. It
/// is a gentle rule, and the gentler the more endpoints there are. It differs from Ribbon in
/// this: the mean is [`Endpoint::latency`], which forgets; it is read at every pick, so there is
/// no task that turns it into weights every 30 s; and an endpoint never measured counts as
/// average, not as infinitely quick.
///
/// An endpoint is drawn by weight and taken with probability 1 - latency / sum, or else drawn
/// again, 16 times at most, which gives exactly these proportions.
///
/// *Pick*: O(1) on average: n / (n - 1) draws of two random numbers. One pick in n, on average,
/// reads all latencies to bring the sum up to date, O(n). *Rebuild*: O(n).
///
/// *Use it* to lean towards quick servers without ever leaving a slow one alone. *Not* to steer
/// around a server in trouble: see [`PeakEwma`](crate::PeakEwma).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WeightedResponseTime;

/// The last is taken as it is. With an up-to-date sum it comes to that with a probability of 2^-15
/// at most, which is with two endpoints.
const MAX_DRAWS: usize = 16;

impl WeightedResponseTime {
    /// The algorithm; it has no parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Balancer for WeightedResponseTime {
    fn name(&self) -> &'static str {
        "weighted_response_time"
    }

    fn reads_load(&self) -> bool {
        false
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let (endpoints, weights) = weighed(endpoints)?;
        let sampler = Sampler::new(&weights);
        let mean = MeanLatency(AtomicU64::new(0));
        let picker = WeightedResponseTimePicker {
            endpoints,
            sampler,
            mean,
        };
        picker.measure();
        Ok(Box::new(picker))
    }
}

#[derive(Debug)]
struct WeightedResponseTimePicker {
    endpoints: Endpoints,
    sampler: Sampler,
    mean: MeanLatency,
}

/// The mean over the endpoints that were measured, in nanoseconds, as the bits of an `f64`; 0 if
/// none was. Apart from what every pick reads.
#[derive(Debug)]
#[repr(align(128))]
struct MeanLatency(AtomicU64);

impl Picker for WeightedResponseTimePicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let n = self.endpoints.len();
        if n < 2 {
            return only(&self.endpoints, context);
        }
        let sum = self.mean(context.rng()) * n as f64;
        let mut index = self.sampler.pick(context, &self.endpoints)?;
        for _ in 1..MAX_DRAWS {
            let part = latency(&self.endpoints[index]).map_or(1.0 / n as f64, |own| own / sum);
            if context.rng().next_f64() >= part {
                break;
            }
            index = self.sampler.pick(context, &self.endpoints)?;
        }
        self.endpoints.get(index)
    }
}

impl WeightedResponseTimePicker {
    /// The mean latency, measured again at times.
    #[inline]
    fn mean(&self, rng: &mut Rng) -> f64 {
        if rng.below(self.endpoints.len()) == 0 {
            self.measure()
        } else {
            f64::from_bits(self.mean.0.load(Ordering::Relaxed))
        }
    }

    fn measure(&self) -> f64 {
        let latencies = self
            .endpoints
            .iter()
            .filter_map(|endpoint| latency(endpoint));
        let (sum, count) = latencies.fold((0.0, 0.0), |(sum, count), own| (sum + own, count + 1.0));
        let mean: f64 = if count == 0.0 { 0.0 } else { sum / count };
        self.mean.0.store(mean.to_bits(), Ordering::Relaxed);
        mean
    }
}

/// In nanoseconds.
#[inline]
fn latency(endpoint: &Endpoint) -> Option<f64> {
    endpoint
        .latency()
        .map(|latency| latency.as_secs_f64() * 1e9)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plimsoll_discovery_api::{Outcome, Pick};

    use super::*;
    use crate::testing::{Bench, assert_shares, assert_small_sets, assert_uniform};
    use crate::testing::{endpoints, weighted};

    fn measure(endpoints: &Endpoints, millis: &[u64]) {
        for (endpoint, &millis) in endpoints.iter().zip(millis) {
            let latency = Duration::from_millis(millis);
            Pick::new(&**endpoint).finish_after(Outcome::Success, latency);
        }
    }

    #[test]
    fn shares_are_those_of_ribbon() {
        let cases: [(&[u64], &[f64]); 3] = [
            (&[10, 20, 30, 40], &[90.0, 80.0, 70.0, 60.0]),
            (&[300, 200, 100], &[300.0, 400.0, 500.0]),
            (&[1000, 10, 10], &[20.0, 1010.0, 1010.0]),
        ];
        for (millis, shares) in cases {
            let all = endpoints(millis.len());
            measure(&all, millis);
            let mut bench = Bench::new(WeightedResponseTime::new(), &all, 1);
            assert_shares(&bench.tally(300_000), shares);
        }
    }

    #[test]
    fn what_was_never_measured_counts_as_average() {
        let all = endpoints(4);
        let mut bench = Bench::new(WeightedResponseTime::new(), &all, 2);
        assert_uniform(&bench.tally(20_000));
        measure(&all, &[100]);
        assert_uniform(&bench.tally(20_000));
        measure(&all[1..].iter().map(Arc::clone).collect(), &[300]);
        bench.rebuild(&all);
        // Latencies 100, 300, 200 and 200: a sum of 800.
        assert_shares(&bench.tally(50_000), &[700.0, 500.0, 600.0, 600.0]);
    }

    #[test]
    fn changes_are_followed_without_a_rebuild() {
        let all = endpoints(3);
        measure(&all, &[10, 10, 10]);
        let mut bench = Bench::new(WeightedResponseTime::new(), &all, 3);
        assert_uniform(&bench.tally(30_000));
        (0..200).for_each(|_| measure(&all, &[10, 10, 80]));
        bench.tally(100);
        assert_shares(&bench.tally(100_000), &[90.0, 90.0, 20.0]);
    }

    #[test]
    fn weights_count_as_well() {
        let all = weighted(&[100, 300]);
        measure(&all, &[10, 30]);
        let mut bench = Bench::new(WeightedResponseTime::new(), &all, 4);
        assert_uniform(&bench.tally(50_000));
    }

    #[test]
    fn small_and_weightless_sets_are_handled() {
        assert_small_sets(WeightedResponseTime::new);
    }
}
