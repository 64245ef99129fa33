//! One life of a registration, as the keeper keeps it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Incarnation};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::http::wire::Registration;
use crate::keys::Names;
use crate::owner_lock::Held;

/// A registration that stands: the driver's claim.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) names: Names,
    pub(crate) incarnation: Incarnation,
    /// The session that holds its owner lock.
    pub(crate) session: Arc<str>,
    /// One writer at a time, so that its writes are a chain.
    pub(crate) held: tokio::sync::Mutex<Held>,
    /// One registration at a time, so that the later one stands.
    pub(crate) writing: tokio::sync::Mutex<()>,
    last_pass: Mutex<LastPass>,
    gone: watch::Sender<Option<Error>>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct LastPass {
    /// When the last pass that succeeded was begun.
    passed: Instant,
    /// Why the last one failed, if it did.
    failure: Option<Error>,
}

#[derive(Debug)]
struct Written {
    registration: Arc<Registration>,
    /// Until when a registration that was given up on may still arrive and replace this one.
    in_doubt: Option<Instant>,
}

impl Life {
    pub(crate) fn new(
        names: Names,
        incarnation: Incarnation,
        session: Arc<str>,
        held: Held,
        registration: Arc<Registration>,
        passed: Instant,
    ) -> Self {
        Self {
            names,
            incarnation,
            session,
            held: tokio::sync::Mutex::new(held),
            writing: tokio::sync::Mutex::default(),
            last_pass: Mutex::new(LastPass {
                passed,
                failure: None,
            }),
            gone: watch::Sender::new(None),
            written: Mutex::new(Written {
                registration,
                in_doubt: None,
            }),
        }
    }

    /// The last pass, by its start, and why there was none since.
    pub(crate) fn last_pass(&self) -> (Instant, Option<Error>) {
        let last = self
            .last_pass
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (last.passed, last.failure.clone())
    }

    /// Whether the check wants a pass between two rhythmic beats: the last one is older than
    /// `fresh`, or has failed in a way that another attempt may cure.
    pub(crate) fn wants_a_pass(&self, fresh: Duration) -> bool {
        let (passed, failure) = self.last_pass();
        failure.map_or_else(
            || passed.elapsed() >= fresh,
            |failure| failure.is_retryable(),
        )
    }

    pub(crate) fn passed(&self, at: Instant) {
        let mut last = self
            .last_pass
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last.passed = last.passed.max(at);
        last.failure = None;
    }

    pub(crate) fn failed(&self, failure: Error) {
        let mut last = self
            .last_pass
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last.failure = Some(failure);
    }

    /// Ends this life; the first cause stands.
    pub(crate) fn end(&self, why: &str, cause: Option<Error>) {
        let error = Error::new(ErrorKind::LeaseExpired, why)
            .with_context("service id", self.names.service_id.clone());
        let error = match cause {
            Some(cause) => error.with_source(cause),
            None => error,
        };
        self.gone.send_if_modified(|gone| {
            let first = gone.is_none();
            if first {
                *gone = Some(error);
            }
            first
        });
    }

    pub(crate) fn ended(&self) -> Option<Error> {
        self.gone.borrow().clone()
    }

    /// Returns once this life has ended.
    pub(crate) async fn end_of(&self) -> Error {
        let mut gone = self.gone.subscribe();
        loop {
            let cause = gone.borrow_and_update().clone();
            if let Some(cause) = cause {
                return cause;
            }
            // Never an error: the sender is this life's own.
            let _changed = gone.changed().await;
        }
    }

    pub(crate) fn written(&self) -> Arc<Registration> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&written.registration)
    }

    pub(crate) fn wrote(&self, registration: Arc<Registration>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.registration = registration;
    }

    /// A registration may be on its way that is older than what was written last.
    pub(crate) fn doubt(&self, until: Instant) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.in_doubt = Some(until);
    }

    pub(crate) fn is_in_doubt(&self, now: Instant) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.in_doubt.is_some_and(|until| now < until)
    }

    /// Whether the agent says of the service what was written last.
    pub(crate) fn is_as_written(&self, meta: &BTreeMap<String, String>) -> bool {
        self.written().meta == *meta
    }
}
