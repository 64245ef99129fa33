//! Whether what is measured does what it is measured for.

use crate::measure::Contestant;
use crate::set::{KEYS, Key, Set};
use crate::subject::Spread;

/// Panics unless `contestant` spreads its picks over `set` as it should.
pub fn check(contestant: &Contestant, set: Set, keys: &[Key]) {
    let weights = set.weights();
    let cycle: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let name = &contestant.name;
    let counts = |sequence: &[u64]| {
        let mut counts = vec![0_u64; set.size];
        sequence
            .iter()
            .for_each(|&number| counts[number as usize] += 1);
        counts
    };
    match contestant.spread {
        Spread::Free => {}
        Spread::Turns => {
            let counts = counts(&contestant.probe.sequence(20 * cycle, keys));
            for (count, &weight) in counts.iter().zip(&weights) {
                assert_eq!(*count, 20 * u64::from(weight), "{name}: {counts:?}");
            }
        }
        Spread::Chance => {
            let picks = 2000 * cycle;
            let counts = counts(&contestant.probe.sequence(picks, keys));
            for (count, &weight) in counts.iter().zip(&weights) {
                let due = f64::from(2000 * weight);
                // Binomial: beyond 7 standard deviations with a probability below 3e-12.
                let off = (*count as f64 - due).abs() / due.sqrt();
                assert!(off < 7.0, "{name}: {counts:?}");
            }
        }
        Spread::Keys => {
            let sequence = contestant.probe.sequence(2 * KEYS as u64, keys);
            let (once, again) = sequence.split_at(KEYS);
            assert!(once == again, "{name}: equal keys went apart");
            let counts = counts(once);
            assert!(counts.iter().all(|&count| count > 0), "{name}: {counts:?}");
        }
    }
    contestant.probe.settled();
}
