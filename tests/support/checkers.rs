//! Health checks whose results are known.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll::{Error, ErrorKind, HealthChecker, Instance, Result};
use tokio::time::Instant;

/// Fails for the ids it is told to; records every check.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted(Arc<State>);

#[derive(Debug, Default)]
struct State {
    sick: Mutex<HashSet<String>>,
    hanging: Mutex<HashSet<String>>,
    panicking: Mutex<HashSet<String>>,
    checks: Mutex<HashMap<String, Vec<Instant>>>,
    /// How long each check takes.
    takes: Mutex<Duration>,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Scripted {
    pub(crate) fn fail(&self, id: &str) {
        self.0.sick.lock().unwrap().insert(id.to_owned());
    }

    pub(crate) fn hang(&self, id: &str) {
        self.0.hanging.lock().unwrap().insert(id.to_owned());
    }

    pub(crate) fn panic(&self, id: &str) {
        self.0.panicking.lock().unwrap().insert(id.to_owned());
    }

    pub(crate) fn mend(&self, id: &str) {
        for ids in [&self.0.sick, &self.0.hanging, &self.0.panicking] {
            ids.lock().unwrap().remove(id);
        }
    }

    pub(crate) fn take(&self, time: Duration) {
        *self.0.takes.lock().unwrap() = time;
    }

    /// When `id` was checked.
    pub(crate) fn checks(&self, id: &str) -> Vec<Instant> {
        self.0
            .checks
            .lock()
            .unwrap()
            .get(id)
            .cloned()
            .unwrap_or_default()
    }

    /// The most checks that ran at once.
    pub(crate) fn most_running(&self) -> usize {
        self.0.most_running.load(Ordering::SeqCst)
    }

    /// The checks under way.
    pub(crate) fn running(&self) -> usize {
        self.0.running.load(Ordering::SeqCst)
    }
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl HealthChecker for Scripted {
    async fn check(&self, instance: &Instance, _limit: Duration) -> Result<()> {
        let state = &*self.0;
        let id = instance.id().as_str();
        let running = state.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&state.running);
        state.most_running.fetch_max(running, Ordering::SeqCst);
        state
            .checks
            .lock()
            .unwrap()
            .entry(id.to_owned())
            .or_default()
            .push(Instant::now());
        let takes = *state.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        assert!(
            !state.panicking.lock().unwrap().contains(id),
            "told to panic"
        );
        if state.hanging.lock().unwrap().contains(id) {
            std::future::pending::<()>().await;
        }
        if state.sick.lock().unwrap().contains(id) {
            return Err(Error::new(ErrorKind::Unavailable, "told to fail"));
        }
        Ok(())
    }
}
