//! What is known of the other end of a connection, which need not be a server.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Whether requests for progress are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Unknown,
    Answers,
    Ignores,
}

/// One answer may be late by chance.
const LATE: u8 = 2;

/// What is known of the other end of a connection, shared by all streams on it.
#[derive(Debug, Default)]
pub(crate) struct Habits {
    /// 0: not known; 1: requests for progress are answered; 2: they are not.
    progress: AtomicU8,
    /// When the last read was sent that was answered.
    read: Mutex<Option<Instant>>,
    /// How many keepalives in a row were not answered in time on a stream that had answered one.
    late: AtomicU8,
}

impl Habits {
    /// A keepalive that was not the first of its stream was answered in time, or was not.
    pub(crate) fn answered_lease(&self, in_time: bool) {
        let late = self.late.load(Ordering::Relaxed).saturating_add(1);
        self.late
            .store(if in_time { 0 } else { late }, Ordering::Relaxed);
    }

    /// Whether each stream of keepalives is to be asked once.
    pub(crate) fn answers_late(&self) -> bool {
        self.late.load(Ordering::Relaxed) >= LATE
    }

    /// Whether requests for progress are answered.
    pub(crate) fn progress(&self) -> Progress {
        match self.progress.load(Ordering::Relaxed) {
            0 => Progress::Unknown,
            1 => Progress::Answers,
            _ => Progress::Ignores,
        }
    }

    /// A request for progress was answered, or something else was though that was not.
    pub(crate) fn answers_progress(&self, answers: bool) {
        let progress = if answers { 1 } else { 2 };
        self.progress.store(progress, Ordering::Relaxed);
    }

    /// When the last read was sent that was answered.
    pub(crate) fn last_read(&self) -> Option<Instant> {
        // A panic while the lock was held cannot have left it half changed.
        *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read that was sent then was answered.
    pub(crate) fn was_read(&self, sent: Instant) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        *read = (*read).max(Some(sent));
    }
}
