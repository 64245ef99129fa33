//! A registry that says what it is told to say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use plimsoll::{
    Capabilities, Error, ErrorKind, Freshness, Incarnation, Instance, InstanceId, LoadHandle,
    Member, Registration, RegistrationState, Registry, Result, Revision, ServiceName, Snapshot,
    Watch,
};
use plimsoll_discovery_api::{Flush, LoadGauge, RegistrationControl};
use tokio::sync::watch;

type States = watch::Sender<Option<Arc<Snapshot>>>;

/// Holds one service, `s`: what the test publishes, or what is registered. Records what is asked
/// of it.
#[derive(Clone, Debug)]
pub(crate) struct ScriptedRegistry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    states: Mutex<Option<States>>,
    registered: Mutex<BTreeMap<InstanceId, Member>>,
    counter: AtomicU64,
    log: Mutex<Vec<String>>,
    /// Whether deregistering is never confirmed.
    hangs: AtomicBool,
    capabilities: Mutex<Capabilities>,
}

impl ScriptedRegistry {
    /// A registry that has not answered yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            states: Mutex::new(Some(watch::Sender::new(None))),
            registered: Mutex::default(),
            counter: AtomicU64::new(0),
            log: Mutex::default(),
            hangs: AtomicBool::new(false),
            capabilities: Mutex::new(Capabilities::new("scripted")),
        }))
    }

    /// A registry that holds `members`.
    pub(crate) fn with(members: &[Member]) -> Self {
        let registry = Self::new();
        registry.publish(members);
        registry
    }

    pub(crate) fn arc(&self) -> Arc<dyn Registry> {
        Arc::new(self.clone())
    }

    /// Says that these are the members now.
    pub(crate) fn publish(&self, members: &[Member]) {
        self.0.publish(members.iter().cloned(), Freshness::Live);
    }

    /// Says that nothing has been heard of the registry for a while.
    pub(crate) fn publish_stale(&self, members: &[Member], freshness: Freshness) {
        self.0.publish(members.iter().cloned(), freshness);
    }

    /// Has these capabilities for whoever asks from now on.
    pub(crate) fn set_capabilities(&self, capabilities: Capabilities) {
        *self.0.capabilities.lock().unwrap() = capabilities;
    }

    /// Stops for good.
    pub(crate) fn close(&self) {
        *self.0.states.lock().unwrap() = None;
    }

    /// Never confirms a deregistration from now on.
    pub(crate) fn hang(&self) {
        self.0.hangs.store(true, Ordering::SeqCst);
    }

    /// What was asked, in order.
    pub(crate) fn log(&self) -> Vec<String> {
        self.0.log.lock().unwrap().clone()
    }

    /// What is registered now.
    pub(crate) fn registered(&self) -> Vec<Member> {
        self.0
            .registered
            .lock()
            .unwrap()
            .values()
            .cloned()
            .collect()
    }

    /// How many watches are held.
    pub(crate) fn watchers(&self) -> usize {
        self.0
            .states
            .lock()
            .unwrap()
            .as_ref()
            .map_or(0, States::receiver_count)
    }
}

impl Inner {
    fn publish(&self, members: impl IntoIterator<Item = Member>, freshness: Freshness) {
        let revision = Revision::new(1, self.counter.fetch_add(1, Ordering::SeqCst));
        let snapshot = Snapshot::new(service(), members, revision).with_freshness(freshness);
        if let Some(states) = &*self.states.lock().unwrap() {
            states.send_replace(Some(Arc::new(snapshot)));
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<InstanceId, Member>)) {
        let mut registered = self.registered.lock().unwrap();
        change(&mut registered);
        self.publish(registered.values().cloned(), Freshness::Live);
    }

    fn note(&self, what: &str, instance: &Instance) {
        self.log
            .lock()
            .unwrap()
            .push(format!("{what} {} {}", instance.id(), instance.status()));
    }
}

fn service() -> ServiceName {
    ServiceName::new("s").unwrap()
}

/// The registration of a service `waits` is never answered, and that of `refused` is refused.
#[async_trait]
impl Registry for ScriptedRegistry {
    fn capabilities(&self) -> Capabilities {
        *self.0.capabilities.lock().unwrap()
    }

    async fn register(&self, instance: Instance) -> Result<Registration> {
        let inner = Arc::clone(&self.0);
        inner.note("register", &instance);
        let incarnation = Incarnation::random();
        let gauge = Arc::new(LoadGauge::new());
        let member = Member::new(Arc::new(instance.clone()), incarnation, Arc::default());
        inner.change(|all| drop(all.insert(instance.id().clone(), member)));
        let state = match instance.service().as_str() {
            "waits" => RegistrationState::Pending { cause: None },
            "refused" => RegistrationState::Pending {
                cause: Some(Error::new(ErrorKind::Unauthenticated, "nobody knows you")),
            },
            _ => RegistrationState::Live { incarnation },
        };
        let (states, followed) = watch::channel(state);
        let control = Control {
            inner,
            instance: Mutex::new(Arc::new(instance)),
            states,
        };
        let load = LoadHandle::new(gauge, Arc::new(NoFlush));
        Ok(Registration::new(Box::new(control), followed, load))
    }

    async fn watch(&self, _: &ServiceName) -> Result<Watch> {
        let states = self.0.states.lock().unwrap();
        let Some(states) = &*states else {
            return Err(Error::new(ErrorKind::Closed, "stopped for good"));
        };
        Ok(Watch::new(states.subscribe(), Arc::new(())))
    }

    async fn list(&self, _: &ServiceName) -> Result<Snapshot> {
        let members = self.registered();
        Ok(Snapshot::new(service(), members, Revision::default()))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(vec![service()])
    }
}

#[derive(Debug)]
struct NoFlush;

#[async_trait]
impl Flush for NoFlush {
    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Control {
    inner: Arc<Inner>,
    instance: Mutex<Arc<Instance>>,
    states: watch::Sender<RegistrationState>,
}

impl Control {
    fn remove(&self) {
        let id = self.instance().id().clone();
        self.inner.change(|all| drop(all.remove(&id)));
    }
}

#[async_trait]
impl RegistrationControl for Control {
    fn instance(&self) -> Arc<Instance> {
        Arc::clone(&self.instance.lock().unwrap())
    }

    fn update(&self, instance: Instance) -> Result<()> {
        self.inner.note("update", &instance);
        let instance = Arc::new(instance);
        *self.instance.lock().unwrap() = Arc::clone(&instance);
        self.inner.change(|all| {
            if let Some(member) = all.get_mut(instance.id()) {
                *member = super::changed(member, |_| Instance::clone(&instance));
            }
        });
        Ok(())
    }

    async fn deregister(&self) -> Result<()> {
        self.inner.note("deregister", &self.instance());
        if self.inner.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.remove();
        self.states.send_replace(RegistrationState::Deregistered);
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.inner.note("drop", &self.instance());
        self.remove();
    }
}
