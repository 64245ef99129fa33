//! What the harnesses of the conformance suite have in common.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_backend_kit::Timings;
use plimsoll_discovery_api::Registry;
use plimsoll_discovery_api::conformance::Timing;

use crate::{Mode, Proxy};

/// A proxy before each handle, all of which an outage befalls at one time.
#[derive(Debug)]
pub struct Gates {
    proxies: Mutex<Vec<Arc<Proxy>>>,
    outage: Mode,
    down: AtomicBool,
}

impl Gates {
    /// None yet; `outage` is what befalls them.
    #[must_use]
    pub const fn new(outage: Mode) -> Self {
        Self {
            proxies: Mutex::new(Vec::new()),
            outage,
            down: AtomicBool::new(false),
        }
    }

    /// One more, before `server`; during an outage it does not pass either.
    pub fn open(&self, server: SocketAddr) -> Arc<Proxy> {
        let mode = if self.are_down() {
            self.outage
        } else {
            Mode::Pass
        };
        let proxy = Arc::new(Proxy::start(server, mode));
        self.lock().push(Arc::clone(&proxy));
        proxy
    }

    /// Whether there is an outage.
    #[must_use]
    pub fn are_down(&self) -> bool {
        self.down.load(Ordering::SeqCst)
    }

    /// Begins the outage.
    pub fn outage(&self) {
        self.set(true, self.outage);
    }

    /// Ends it.
    pub fn restore(&self) {
        self.set(false, Mode::Pass);
    }

    fn set(&self, down: bool, mode: Mode) {
        self.down.store(down, Ordering::SeqCst);
        self.all().iter().for_each(|proxy| proxy.set(mode));
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Proxy>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Proxy>>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same registry behind three pointers, each of which is one.
#[must_use]
pub fn nested(registry: Arc<dyn Registry>) -> Arc<dyn Registry> {
    let boxed: Box<dyn Registry> = Box::new(registry);
    Arc::new(Arc::new(boxed))
}

/// Times a handle for tests: loads that age fast, a grace that can be waited out.
pub const fn hasten(timings: &mut Timings, grace: Duration) {
    timings.load.min_interval = Duration::from_millis(50);
    timings.load.absolute = 1;
    timings.load.settle = Duration::from_millis(50);
    timings.load.max_age = Duration::from_secs(1);
    timings.backoff.cap = Duration::from_millis(500);
    timings.conflict_retry = Duration::from_millis(500);
    timings.hold_down.grace = grace;
    timings.deregister_timeout = Duration::from_secs(3);
}

/// Ceilings for a busy machine, short where a case waits in full, where a silent owner is taken for
/// gone after `expiry`.
#[must_use]
pub fn timing(expiry: Duration) -> Timing {
    Timing::new(Duration::from_secs(8))
        .with_quiet(Duration::from_millis(300))
        .with_detection(Duration::from_secs(6))
        .with_expiry(expiry)
        .with_recovery(Duration::from_secs(13))
        .with_removal(Duration::from_secs(5))
        .with_grace(expiry + Duration::from_secs(7))
        .with_rounds(8)
}
