//! Whether the registry still is the one that was known.

use std::sync::{Mutex, MutexGuard, PoisonError};

use etcd_client::ResponseHeader;
use plimsoll_discovery_api::{Error, ErrorKind, Result, Revision};

/// What has been seen of the registry's history, by linearizable reads and writes alone.
///
/// Such a request sees all that was acknowledged before it was sent, so an answer of another
/// cluster, of a lower revision or of an earlier term is of another history: the data was restored
/// from a backup, or lost. A member that merely lags cannot give such an answer.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How many histories have been seen.
    number: u64,
    cluster: u64,
    revision: u64,
    term: u64,
}

impl History {
    /// What is known now: to be asked before a request is sent.
    pub(crate) fn known(&self) -> Seen {
        *self.lock()
    }

    /// Where the answer to a linearizable request stands, before which `before` was known.
    ///
    /// # Errors
    /// `Unavailable` if the history changed while the request was under way.
    pub(crate) fn place(&self, before: Seen, header: Option<&ResponseHeader>) -> Result<Revision> {
        let header = header
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the server's answer has no header"))?;
        let answer = (header.cluster_id(), header.revision(), header.raft_term());
        let (seen, revision) = self.take(before, answer)?;
        if before.number != 0 && seen.number != before.number {
            tracing::warn!(
                cluster = format!("{:x}", seen.cluster),
                revision = seen.revision,
                was_cluster = format!("{:x}", before.cluster),
                was_revision = before.revision,
                "etcd has begun a new history: its data was exchanged or lost"
            );
        }
        Ok(revision)
    }

    /// A stream of the history `of` has told what was done at `revision`: whoever asks from now on
    /// must be told no less.
    pub(crate) fn note(&self, of: Seen, revision: Revision) {
        let mut seen = self.lock();
        if seen.number == of.number {
            seen.revision = seen.revision.max(revision.counter());
        }
    }

    /// Whether what a stream tells that was opened in the history `of` still counts.
    ///
    /// A stream lasts while others connect elsewhere, and nothing it says need show that another
    /// history has begun there. All that follow one registry must follow the same.
    ///
    /// # Errors
    /// `Unavailable` if it does not.
    pub(crate) fn check(&self, of: Seen) -> Result<()> {
        if self.lock().number == of.number {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the registry has begun a new history elsewhere",
        ))
    }

    fn take(&self, before: Seen, answer: (u64, i64, u64)) -> Result<(Seen, Revision)> {
        let (cluster, revision, term) = answer;
        let revision = revision.unsigned_abs();
        let mut seen = self.lock();
        // Who knew nothing when it asked cannot tell histories of one cluster apart.
        let before = if before.number == 0 && seen.number != 0 && seen.cluster == cluster {
            Seen {
                number: seen.number,
                cluster,
                ..Seen::default()
            }
        } else {
            before
        };
        if seen.number != before.number {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the registry has begun a new history meanwhile",
            ));
        }
        let other = before.number == 0
            || cluster != before.cluster
            || revision < before.revision
            || term < before.term;
        if other {
            *seen = Seen {
                number: before.number + 1,
                cluster,
                revision,
                term,
            };
        } else {
            seen.revision = seen.revision.max(revision);
            seen.term = seen.term.max(term);
        }
        Ok((*seen, Revision::new(seen.epoch(), revision)))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A panic while the lock was held cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn epoch(self) -> u64 {
        self.cluster ^ (self.number - 1).rotate_left(48)
    }

    /// That `revision`, which was placed earlier, is of this history.
    ///
    /// # Errors
    /// `Unavailable` if another one has begun since.
    pub(crate) fn includes(self, revision: Revision) -> Result<()> {
        if self.epoch() == revision.epoch() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the registry has begun a new history meanwhile",
        ))
    }

    /// Whether `header`, of a stream, is of the same cluster.
    pub(crate) fn is_of(self, header: &ResponseHeader) -> bool {
        self.cluster == header.cluster_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_answer_of_the_same_cluster_is_the_same_history() {
        let history = History::default();
        let first = history.take(history.known(), (7, 10, 2)).unwrap().1;
        let before = history.known();
        let second = history.take(before, (7, 12, 3)).unwrap().1;
        // An answer that overtook the other one on its way back is none the worse for it.
        let overtaken = history.take(before, (7, 11, 3)).unwrap().1;
        assert_eq!(first.epoch(), 7);
        assert!(first.is_before(second) && overtaken.is_before(second));
    }

    #[test]
    fn first_answers_in_any_order_are_of_one_history() {
        let history = History::default();
        let before = history.known();
        let later = history.take(before, (7, 12, 3)).unwrap().1;
        let earlier = history.take(before, (7, 10, 2)).unwrap().1;
        assert!(earlier.is_before(later));
        assert!(history.take(before, (8, 10, 2)).is_err());
    }

    #[test]
    fn another_cluster_a_lower_revision_and_an_earlier_term_are_each_another_history() {
        for answer in [(8, 12, 3), (7, 9, 3), (7, 12, 2)] {
            let history = History::default();
            let first = history.take(history.known(), (7, 10, 3)).unwrap().1;
            let other = history.take(history.known(), answer).unwrap().1;
            assert_ne!(first.epoch(), other.epoch(), "{answer:?}");
            let on = history.take(history.known(), (answer.0, 20, 3)).unwrap().1;
            assert_eq!(on.epoch(), other.epoch(), "{answer:?}");
        }
    }

    #[test]
    fn what_a_stream_has_told_counts_as_seen() {
        let history = History::default();
        let listed = history.take(history.known(), (7, 10, 3)).unwrap().1;
        let of = history.known();
        history.note(of, Revision::new(7, 60));
        let restored = history.take(history.known(), (7, 12, 4)).unwrap().1;
        assert_ne!(listed.epoch(), restored.epoch());
        history.note(of, Revision::new(7, 70));
        let on = history.take(history.known(), (7, 13, 4)).unwrap().1;
        assert_eq!(
            restored.epoch(),
            on.epoch(),
            "a stream of the old history still told"
        );
    }

    #[test]
    fn a_stream_of_the_old_history_counts_no_more() {
        let history = History::default();
        history.take(history.known(), (7, 10, 3)).unwrap();
        let of = history.known();
        history.take(of, (7, 12, 3)).unwrap();
        assert!(history.check(of).is_ok());
        history.take(history.known(), (8, 12, 3)).unwrap();
        assert!(history.check(of).is_err() && history.check(history.known()).is_ok());
    }

    #[test]
    fn an_answer_from_before_the_change_is_refused() {
        let history = History::default();
        history.take(history.known(), (7, 10, 3)).unwrap();
        let before = history.known();
        history.take(before, (7, 1, 2)).unwrap();
        let late = history.take(before, (7, 11, 3)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Unavailable);
    }
}
