//! How a subject is timed.

use std::hint::{black_box, spin_loop};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use core_affinity::{CoreId, get_core_ids, set_for_current};

use crate::set::{KEYS, Key};
use crate::subject::{Kind, Spread, Subject};

/// What one timed run takes: long against the clock's resolution, short against the scheduler's
/// slices, so that the median leaves out the runs that were preempted.
const RUN: Duration = Duration::from_micros(1500);

/// Two threads contend only while both run: of the longer one's time at least this share, or the
/// run is made again, so many times at most. It need not be all of it, for processors are not fair
/// to threads that write to one place.
const TOGETHER: f64 = 0.5;
const TRIES: usize = 10;

/// Keeps the present thread on one processor, lest two that are to contend take turns on one.
pub fn stay_on(processor: usize) {
    // Asked once, before anything is bound: a bound thread and its children are told of one only.
    static ALL: LazyLock<Vec<CoreId>> = LazyLock::new(|| get_core_ids().unwrap_or_default());
    if let Some(&processor) = ALL.get(processor) {
        set_for_current(processor);
    }
}

/// A subject with its measurements.
pub struct Contestant {
    pub name: String,
    pub kind: Kind,
    pub spread: Spread,
    /// Nanoseconds per pick with one thread, by repetition.
    pub one: Vec<f64>,
    /// Nanoseconds per pick of two threads together, by repetition: not a number where the machine
    /// let them run side by side at no try, empty where they cannot share.
    pub two: Vec<f64>,
    pub allocations: f64,
    pub probe: Box<dyn Probe>,
    picks: u64,
}

impl Contestant {
    pub fn new<S: Subject>(
        name: impl Into<String>,
        kind: Kind,
        spread: Spread,
        subject: S,
    ) -> Self {
        Self::with(name.into(), kind, spread, subject, true)
    }

    /// A subject that one thread at a time may hold.
    pub fn exclusive<S: Subject>(
        name: impl Into<String>,
        kind: Kind,
        spread: Spread,
        subject: S,
    ) -> Self {
        Self::with(name.into(), kind, spread, subject, false)
    }

    fn with<S: Subject>(
        name: String,
        kind: Kind,
        spread: Spread,
        subject: S,
        shareable: bool,
    ) -> Self {
        let probe = Box::new(Timed {
            subject,
            shareable,
            made: AtomicU64::new(0),
        });
        Self {
            name,
            kind,
            spread,
            one: Vec::new(),
            two: Vec::new(),
            allocations: 0.0,
            probe,
            picks: 0,
        }
    }

    /// Warms up, finds how many picks a run takes, and counts allocations.
    pub fn calibrate(&mut self, keys: &[Key]) {
        let mut picks = 64;
        loop {
            let elapsed = self.probe.one(picks, keys);
            if elapsed >= RUN / 4 || picks > 1 << 22 {
                let per_pick = elapsed.as_secs_f64() / picks as f64;
                self.picks = ((RUN.as_secs_f64() / per_pick) as u64).max(8);
                break;
            }
            picks *= 2;
        }
        let counted = 1000.min(self.picks);
        let allocations = |picks| {
            let made = || {
                self.probe.one(picks, keys);
            };
            allocation_counter::measure(made).count_total
        };
        // What a handle allocates when it is made is not the pick's.
        self.allocations = (allocations(counted) - allocations(0)) as f64 / counted as f64;
    }

    /// One repetition: with one thread, and with two if they can share.
    pub fn repeat(&mut self, keys: &[Key]) {
        self.probe.one(self.picks / 4, keys);
        let nanos = |elapsed: Duration, picks: u64| elapsed.as_secs_f64() * 1e9 / picks as f64;
        self.one
            .push(nanos(self.probe.one(self.picks, keys), self.picks));
        if self.probe.is_shareable() {
            let two = self.probe.two(self.picks, keys);
            self.two
                .push(two.map_or(f64::NAN, |elapsed| nanos(elapsed, self.picks) / 2.0));
        }
    }
}

/// The loops, compiled for each subject so that nothing stands between them and the picks.
pub trait Probe {
    /// The time of so many picks.
    fn one(&self, picks: u64, keys: &[Key]) -> Duration;
    /// The time until each of two threads has made so many picks; `None` if they never ran at once.
    fn two(&self, picks: u64, keys: &[Key]) -> Option<Duration>;
    /// Whether two threads can.
    fn is_shareable(&self) -> bool;
    /// Who was picked, in order.
    fn sequence(&self, picks: u64, keys: &[Key]) -> Vec<u64>;
    /// Panics if a pick went missing or is still held.
    fn settled(&self);
}

struct Timed<S> {
    subject: S,
    shareable: bool,
    made: AtomicU64,
}

impl<S: Subject> Timed<S> {
    fn each(&self, picks: u64, from: usize, keys: &[Key], mut see: impl FnMut(u64)) -> Duration {
        let mut elapsed = Duration::ZERO;
        self.subject.around(&mut || {
            let mut handle = self.subject.handle();
            let start = Instant::now();
            for pick in 0..picks as usize {
                let key = &keys[pick.wrapping_add(from) % KEYS];
                see(black_box(S::pick(&mut handle, key)));
            }
            elapsed = start.elapsed();
        });
        self.made.fetch_add(picks, Ordering::Relaxed);
        elapsed
    }

    fn timed(&self, picks: u64, from: usize, keys: &[Key]) -> Duration {
        let mut sum = 0_u64;
        let elapsed = self.each(picks, from, keys, |number| sum = sum.wrapping_add(number));
        black_box(sum);
        elapsed
    }
}

impl<S: Subject> Probe for Timed<S> {
    fn one(&self, picks: u64, keys: &[Key]) -> Duration {
        self.timed(picks, 0, keys)
    }

    fn two(&self, picks: u64, keys: &[Key]) -> Option<Duration> {
        let try_once = || {
            let arrived = AtomicUsize::new(0);
            let run = |from| {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 2 {
                    spin_loop();
                }
                let start = Instant::now();
                let elapsed = self.timed(picks, from, keys);
                (start, start + elapsed, elapsed)
            };
            let (mine, other) = std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    stay_on(1);
                    run(KEYS / 2)
                });
                (run(0), other.join().unwrap())
            });
            let together = mine
                .1
                .min(other.1)
                .saturating_duration_since(mine.0.max(other.0));
            let contended = together.as_secs_f64() > TOGETHER * mine.2.max(other.2).as_secs_f64();
            contended.then(|| mine.1.max(other.1) - mine.0.min(other.0))
        };
        if self.shareable {
            (0..TRIES).find_map(|_| try_once())
        } else {
            None
        }
    }

    fn is_shareable(&self) -> bool {
        self.shareable
    }

    fn sequence(&self, picks: u64, keys: &[Key]) -> Vec<u64> {
        let mut sequence = Vec::new();
        self.each(picks, 0, keys, |number| sequence.push(number));
        sequence
    }

    fn settled(&self) {
        self.subject.settled(self.made.load(Ordering::Relaxed));
    }
}

/// The middle value of those that are numbers.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        f64::NAN
    } else {
        values[values.len() / 2]
    }
}

/// The middle of the ratios, repetition by repetition: what drifts slows both alike.
pub fn ratio(over: &[f64], under: &[f64]) -> f64 {
    median(over.iter().zip(under).map(|(a, b)| a / b))
}
