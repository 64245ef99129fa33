//! Which of reports and own requests is believed, by how long requests last.

use std::collections::VecDeque;

use plimsoll_discovery_api::{Outcome, Pick, Rng};

use super::*;
use crate::LeastRequest;
use crate::testing::servers;

const TICK: Duration = Duration::from_millis(1);
const REPORT_EVERY: usize = 2000;
/// Until reports, latencies and what is usual have been learned.
const WARM_UP: usize = 20_000;

/// One client of two servers that calls again as soon as a call ends.
#[derive(Clone, Copy)]
struct Load {
    /// Calls under way at any time; or if they come in bursts, in each of these.
    concurrent: usize,
    /// Whether the calls begin together, within 5 ticks, once all before have ended.
    in_bursts: bool,
    /// How long one lasts on average, in ticks; exponentially distributed, up to 8 times that.
    lasts: usize,
    /// What another client has under way at the first server, for good.
    standing: u64,
    ticks: usize,
}

/// What came of it after the warm-up.
#[derive(Debug)]
struct Seen {
    /// The largest part of the client's calls under way that either server had at any tick.
    fullest: f64,
    /// The largest part of any 1,000 calls in a row that either server got.
    most: f64,
    /// The part of all calls that the first server got.
    first: f64,
}

impl Load {
    fn run(self, balancer: impl Balancer) -> Seen {
        let servers = servers(2);
        let mut bench = Bench::new(balancer, &views(&servers), 7);
        let mut rng = Rng::from_seed(8);
        let mut endings: VecDeque<Vec<(usize, Pick)>> = VecDeque::new();
        endings.resize_with(8 * self.lasts + 2, Vec::new);
        let (mut held, mut served) = ([0_u64; 2], [0_u64; 2]);
        let (mut due, mut fullest, mut most) = (self.concurrent, 0.0_f64, 0.0_f64);
        let (mut thousand, mut ended) = ([0_u32; 2], 0);
        for tick in 0..self.ticks {
            bench.advance(TICK);
            // A server tells each 2 s, and not both at once.
            for (index, server) in servers.iter().enumerate() {
                if tick % REPORT_EVERY == 700 * index {
                    let others = if index == 0 { self.standing } else { 0 };
                    server.publish(held[index] + others, &bench.clock);
                }
            }
            for (lasted, pick) in endings.pop_front().unwrap() {
                let index = usize::from(pick.endpoint().id().as_str() == "000001");
                held[index] -= 1;
                let latency = TICK * u32::try_from(lasted).unwrap();
                pick.finish_at(Outcome::Success, latency, bench.clock.now());
                ended += 1;
            }
            if !self.in_bursts || ended == self.concurrent {
                due += std::mem::take(&mut ended);
            }
            endings.push_back(Vec::new());
            let at_once = if self.in_bursts {
                due.min(self.concurrent / 5)
            } else {
                due
            };
            due -= at_once;
            for _ in 0..at_once {
                let pick = bench.begin();
                let index = usize::from(pick.endpoint().id().as_str() == "000001");
                held[index] += 1;
                served[index] += u64::from(tick >= WARM_UP);
                thousand[index] += 1;
                if thousand[0] + thousand[1] == 1000 {
                    let part = f64::from(thousand[0].max(thousand[1])) / 1000.0;
                    most = most.max(if tick >= WARM_UP { part } else { 0.0 });
                    thousand = [0; 2];
                }
                let lasts = -(1.0 - rng.next_f64()).ln() * self.lasts as f64;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "small"
                )]
                let lasts = (lasts as usize).min(8 * self.lasts) + 1;
                endings[lasts - 1].push((lasts, pick));
            }
            if tick >= WARM_UP {
                let part = held[0].max(held[1]) as f64 / self.concurrent as f64;
                fullest = fullest.max(part);
            }
        }
        Seen {
            fullest,
            most,
            first: served[0] as f64 / (served[0] + served[1]) as f64,
        }
    }
}

const SHORT: Load = Load {
    concurrent: 200,
    in_bursts: false,
    lasts: 5,
    standing: 0,
    ticks: 50_000,
};

const LONG: Load = Load {
    concurrent: 200,
    in_bursts: false,
    lasts: 10_000,
    standing: 0,
    ticks: 200_000,
};

const BURSTS: Load = Load {
    concurrent: 1000,
    in_bursts: true,
    ..SHORT
};

/// Before own requests decided, the bursts came to 0.767 and the steady calls to 0.53 and 0.519.
#[test]
fn short_calls_are_spread_as_evenly_as_by_own_requests_alone() {
    for load in [BURSTS, SHORT] {
        let by_load = load.run(LeastLoad::new());
        let by_own = load.run(LeastRequest::new());
        let both = format!("{by_load:?}, by own requests {by_own:?}");
        assert!(by_load.most <= by_own.most + 0.01, "{both}");
        assert!(by_load.fullest <= by_own.fullest + 0.01, "{both}");
        assert!((by_load.first - 0.5).abs() < 0.005, "{both}");
    }
}

/// Before: 0.53 and 0.565.
#[test]
fn long_calls_are_spread_no_less_evenly_than_by_reports_alone() {
    let by_load = LONG.run(LeastLoad::new());
    assert!(
        by_load.fullest <= 0.535 && by_load.most <= 0.57,
        "{by_load:?}"
    );
}

/// With 100 of another client's on the first server, of this client's 200 it is due 50. Reports
/// lag, so that it gets between that and its half, which own requests alone would give it.
#[test]
fn anothers_standing_load_is_told_apart_by_short_calls_and_by_long_ones() {
    for load in [SHORT, LONG] {
        let load = Load {
            standing: 100,
            ..load
        };
        let by_load = load.run(LeastLoad::new());
        assert!((0.2..0.33).contains(&by_load.first), "{by_load:?}");
        assert!((load.run(LeastRequest::new()).first - 0.5).abs() < 0.01);
    }
}
