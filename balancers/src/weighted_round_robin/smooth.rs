//! The cycle of nginx's smooth weighted round robin.

/// 256 KiB of turns at most.
const MAX_TURNS: u64 = 65_536;

/// About a millisecond of work.
const MAX_STEPS: u64 = 1 << 20;

/// One full cycle of turns for `weights`, each above 0; `None` where it would be too long.
///
/// At each turn every index gains its weight, the one that has most takes the turn, the first
/// among equals, and pays the sum of all.
pub(super) fn cycle(weights: &[u32]) -> Option<Box<[u32]>> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let gains: Vec<i64> = weights
        .iter()
        .map(|weight| i64::from(weight / divisor))
        .collect();
    let sum: i64 = gains.iter().sum();
    let turns = sum.unsigned_abs();
    if gains.iter().all(|gain| *gain == 1) {
        return (0..u32::try_from(gains.len()).ok()?).map(Some).collect();
    }
    if turns > MAX_TURNS || turns * gains.len() as u64 > MAX_STEPS {
        return None;
    }
    let mut credits = vec![0_i64; gains.len()];
    let mut turn = || {
        let mut most = (0, i64::MIN);
        for (index, (credit, gain)) in credits.iter_mut().zip(&gains).enumerate() {
            *credit += gain;
            if *credit > most.1 {
                most = (index, *credit);
            }
        }
        credits[most.0] -= sum;
        u32::try_from(most.0).ok()
    };
    (0..turns).map(|_| turn()).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(weights: &[u32]) -> String {
        let letter = |&index: &u32| char::from(b'a' + u8::try_from(index).unwrap());
        cycle(weights).unwrap().iter().map(letter).collect()
    }

    #[test]
    fn sequences_are_those_of_nginx() {
        // The first is the example of the commit that brought the algorithm to nginx; the others
        // were computed by hand from its rule.
        assert_eq!(letters(&[5, 1, 1]), "aabacaa");
        assert_eq!(letters(&[2, 1]), "aba");
        assert_eq!(letters(&[4, 3, 2]), "abcabacba");
        assert_eq!(letters(&[1, 1, 1]), "abc");
    }

    #[test]
    fn a_common_divisor_changes_nothing() {
        assert_eq!(letters(&[500, 100, 100]), letters(&[5, 1, 1]));
        assert_eq!(cycle(&[1_000_000; 1000]).unwrap().len(), 1000);
    }

    #[test]
    fn each_has_its_exact_share_of_a_cycle() {
        let weights = [7, 3, 11, 1, 64];
        let mut counts = [0; 5];
        cycle(&weights)
            .unwrap()
            .iter()
            .for_each(|&index| counts[index as usize] += 1);
        assert_eq!(counts, weights);
    }

    #[test]
    fn long_cycles_are_declined() {
        assert!(cycle(&[1_000_000, 999_999]).is_none());
        let many: Vec<u32> = (1..=2000).collect();
        assert!(cycle(&many).is_none());
        assert!(cycle(&[]).unwrap().is_empty());
    }
}
