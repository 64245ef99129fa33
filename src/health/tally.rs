//! From results to verdicts.

use plimsoll_discovery_api::Health;

/// Counts equal results in a row.
#[derive(Debug, Default)]
pub(super) struct Tally {
    last: bool,
    in_a_row: u32,
}

impl Tally {
    /// Takes in one result; returns the verdict if enough in a row agree.
    pub(super) fn record(&mut self, succeeded: bool, rise: u32, fall: u32) -> Option<Health> {
        self.in_a_row = if succeeded == self.last {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.last = succeeded;
        match succeeded {
            true if self.in_a_row >= rise => Some(Health::Healthy),
            false if self.in_a_row >= fall => Some(Health::Unhealthy),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_takes_as_many_in_a_row_as_it_says_and_an_opposite_starts_again() {
        let mut tally = Tally::default();
        let mut record = |results: &str| -> Vec<Option<Health>> {
            results
                .chars()
                .map(|c| tally.record(c == '+', 2, 3))
                .collect()
        };
        let (up, down) = (Some(Health::Healthy), Some(Health::Unhealthy));
        assert_eq!(record("--"), [None, None]);
        assert_eq!(record("+--"), [None, None, None]);
        assert_eq!(record("--"), [down, down]);
        assert_eq!(record("+-+"), [None, None, None]);
        assert_eq!(record("++"), [up, up]);
    }

    #[test]
    fn one_is_enough_where_one_is_asked_for() {
        let mut tally = Tally::default();
        assert_eq!(tally.record(false, 1, 1), Some(Health::Unhealthy));
        assert_eq!(tally.record(true, 1, 1), Some(Health::Healthy));
    }
}
