//! What is said on the log: each change of state once, and failures in sum.

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_discovery_api::{
    Error, ErrorKind, Freshness, InstanceId, RegistrationState, ServiceName,
};
use tokio::time::Instant;

/// Failures of one cause are told of at most this often, by all that one handle does.
const FAILURES_EVERY: Duration = Duration::from_secs(60);

/// The failures of one handle, which change nothing that is known already.
///
/// The first of a cause is told at once; those that follow within a minute are counted, and told in
/// one line by the first that comes after it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FailureLog(Arc<Mutex<HashMap<Cause, Tally>>>);

/// What fails, and why.
type Cause = (&'static str, ErrorKind);

#[derive(Debug)]
struct Tally {
    told: Instant,
    latest: Instant,
    untold: u64,
}

impl FailureLog {
    /// How many failures are to be told of now, this one among them; `None` while it is too early.
    fn count(&self, cause: Cause) -> Option<u64> {
        // A panic while the lock was held cannot have left a tally half changed.
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let fresh = Tally {
            told: now,
            latest: now,
            untold: 0,
        };
        let Some(tally) = tallies.get_mut(&cause) else {
            tallies.insert(cause, fresh);
            return Some(1);
        };
        if now.duration_since(tally.latest) >= FAILURES_EVERY {
            // Of an earlier time: the line that told of its end has told how many they were.
            *tally = fresh;
            return Some(1);
        }
        tally.latest = now;
        tally.untold += 1;
        if now.duration_since(tally.told) < FAILURES_EVERY {
            return None;
        }
        tally.told = now;
        Some(std::mem::take(&mut tally.untold))
    }

    /// A line has just told of one failure of `cause`; those that were counted before are yet to be.
    fn told(&self, cause: Cause) {
        let now = Instant::now();
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = tallies.get(&cause).map_or(0, |tally| tally.untold);
        let tally = Tally {
            told: now,
            latest: now,
            untold,
        };
        tallies.insert(cause, tally);
    }
}

/// A state with its name, and how bad it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    name: &'static str,
    badness: u8,
}

impl Standing {
    /// Of a watch that the registry has not answered yet.
    pub(crate) const UNKNOWN: Self = Self {
        name: "unknown",
        badness: 2,
    };
}

impl From<&RegistrationState> for Standing {
    fn from(state: &RegistrationState) -> Self {
        let badness = match state {
            RegistrationState::Live { .. } | RegistrationState::Deregistered => 0,
            RegistrationState::Suspect { .. } => 1,
            _ => 2,
        };
        // The one is waited for, the other needs somebody to look at it.
        let name = match state {
            RegistrationState::Conflict { lasting: true, .. } => "conflict that lasts",
            state => state.as_str(),
        };
        Self { name, badness }
    }
}

impl From<Freshness> for Standing {
    fn from(freshness: Freshness) -> Self {
        let badness = u8::from(!freshness.is_live());
        let name = freshness.as_str();
        Self { name, badness }
    }
}

/// Tells how one registration, or one watch, stands.
#[derive(Clone, Debug)]
pub(crate) struct StateLog {
    failures: FailureLog,
    backend: &'static str,
    /// `registration` or `watch`.
    what: &'static str,
    service: ServiceName,
    id: Option<InstanceId>,
    state: Standing,
    since: Instant,
    /// How often something has failed in this state.
    failed: u64,
}

impl StateLog {
    pub(crate) fn of_registration(
        failures: FailureLog,
        backend: &'static str,
        service: ServiceName,
        id: InstanceId,
    ) -> Self {
        let state = Standing::from(&RegistrationState::Pending { cause: None });
        Self::new(failures, backend, "registration", service, Some(id), state)
    }

    pub(crate) fn of_watch(
        failures: FailureLog,
        backend: &'static str,
        service: ServiceName,
    ) -> Self {
        Self::new(failures, backend, "watch", service, None, Standing::UNKNOWN)
    }

    fn new(
        failures: FailureLog,
        backend: &'static str,
        what: &'static str,
        service: ServiceName,
        id: Option<InstanceId>,
        state: Standing,
    ) -> Self {
        Self {
            failures,
            backend,
            what,
            service,
            id,
            state,
            since: Instant::now(),
            failed: 0,
        }
    }

    /// Something led to `state`. One line if that is another than before; a failure that leaves it
    /// as it was counts with its like.
    pub(crate) fn stands(&mut self, state: impl Into<Standing>, cause: Option<&Error>) {
        let state = state.into();
        if state.name == self.state.name {
            if let Some(cause) = cause {
                self.failed(self.what, cause);
            }
            return;
        }
        let (was, is) = (self.state, state);
        let (what, service, id) = (self.what, &self.service, self.id.as_ref());
        let now = Instant::now();
        let lasted = now.duration_since(self.since);
        let id = id.map(tracing::field::display);
        let why = cause.map(|cause| tracing::field::display(Chain(cause)));
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(
                    backend = self.backend,
                    %service,
                    id,
                    was = was.name,
                    ?lasted,
                    failures = self.failed,
                    cause = why,
                    "{what} is {}",
                    is.name
                )
            };
        }
        if is.badness == 0 || is.badness < was.badness {
            tell!(info);
        } else {
            tell!(warn);
        }
        if let Some(cause) = cause {
            self.failures.told((self.what, cause.kind()));
        }
        (self.state, self.since, self.failed) = (state, now, 0);
    }

    /// Something has failed and is tried again, which changes no state; `what` is it that failed.
    pub(crate) fn failed(&mut self, what: &'static str, cause: &Error) {
        self.failed += 1;
        let Some(failures) = self.failures.count((what, cause.kind())) else {
            return;
        };
        let (service, cause) = (&self.service, Chain(cause));
        let id = self.id.as_ref().map(tracing::field::display);
        tracing::warn!(
            backend = self.backend,
            %service,
            id,
            state = self.state.name,
            failures,
            %cause,
            "{what} fails; trying again"
        );
    }
}

/// `text` without what would end a line, or act on a terminal: strangers may have written it.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.into()
}

/// An error on one line, with what caused it.
struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {}", one_line(&cause.to_string()))?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_line_with_every_cause() {
        let inner = std::io::Error::other("os\nsays no");
        let error = Error::new(ErrorKind::Unavailable, "not connected").with_source(inner);
        let text = Chain(&error).to_string();
        assert_eq!(text, "unavailable: not connected: os\\nsays no");
    }

    #[tokio::test(start_paused = true)]
    async fn of_each_cause_one_failure_a_minute_is_told_and_none_is_forgotten() {
        let log = FailureLog::default();
        let (one, other) = (("a", ErrorKind::Unavailable), ("a", ErrorKind::TimedOut));
        let mut told = Vec::new();
        for second in 0..=180_u64 {
            told.extend(log.count(one).map(|count| (second, count)));
            if second == 30 {
                assert_eq!(log.count(other), Some(1), "another cause");
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, [(0, 1), (60, 60), (120, 60), (180, 60)]);
        tokio::time::advance(2 * FAILURES_EVERY).await;
        assert_eq!(log.count(one), Some(1), "another time");
        assert_eq!((log.count(one), log.count(one)), (None, None));
        log.told(one);
        tokio::time::advance(FAILURES_EVERY / 2).await;
        assert_eq!(log.count(one), None);
        tokio::time::advance(FAILURES_EVERY / 2).await;
        assert_eq!(log.count(one), Some(4), "with those from before the line");
    }
}
