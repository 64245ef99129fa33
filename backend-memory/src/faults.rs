//! Faults, to be injected by tests.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use plimsoll_backend_kit::{Departure, Record, encode, escape};
use plimsoll_discovery_api::{ErrorKind, Incarnation, Instance, InstanceId, Result, ServiceName};

use crate::plan::Mode;
use crate::store::Store;

/// Injects faults into a [`MemoryRegistry`](crate::MemoryRegistry), for tests of your own.
///
/// A handle on the whole registry: a fault strikes every handle on it. Cheap to clone.
#[derive(Clone)]
pub struct Faults(pub(crate) Arc<Store>);

impl Faults {
    /// The registry becomes unreachable: every call is refused, every stream breaks. What it
    /// holds is kept.
    pub fn outage(&self) {
        self.0.mode.send_replace(Mode::Down);
    }

    /// The registry falls silent: calls wait and streams say nothing, as with a stopped process
    /// or a network that swallows packets.
    pub fn hang(&self) {
        self.0.mode.send_replace(Mode::Hung);
    }

    /// Ends an [`outage`](Self::outage) or [`hang`](Self::hang).
    pub fn restore(&self) {
        self.0.mode.send_replace(Mode::Up);
    }

    /// Ends the lease of `id`: its entry goes unannounced, and its owner learns of it. Returns
    /// whether it was there.
    pub fn expire(&self, service: &ServiceName, id: &InstanceId) -> bool {
        self.0
            .lock()
            .remove(service, &escape(id.as_str()), Departure::Unannounced)
    }

    /// Ends the lease of every instance of `service`. Returns how many there were.
    pub fn expire_all(&self, service: &ServiceName) -> usize {
        let mut content = self.0.lock();
        let keys = content.keys(service);
        for key in &keys {
            content.remove(service, key, Departure::Unannounced);
        }
        keys.len()
    }

    /// Kills the owner of `id`, as far as the registry can tell: its entry goes unannounced, and
    /// it cannot reach the registry until [`revive`](Self::revive). Another owner may take the id
    /// meanwhile. Returns whether it was there.
    pub fn crash(&self, service: &ServiceName, id: &InstanceId) -> bool {
        self.0.lock().crash(service, &escape(id.as_str()))
    }

    /// Reconnects every owner of `id` that [`crash`](Self::crash) cut off.
    pub fn revive(&self, service: &ServiceName, id: &InstanceId) {
        let key = escape(id.as_str());
        let crashed = &mut self.0.lock().plan.crashed;
        crashed.retain(|_, owner| owner.service != *service || owner.key != key);
    }

    /// The registry loses everything and begins a new history.
    pub fn wipe(&self) {
        self.0.lock().wipe();
    }

    /// Every stream of changes ends, as after a compaction; all must be read again.
    pub fn break_streams(&self) {
        self.0.lock().break_streams();
    }

    /// The next `count` changes are not told to those who follow them.
    pub fn drop_events(&self, count: u32) {
        self.0.lock().plan.events_to_drop = count;
    }

    /// From now on changes reach those who follow them this much later; zero ends it.
    pub fn delay_events(&self, delay: Duration) {
        self.0.lock().plan.event_delay = delay;
    }

    /// The next `count` calls that write are carried out, but their replies are lost.
    pub fn lose_replies(&self, count: u32) {
        self.0.lock().plan.replies_to_lose = count;
    }

    /// The next `count` calls fail with `kind` and are not carried out.
    pub fn fail_calls(&self, count: u32, kind: ErrorKind) {
        self.0.lock().plan.calls_to_fail = (count, Some(kind));
    }

    /// Registers `instance` for a live owner outside of this process: whoever registers the same
    /// id stands in conflict until [`remove`](Self::remove). Replaces what is there.
    ///
    /// # Errors
    /// As a registration of it would be refused.
    pub fn conflict(&self, instance: &Instance) -> Result<Incarnation> {
        let incarnation = Incarnation::random();
        let instance = Arc::new(instance.clone());
        let (service, key) = (instance.service().clone(), escape(instance.id().as_str()));
        let record = Record::new(instance, incarnation, SystemTime::now(), 0);
        let bytes = encode(&record)?;
        self.0.lock().plant(&service, &key, bytes, incarnation);
        Ok(incarnation)
    }

    /// Writes an entry of any bytes under `service`, say one that cannot be understood. `key` is
    /// an escaped instance id.
    pub fn poison(&self, service: &ServiceName, key: &str, bytes: impl Into<Vec<u8>>) {
        self.0
            .lock()
            .plant(service, key, bytes.into(), Incarnation::random());
    }

    /// Removes the entry under `key` (an escaped instance id), as an operator would. An owner
    /// that lives puts it back. Returns whether it was there.
    pub fn remove(&self, service: &ServiceName, key: &str) -> bool {
        self.0.lock().remove(service, key, Departure::Unannounced)
    }

    /// Writes the load of `id` as its owner in `incarnation` would.
    ///
    /// # Errors
    /// [`LeaseExpired`](ErrorKind::LeaseExpired) if the entry stands in another incarnation.
    pub fn write_load(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        incarnation: Incarnation,
        load: u64,
    ) -> Result<()> {
        self.0
            .lock()
            .publish(service, &escape(id.as_str()), incarnation, load)
    }

    /// The load that stands in the registry for `id`.
    #[must_use]
    pub fn stored_load(&self, service: &ServiceName, id: &InstanceId) -> Option<u64> {
        self.0.lock().load(service, &escape(id.as_str()))
    }

    /// How many loads have been written since the registry was made.
    #[must_use]
    pub fn load_writes(&self) -> u64 {
        self.0.lock().plan.load_writes
    }

    /// How many calls the registry has received since it was made, answered or not.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.lock().plan.calls
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("mode", &*self.0.mode.borrow())
            .finish_non_exhaustive()
    }
}
