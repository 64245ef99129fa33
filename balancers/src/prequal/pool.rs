//! The reports that picks choose from.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_discovery_api::{Rng, Timestamp};

/// As many as in the paper.
pub(super) const POOL: usize = 16;

/// What is known of a server's queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) queue: f64,
    /// `None` if nobody measured it yet.
    pub(super) latency: Option<Duration>,
    pub(super) received: Timestamp,
    /// Until when it counts.
    pub(super) until: Timestamp,
}

/// Sixteen places that any thread reads and writes without a lock. Two that write the same place at
/// once may leave the endpoint of one with the figures of the other: a wrong guess until the next
/// report, no more.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Pool {
    places: [Place; POOL],
    /// Odd when the oldest is next to make room, even when the worst is.
    evictions: AtomicU32,
}

#[derive(Debug, Default)]
struct Place {
    /// Plus one; 0 is empty.
    index: AtomicU32,
    /// `f64` as bits.
    queue: AtomicU64,
    /// In nanoseconds; [`UNKNOWN`] if nobody measured it.
    latency: AtomicU64,
    /// In nanoseconds.
    received: AtomicU64,
    /// In nanoseconds.
    until: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

impl Pool {
    /// Takes in a report, unless it is there; returns whether it was taken in. `hot` is the length
    /// beyond which a queue is.
    pub(super) fn put(
        &self,
        index: usize,
        queue: f64,
        report: &Report,
        now: Timestamp,
        hot: f64,
    ) -> bool {
        let Ok(plus_one) = u32::try_from(index + 1) else {
            return false;
        };
        let received = report.received.as_nanos();
        let place = match self.place_for(plus_one, now, hot) {
            Found::Own(own) if own.received.load(Ordering::Relaxed) == received => return false,
            Found::Own(place) | Found::Other(place) => place,
        };
        let nanos = |latency: Duration| {
            u64::try_from(latency.as_nanos())
                .unwrap_or(UNKNOWN)
                .min(UNKNOWN - 1)
        };
        let latency = report.latency.map_or(UNKNOWN, nanos);
        place.queue.store(queue.to_bits(), Ordering::Relaxed);
        place.latency.store(latency, Ordering::Relaxed);
        place.received.store(received, Ordering::Relaxed);
        let until = report.until.as_nanos();
        place.until.store(until, Ordering::Relaxed);
        place.index.store(plus_one, Ordering::Relaxed);
        true
    }

    /// The endpoint's own place, or else a free one, or else that of whoever makes room: the
    /// oldest, or the worst, which is the longest queue if any is hot and else the highest latency.
    fn place_for(&self, plus_one: u32, now: Timestamp, hot: f64) -> Found<'_> {
        let first = &self.places[0];
        let (mut free, mut oldest, mut longest, mut slowest) = (
            None,
            (u64::MAX, first),
            (f64::NEG_INFINITY, first),
            (f64::NEG_INFINITY, first),
        );
        for place in &self.places {
            if place.index.load(Ordering::Relaxed) == plus_one {
                return Found::Own(place);
            }
            if !place.is_taken(now) {
                free = free.or(Some(place));
                continue;
            }
            let (queue, latency) = (place.queue(), place.latency().unwrap_or(0.0));
            let received = place.received.load(Ordering::Relaxed);
            if received < oldest.0 {
                oldest = (received, place);
            }
            if queue > longest.0 {
                longest = (queue, place);
            }
            if latency > slowest.0 {
                slowest = (latency, place);
            }
        }
        Found::Other(free.unwrap_or_else(|| {
            let turn = self.evictions.fetch_add(1, Ordering::Relaxed);
            if !turn.is_multiple_of(2) {
                oldest.1
            } else if longest.0 > hot {
                longest.1
            } else {
                slowest.1
            }
        }))
    }

    pub(super) fn drop_from(&self, place: usize) {
        self.places[place].index.store(0, Ordering::Relaxed);
    }

    /// A request more goes to the endpoint there.
    pub(super) fn lengthen(&self, place: usize, by: f64) {
        let queue = &self.places[place].queue;
        let longer = f64::from_bits(queue.load(Ordering::Relaxed)) + by;
        queue.store(longer.to_bits(), Ordering::Relaxed);
    }

    /// The quickest of those that are left whose queue is not beyond `hot`; of none, the shortest
    /// queue. `None` if fewer than two are left. Equals are picked alike. A latency that nobody knows counts as
    /// the mean of the others.
    pub(super) fn best(
        &self,
        now: Timestamp,
        hot: f64,
        rng: &mut Rng,
        is_left: impl Fn(usize) -> bool,
    ) -> Option<Best> {
        let (mut count, mut known, mut sum) = (0, 0.0, 0.0);
        let mut quickest = (f64::INFINITY, None);
        let mut shortest = (f64::INFINITY, 0);
        let mut unmeasured = None;
        let start = rng.below(POOL);
        for offset in 0..POOL {
            let number = (start + offset) % POOL;
            let place = &self.places[number];
            let index = place.index().filter(|_| place.is_taken(now));
            if !index.is_some_and(&is_left) {
                continue;
            }
            count += 1;
            let (queue, latency) = (place.queue(), place.latency());
            if queue < shortest.0 {
                shortest = (queue, number);
            }
            if let Some(latency) = latency {
                known += 1.0;
                sum += latency;
            }
            if queue <= hot {
                match latency {
                    Some(latency) if latency < quickest.0 => quickest = (latency, Some(number)),
                    None if unmeasured.is_none() => unmeasured = Some(number),
                    _ => {}
                }
            }
        }
        if count < 2 {
            return None;
        }
        let number = match (quickest.1, unmeasured) {
            (Some(quick), Some(unmeasured)) => {
                if quickest.0 * known <= sum {
                    quick
                } else {
                    unmeasured
                }
            }
            (quick, unmeasured) => quick.or(unmeasured).unwrap_or(shortest.1),
        };
        let place = &self.places[number];
        Some(Best {
            place: number,
            index: place.index()?,
            received: Timestamp::from_nanos(place.received.load(Ordering::Relaxed)),
        })
    }
}

/// The report to go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Best {
    pub(super) place: usize,
    pub(super) index: usize,
    pub(super) received: Timestamp,
}

enum Found<'a> {
    Own(&'a Place),
    Other(&'a Place),
}

impl Place {
    fn index(&self) -> Option<usize> {
        let plus_one = self.index.load(Ordering::Relaxed);
        Some(plus_one.checked_sub(1)? as usize)
    }

    fn is_taken(&self, now: Timestamp) -> bool {
        self.index.load(Ordering::Relaxed) != 0
            && now.as_nanos() < self.until.load(Ordering::Relaxed)
    }

    fn queue(&self) -> f64 {
        f64::from_bits(self.queue.load(Ordering::Relaxed))
    }

    fn latency(&self) -> Option<f64> {
        let nanos = self.latency.load(Ordering::Relaxed);
        (nanos != UNKNOWN).then_some(nanos as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    /// A pool of these queues and latencies, received one each second, seen at the end.
    fn pool(reports: &[(f64, u64)]) -> Pool {
        let pool = Pool::default();
        for (index, &(queue, millis)) in reports.iter().enumerate() {
            put(&pool, index, queue, Some(millis), index as u64, 1e9);
        }
        pool
    }

    fn put(
        pool: &Pool,
        index: usize,
        queue: f64,
        millis: Option<u64>,
        time: u64,
        hot: f64,
    ) -> bool {
        let latency = millis.map(Duration::from_millis);
        let until = at(1000);
        let report = Report {
            queue,
            latency,
            received: at(time),
            until,
        };
        pool.put(index, queue, &report, at(time), hot)
    }

    fn best(pool: &Pool, hot: f64) -> Option<usize> {
        let best = pool.best(at(100), hot, &mut Rng::from_seed(1), |_| true);
        best.map(|best| best.index)
    }

    fn held(pool: &Pool, now: Timestamp) -> Vec<usize> {
        let taken = pool.places.iter().filter(|place| place.is_taken(now));
        let index = |place: &Place| place.index.load(Ordering::Relaxed) as usize - 1;
        let mut held: Vec<_> = taken.map(index).collect();
        held.sort_unstable();
        held
    }

    #[test]
    fn the_quickest_of_the_cold_or_the_shortest_of_the_hot_wins() {
        let reports = [(3.0, 10), (1.0, 30), (2.0, 20), (9.0, 5)];
        let cases = [(10.0, 3), (3.0, 0), (2.5, 2), (2.0, 2), (1.0, 1), (0.5, 1)];
        for (hot, winner) in cases {
            assert_eq!(best(&pool(&reports), hot), Some(winner), "hot beyond {hot}");
        }
    }

    #[test]
    fn one_report_is_no_choice() {
        assert_eq!(best(&pool(&[]), 1.0), None);
        assert_eq!(best(&pool(&[(1.0, 1)]), 1.0), None);
    }

    #[test]
    fn an_unknown_latency_is_average() {
        let pool = pool(&[(1.0, 10), (1.0, 30)]);
        put(&pool, 2, 1.0, None, 2, 1e9);
        assert_eq!(best(&pool, 1.0), Some(0));
        pool.drop_from(0);
        assert_eq!(best(&pool, 1.0), Some(1), "30 ms are the mean, and equals");
        put(&pool, 3, 1.0, Some(50), 3, 1e9);
        pool.drop_from(1);
        put(&pool, 4, 1.0, Some(70), 3, 1e9);
        assert_eq!(best(&pool, 1.0), Some(3), "of 50, 70 and 60");
    }

    #[test]
    fn the_worst_and_the_oldest_make_room_in_turns() {
        let full: Vec<_> = (0..16_u32)
            .map(|n| (f64::from(n * 5 % 16), u64::from(100 - n * 3 % 16)))
            .collect();
        let pool = pool(&full);
        let without = |gone: &[usize], come: &[usize]| -> Vec<usize> {
            (0..16)
                .filter(|index| !gone.contains(index))
                .chain(come.iter().copied())
                .collect()
        };
        // The longest queue, 15, is that of index 3.
        assert!(put(&pool, 16, 7.0, Some(100), 16, 14.0));
        assert_eq!(held(&pool, at(100)), without(&[3], &[16]));
        assert!(put(&pool, 17, 7.0, Some(100), 17, 14.0));
        assert_eq!(
            held(&pool, at(100)),
            without(&[3, 0], &[16, 17]),
            "the oldest"
        );
        // None is hot: the highest latency left but the newcomers' is lower than theirs.
        assert!(put(&pool, 18, 7.0, Some(1), 18, 1e9));
        assert!(!held(&pool, at(100)).contains(&16) || !held(&pool, at(100)).contains(&17));
        assert!(put(&pool, 19, 7.0, Some(1), 19, 1e9));
        assert!(!held(&pool, at(100)).contains(&1), "the oldest");
    }

    #[test]
    fn a_newer_report_takes_the_place_of_the_same_endpoints() {
        let pool = pool(&[(5.0, 10), (5.0, 20)]);
        assert!(!put(&pool, 1, 1.0, Some(1), 1, 1e9), "the same one again");
        assert_eq!(best(&pool, 1e9), Some(0));
        assert!(put(&pool, 1, 1.0, Some(1), 2, 1e9));
        assert_eq!(
            (held(&pool, at(100)), best(&pool, 1e9)),
            (vec![0, 1], Some(1))
        );
    }

    #[test]
    fn what_is_too_old_is_not_seen_and_makes_room_first() {
        let pool = Pool::default();
        let put = |index: u64, now| {
            let (received, until) = (at(index), at(index + 5));
            let report = Report {
                queue: 1.0,
                latency: None,
                received,
                until,
            };
            assert!(pool.put(usize::try_from(index).unwrap(), 1.0, &report, now, 1e9));
        };
        (0..16).for_each(|index| put(index, at(0)));
        let seen = || held(&pool, at(16)).len();
        assert_eq!(seen(), 4, "those of 12 to 15 s");
        put(16, at(16));
        assert_eq!(seen(), 5);
    }

    #[test]
    fn a_request_sent_lengthens_the_queue() {
        let pool = pool(&[(1.0, 10), (1.0, 20)]);
        assert_eq!(best(&pool, 1.5), Some(0));
        let rng = &mut Rng::from_seed(1);
        let place = pool.best(at(100), 1.5, rng, |_| true).unwrap().place;
        pool.lengthen(place, 1.0);
        assert_eq!(best(&pool, 1.5), Some(1));
    }
}
