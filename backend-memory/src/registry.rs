//! The registry as users meet it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use plimsoll_backend_kit::{Backend, RegistryUrl, Timings};
use plimsoll_discovery_api::{Error, ErrorKind, Result, Rng};

use crate::Faults;
use crate::driver::MemoryDriver;
use crate::store::Store;

/// A registry within this process.
///
/// Clones are one handle; [`sibling`](Self::sibling) gives a further one, as another process
/// would have. Needs a tokio runtime.
#[derive(Clone, Debug)]
pub struct MemoryRegistry(Backend<MemoryDriver>);

impl MemoryRegistry {
    /// A new, empty registry of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Settings for a new registry.
    pub fn builder() -> MemoryRegistryBuilder {
        MemoryRegistryBuilder {
            store: None,
            timings: default_timings(),
            seed: None,
        }
    }

    /// The registry of this name in this process: the one that is there, or a new one. It is gone
    /// when the last handle on it is.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::builder().with_name(name).build()
    }

    /// The registry of a URL such as `memory://name?load_interval=50ms`. Without a name it is one
    /// of its own.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the part that has no meaning here.
    pub fn from_url(url: &RegistryUrl) -> Result<Self> {
        let superfluous = |what| {
            Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("a memory registry has no {what}"),
            ))
        };
        if url.scheme() != "memory" {
            return Err(Error::new(ErrorKind::InvalidConfig, "not a memory:// URL")
                .with_context("scheme", url.scheme()));
        }
        if url.user().is_some() {
            return superfluous("user");
        }
        if url.hosts().len() > 1 || !url.path().is_empty() {
            return superfluous("path and no second name");
        }
        let mut builder = Self::builder();
        if let [name] = url.hosts() {
            builder = builder.with_name(name);
        }
        let mut options = url.options();
        if let Some(interval) = options.take_duration("load_interval")? {
            builder = builder.with_load_interval(interval);
        }
        options.finish()?;
        Ok(builder.build())
    }

    /// A further handle on the same registry, as another process would have: nothing is shared
    /// but what the registry holds.
    #[must_use]
    pub fn sibling(&self) -> Self {
        let driver = self.0.driver();
        let store = Arc::clone(&driver.store);
        let timings = driver.timings;
        Self(Backend::new(MemoryDriver { store, timings }))
    }

    /// Injects faults into the registry.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults(Arc::clone(&self.0.driver().store))
    }
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

/// Settings of a [`MemoryRegistry`].
#[derive(Debug)]
#[must_use]
pub struct MemoryRegistryBuilder {
    store: Option<Arc<Store>>,
    timings: Timings,
    seed: Option<u64>,
}

impl MemoryRegistryBuilder {
    /// Shares what the registry holds with every handle of this name in the process. Default: a
    /// registry of its own.
    pub fn with_name(mut self, name: &str) -> Self {
        self.store = Some(named_store(name));
        self
    }

    /// The shortest time between two publications of a load. Default: 100 ms: within a burst that
    /// short, clients go by their own counts, which no server's report can keep up with.
    pub fn with_load_interval(mut self, interval: Duration) -> Self {
        self.timings.load.min_interval = interval;
        self.timings.load.settle = interval;
        self.timings.load.max_age = self.timings.load.max_age.max(interval);
        self
    }

    /// Changes how this handle times what it does.
    pub fn with_timings(mut self, change: impl FnOnce(&mut Timings)) -> Self {
        change(&mut self.timings);
        self
    }

    /// Draws all jitter from `seed`, for tests that must repeat. Default: from the operating
    /// system's entropy.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes the handle.
    #[must_use]
    pub fn build(self) -> MemoryRegistry {
        let store = self.store.unwrap_or_else(|| Arc::new(Store::new()));
        let driver = MemoryDriver {
            store,
            timings: self.timings,
        };
        let rng = self.seed.map_or_else(Rng::from_entropy, Rng::from_seed);
        MemoryRegistry(Backend::with_rng(driver, rng))
    }
}

/// Nothing here crosses a network, so everything is prompt; and a record lives as long as its
/// owner, so there is no lease.
fn default_timings() -> Timings {
    let mut timings = Timings::default();
    timings.lease = None;
    timings.backoff.base = Duration::from_millis(20);
    timings.backoff.cap = Duration::from_secs(1);
    timings.coalesce = Duration::from_millis(5);
    timings.conflict_retry = Duration::from_millis(500);
    timings.load.min_interval = Duration::from_millis(100);
    timings.load.absolute = 1;
    timings.load.relative = 0.0;
    timings.load.settle = Duration::from_millis(100);
    timings
}

fn named_store(name: &str) -> Arc<Store> {
    static NAMED: OnceLock<Mutex<HashMap<String, Weak<Store>>>> = OnceLock::new();
    let named = NAMED.get_or_init(Mutex::default);
    let mut named = named.lock().unwrap_or_else(PoisonError::into_inner);
    named.retain(|_, store| store.strong_count() > 0);
    if let Some(store) = named.get(name).and_then(Weak::upgrade) {
        return store;
    }
    let store = Arc::new(Store::new());
    named.insert(name.to_owned(), Arc::downgrade(&store));
    store
}

plimsoll_backend_kit::delegate_registry!(MemoryRegistry);
