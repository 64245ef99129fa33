//! Drawing in proportion to weights in constant time.

use plimsoll_discovery_api::Rng;

/// Walker's alias table, built by Vose's method: n columns of equal width, each shared by at most
/// two indices ([Vose 1991](https://doi.org/10.1109/32.92917)).
#[derive(Debug)]
pub(crate) struct AliasTable(Box<[Column]>);

#[derive(Clone, Copy, Debug)]
struct Column {
    /// How much of the column is its own index's, in units of 2^-64; the rest is `other`'s.
    own: u64,
    other: u32,
}

impl AliasTable {
    /// For `weights`, each finite and above 0.
    pub(crate) fn new(weights: &[f64]) -> Self {
        let width = weights.iter().sum::<f64>() / weights.len() as f64;
        let mut left: Vec<f64> = weights.iter().map(|weight| weight / width).collect();
        let whole = |index| Column {
            own: u64::MAX,
            other: column(index),
        };
        let mut columns: Box<[Column]> = (0..weights.len()).map(whole).collect();
        let (mut short, mut long): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&index| left[index] < 1.0);
        while let (Some(&little), Some(&large)) = (short.last(), long.last()) {
            short.pop();
            columns[little] = Column {
                own: fraction(left[little]),
                other: column(large),
            };
            left[large] -= 1.0 - left[little];
            if left[large] < 1.0 {
                long.pop();
                short.push(large);
            }
        }
        // What remains on either side is a full column but for rounding.
        Self(columns)
    }

    /// One draw from `rng`. The high half of 64 random bits times n is the column, the low half
    /// the place in it: each is uniform to within n / 2^64.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut Rng) -> usize {
        let wide = u128::from(rng.next_u64()) * self.0.len() as u128;
        #[expect(clippy::cast_possible_truncation, reason = "both halves have 64 bits")]
        let (index, place) = ((wide >> 64) as usize, wide as u64);
        let column = self.0[index];
        if place < column.own {
            index
        } else {
            column.other as usize
        }
    }
}

/// `part`, from 0 to 1, in units of 2^-64; the conversion saturates.
fn fraction(part: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    let units = (part * 2.0_f64.powi(64)) as u64;
    units
}

fn column(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_shares;

    /// The exact probability of each index, from the columns.
    fn shares(table: &AliasTable) -> Vec<f64> {
        let n = table.0.len();
        let mut shares = vec![0.0; n];
        for (index, column) in table.0.iter().enumerate() {
            let own = column.own as f64 / 2.0_f64.powi(64);
            shares[index] += own / n as f64;
            shares[column.other as usize] += (1.0 - own) / n as f64;
        }
        shares
    }

    #[test]
    fn columns_add_up_to_the_weights() {
        let sets: [&[f64]; 6] = [
            &[1.0],
            &[1.0, 1.0],
            &[1.0, 1_000_000.0],
            &[3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0],
            &[0.1; 7],
            &[1e-300, 1.0, 1e19],
        ];
        for weights in sets {
            let total: f64 = weights.iter().sum();
            for (share, weight) in shares(&AliasTable::new(weights)).iter().zip(weights) {
                assert!(
                    (share - weight / total).abs() < 1e-12,
                    "{weights:?}: {share}"
                );
            }
        }
    }

    #[test]
    fn draws_follow_the_weights() {
        let weights: Vec<f64> = (1..=50).map(f64::from).collect();
        let table = AliasTable::new(&weights);
        let mut rng = Rng::from_seed(8);
        let mut counts = vec![0; weights.len()];
        (0..200_000).for_each(|_| counts[table.draw(&mut rng)] += 1);
        assert_shares(&counts, &weights);
    }
}
