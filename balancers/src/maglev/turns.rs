//! Whose turn it is to claim a slot.

/// Calls `take` with an index into `weights` `count` times: the k-th turn of an index comes at
/// (k - 1/2) / weight, which shares turns out as Webster's method does seats. Equal times go in
/// ascending order. Weights are finite and above 0.
///
/// Indices of equal weight take all their turns together, so what is sorted is their rounds: next
/// to nothing where there are few different weights.
pub(super) fn in_turns(weights: &[f64], count: usize, mut take: impl FnMut(usize)) {
    let mut indices: Vec<usize> = (0..weights.len()).collect();
    indices.sort_by(|&one, &other| weights[one].total_cmp(&weights[other]));
    let classes: Vec<&[usize]> = indices
        .chunk_by(|&one, &other| weights[one] == weights[other])
        .collect();
    // By then each has had its turns but for less than half of one, with room for rounding.
    let due = count as f64 + weights.len() as f64 / 2.0;
    let end = due / weights.iter().sum::<f64>() * (1.0 + 1e-9);
    let class_weights: Vec<f64> = classes.iter().map(|class| weights[class[0]]).collect();
    let rounds = rounds(&class_weights, end);

    let mut left = count;
    let mut together = Vec::new();
    for round in rounds.chunk_by(|one, other| one.time == other.time) {
        let members = if let [only] = round {
            classes[only.class]
        } else {
            together.clear();
            let all = round.iter().flat_map(|round| classes[round.class]);
            together.extend(all.copied());
            together.sort_unstable();
            &together
        };
        let members = &members[..left.min(members.len())];
        members.iter().for_each(|&index| take(index));
        left -= members.len();
    }
    debug_assert_eq!(left, 0, "too few rounds");
}

/// A turn for all indices of one weight.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Round {
    /// The bits of a positive float, which sort like it.
    time: u64,
    class: usize,
}

/// All rounds up to `end`, in order. Times are spread evenly, so each finds its place among many
/// small buckets at once, and only the few that share one have to be compared.
fn rounds(weights: &[f64], end: f64) -> Vec<Round> {
    let times = |weight: f64| {
        let turns = std::iter::successors(Some(0.5), |turn| Some(turn + 1.0));
        turns
            .map(move |turn: f64| turn / weight)
            .take_while(|&time| time <= end)
    };
    let total = weights.iter().sum::<f64>() * end;
    let per_time = total / end;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and not much above the number of turns"
    )]
    let bucket = |time: f64| (time * per_time) as usize;

    let mut starts = vec![0_usize; bucket(end) + 2];
    for &weight in weights {
        times(weight).for_each(|time| starts[bucket(time) + 1] += 1);
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut rounds = vec![Round::default(); sum];
    for (class, &weight) in weights.iter().enumerate() {
        for time in times(weight) {
            let place = &mut starts[bucket(time)];
            let time = time.to_bits();
            rounds[*place] = Round { time, class };
            *place += 1;
        }
    }
    // Each bucket now starts where the next did.
    let mut from = 0;
    for to in starts {
        rounds[from..to].sort_unstable();
        from = to;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[f64], count: usize) -> Vec<usize> {
        let mut turns = Vec::new();
        in_turns(weights, count, |index| turns.push(index));
        turns
    }

    /// By comparing all that are due, one turn after the other.
    fn one_by_one(weights: &[f64], count: usize) -> Vec<usize> {
        let mut taken = vec![0.5; weights.len()];
        let mut next = || {
            let due = |index: &usize| (taken[*index] / weights[*index]).to_bits();
            let index = (0..weights.len()).min_by_key(due).unwrap();
            taken[index] += 1.0;
            index
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn turns_come_in_the_order_of_their_times_and_then_of_indices() {
        let mixed = |n: u32| f64::from(n.wrapping_mul(2_654_435_761) % 1_000_000 + 1);
        let sets: [Vec<f64>; 8] = [
            vec![1.0],
            vec![7.0; 20],
            // At 1/2 all three meet.
            vec![1.0, 3.0, 1.0, 5.0],
            vec![1e6, 1.0, 1.0],
            (0..50).map(|n| f64::from(n % 10 + 1)).collect(),
            (0..50).map(mixed).collect(),
            (0..300).map(|n| f64::from(1_000_000 - n)).collect(),
            vec![0.1, 1e-9, 3e8],
        ];
        for weights in sets {
            for count in [0, 1, weights.len(), 1009] {
                assert_eq!(
                    turns(&weights, count),
                    one_by_one(&weights, count),
                    "{count} of {weights:?}"
                );
            }
        }
    }

    #[test]
    fn equal_weights_take_turns_in_order() {
        assert_eq!(turns(&[2.0; 3], 7), [0, 1, 2, 0, 1, 2, 0]);
    }
}
