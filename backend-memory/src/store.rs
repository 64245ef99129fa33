//! What the registry holds: records by service and key, with a revision for each service.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_backend_kit::{Change, Departure, Entry, Listing, Skipped, Update, decode, unescape};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result, Revision, ServiceName};
use tokio::sync::{broadcast, watch};

use crate::plan::{Crashed, Mode, Plan};

/// Names that nobody registers under or watches any more are forgotten once there are so many names, or
/// twice as many as were left by the last time.
const NAMES: usize = 64;

/// A subscriber that falls behind by more than this many changes reads everything again.
const EVENT_BACKLOG: usize = 1024;

/// One registry, shared by all handles on it.
#[derive(Debug)]
pub(crate) struct Store {
    content: Mutex<Content>,
    pub(crate) mode: watch::Sender<Mode>,
}

/// What is under the lock.
#[derive(Debug)]
pub(crate) struct Content {
    epoch: u64,
    /// Of the latest change to any service, so that no service goes back when it was forgotten.
    counter: u64,
    services: HashMap<ServiceName, Service>,
    /// The number of names at which those without use are looked for.
    sweep_at: usize,
    pub(crate) plan: Plan,
}

#[derive(Debug)]
struct Service {
    /// Of its latest change.
    counter: u64,
    slots: BTreeMap<String, Slot>,
    events: broadcast::Sender<Update>,
}

/// One record. Keys are escaped ids, as in a registry with paths.
#[derive(Debug)]
struct Slot {
    bytes: Arc<[u8]>,
    incarnation: Incarnation,
    load: Option<u64>,
    /// Dropped with the slot, which tells the owner.
    alive: Arc<watch::Sender<()>>,
}

impl Service {
    fn is_in_use(&self) -> bool {
        !self.slots.is_empty() || self.events.receiver_count() > 0
    }
}

impl Store {
    pub(crate) fn new() -> Self {
        let content = Content {
            epoch: 1,
            counter: 0,
            services: HashMap::new(),
            sweep_at: NAMES,
            plan: Plan::default(),
        };
        Self {
            content: Mutex::new(content),
            mode: watch::Sender::new(Mode::Up),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Content> {
        // Every change is complete before anything in it could panic.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a claim came to.
pub(crate) type Alive = watch::Receiver<()>;

impl Content {
    fn service(&mut self, name: &ServiceName) -> &mut Service {
        if self.services.len() >= self.sweep_at && !self.services.contains_key(name) {
            self.services.retain(|_, service| service.is_in_use());
            self.sweep_at = NAMES.max(2 * self.services.len());
        }
        let counter = self.counter;
        self.services
            .entry(name.clone())
            .or_insert_with(|| Service {
                counter,
                slots: BTreeMap::new(),
                events: broadcast::Sender::new(EVENT_BACKLOG),
            })
    }

    /// Puts a record where nothing foreign stands.
    pub(crate) fn claim(
        &mut self,
        service: &ServiceName,
        key: &str,
        bytes: Vec<u8>,
        incarnation: Incarnation,
        load: u64,
        former: &[Incarnation],
    ) -> Result<Alive> {
        let standing = self.service(service).slots.get(key);
        let adopted = match standing {
            Some(slot) if slot.incarnation == incarnation => Some(Arc::clone(&slot.alive)),
            Some(slot) if !former.contains(&slot.incarnation) => {
                return Err(
                    Error::new(ErrorKind::Conflict, "another live owner holds the id")
                        .with_context("id", key)
                        .with_context("owner", slot.incarnation.to_string()),
                );
            }
            _ => None,
        };
        let alive = adopted.unwrap_or_else(|| Arc::new(watch::Sender::new(())));
        let seen = alive.subscribe();
        let slot = Slot {
            bytes: bytes.into(),
            incarnation,
            load: Some(load),
            alive,
        };
        self.put(service, key, slot);
        Ok(seen)
    }

    /// Puts an entry without an owner in this registry: a foreign or broken one.
    pub(crate) fn plant(
        &mut self,
        service: &ServiceName,
        key: &str,
        bytes: Vec<u8>,
        incarnation: Incarnation,
    ) {
        let alive = Arc::new(watch::Sender::new(()));
        self.put(
            service,
            key,
            Slot {
                bytes: bytes.into(),
                incarnation,
                load: None,
                alive,
            },
        );
    }

    fn put(&mut self, service: &ServiceName, key: &str, slot: Slot) {
        let change = read(service, key, &slot).map_or_else(Change::Skipped, Change::Put);
        self.service(service).slots.insert(key.to_owned(), slot);
        self.announce(service, change);
    }

    /// Replaces attributes, on condition of the incarnation.
    pub(crate) fn update(
        &mut self,
        service: &ServiceName,
        key: &str,
        incarnation: Incarnation,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let slot = self.owned(service, key, incarnation)?;
        slot.bytes = bytes.into();
        let change = read(service, key, slot).map_or_else(Change::Skipped, Change::Put);
        self.announce(service, change);
        Ok(())
    }

    /// Replaces the load, on condition of the incarnation.
    pub(crate) fn publish(
        &mut self,
        service: &ServiceName,
        key: &str,
        incarnation: Incarnation,
        load: u64,
    ) -> Result<()> {
        let slot = self.owned(service, key, incarnation)?;
        slot.load = Some(load);
        let id = read(service, key, slot).map(|entry| entry.instance.id().clone());
        if let Ok(id) = id {
            self.announce(
                service,
                Change::Load {
                    id,
                    incarnation,
                    load,
                },
            );
        }
        Ok(())
    }

    pub(crate) fn confirm(
        &mut self,
        service: &ServiceName,
        key: &str,
        incarnation: Incarnation,
    ) -> Result<()> {
        self.owned(service, key, incarnation).map(|_| ())
    }

    fn owned(
        &mut self,
        service: &ServiceName,
        key: &str,
        incarnation: Incarnation,
    ) -> Result<&mut Slot> {
        let slot = self
            .services
            .get_mut(service)
            .and_then(|s| s.slots.get_mut(key));
        match slot {
            Some(slot) if slot.incarnation == incarnation => Ok(slot),
            _ => Err(Error::new(
                ErrorKind::LeaseExpired,
                "the record of this incarnation is gone",
            )
            .with_context("id", key)
            .with_context("incarnation", incarnation.to_string())),
        }
    }

    /// Removes a record, if it stands in one of `incarnations`. Returns whether it did.
    pub(crate) fn release(
        &mut self,
        service: &ServiceName,
        key: &str,
        incarnations: &[Incarnation],
        departure: Departure,
    ) -> bool {
        let slot = self.services.get(service).and_then(|s| s.slots.get(key));
        let stands = slot.is_some_and(|slot| incarnations.contains(&slot.incarnation));
        stands && self.remove(service, key, departure)
    }

    /// Removes whatever stands under `key`. Returns whether anything did.
    pub(crate) fn remove(
        &mut self,
        service: &ServiceName,
        key: &str,
        departure: Departure,
    ) -> bool {
        let removed = self
            .services
            .get_mut(service)
            .and_then(|s| s.slots.remove(key));
        if removed.is_none() {
            return false;
        }
        let id = unescape(key).unwrap_or_else(|_| key.to_owned());
        self.announce(service, Change::Removed { key: id, departure });
        true
    }

    /// Removes a record whose owner shall not notice.
    pub(crate) fn crash(&mut self, service: &ServiceName, key: &str) -> bool {
        let slot = self.services.get(service).and_then(|s| s.slots.get(key));
        let Some(slot) = slot else {
            return false;
        };
        let crashed = Crashed {
            service: service.clone(),
            key: key.to_owned(),
            _alive: Arc::clone(&slot.alive),
        };
        self.plan.crashed.insert(slot.incarnation, crashed);
        self.remove(service, key, Departure::Unannounced)
    }

    /// Forgets everything and starts a new history.
    pub(crate) fn wipe(&mut self) {
        self.epoch += 1;
        self.services.clear();
    }

    /// Ends every stream of changes, as a compaction does.
    pub(crate) fn break_streams(&mut self) {
        for service in self.services.values_mut() {
            service.events = broadcast::Sender::new(EVENT_BACKLOG);
        }
    }

    fn announce(&mut self, name: &ServiceName, change: Change) {
        self.counter += 1;
        let revision = Revision::new(self.epoch, self.counter);
        let service = self.service(name);
        let follows = std::mem::replace(&mut service.counter, revision.counter());
        let update = Update::new(revision, change).following(follows);
        let events = service.events.clone();
        if self.plan.events_to_drop > 0 {
            self.plan.events_to_drop -= 1;
        } else {
            // Nobody listening is no fault.
            let _listeners = events.send(update);
        }
    }

    /// Where the history of `service` stands.
    pub(crate) fn revision(&self, service: &ServiceName) -> Revision {
        Revision::new(
            self.epoch,
            self.services
                .get(service)
                .map_or(self.counter, |s| s.counter),
        )
    }

    pub(crate) fn list(&self, service: &ServiceName) -> Listing {
        let (mut entries, mut skipped) = (Vec::new(), Vec::new());
        for (key, slot) in self
            .services
            .get(service)
            .into_iter()
            .flat_map(|s| &s.slots)
        {
            match read(service, key, slot) {
                Ok(entry) => entries.push(entry),
                Err(broken) => skipped.push(broken),
            }
        }
        Listing::new(self.revision(service), entries, skipped)
    }

    pub(crate) fn subscribe(&mut self, service: &ServiceName) -> broadcast::Receiver<Update> {
        self.service(service).events.subscribe()
    }

    pub(crate) fn names(&self) -> Vec<ServiceName> {
        let held = self
            .services
            .iter()
            .filter(|(_, service)| !service.slots.is_empty());
        held.map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn load(&self, service: &ServiceName, key: &str) -> Option<u64> {
        self.services.get(service)?.slots.get(key)?.load
    }

    pub(crate) fn keys(&self, service: &ServiceName) -> HashSet<String> {
        self.services
            .get(service)
            .map(|s| s.slots.keys().cloned().collect())
            .unwrap_or_default()
    }
}

/// Understands a record, as a client of a networked registry has to.
fn read(service: &ServiceName, key: &str, slot: &Slot) -> Result<Entry, Skipped> {
    let id = unescape(key).map_err(|cause| Skipped::new(key, cause))?;
    let decoded = decode(service, &slot.bytes).map_err(|cause| Skipped::new(&*id, cause))?;
    if decoded.instance.id().as_str() != id {
        let cause = Error::new(ErrorKind::Corrupt, "the record is of another instance");
        return Err(Skipped::new(
            &*id,
            cause.with_context("id", decoded.instance.id().as_str()),
        ));
    }
    let mut entry = Entry::new(decoded.instance, slot.incarnation);
    entry.registered_at = decoded.registered_at;
    entry.load = slot.load;
    entry.left_out = decoded.left_out;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> ServiceName {
        format!("s{number}").parse().unwrap()
    }

    #[test]
    fn names_out_of_use_are_forgotten_and_none_goes_back() {
        let store = Store::new();
        let mut content = store.lock();
        let life = Incarnation::from_bits(1);
        let kept = name(0);
        content.plant(&kept, "a", Vec::new(), life);
        let watched = name(1);
        let _watch = content.subscribe(&watched);
        let left = name(2);
        content.plant(&left, "a", Vec::new(), life);
        content.remove(&left, "a", Departure::Graceful);
        let seen = content.revision(&left);
        for number in 3..10_000 {
            drop(content.subscribe(&name(number)));
        }
        assert!(content.services.len() <= 2 * NAMES);
        assert!(content.services.contains_key(&kept) && content.services.contains_key(&watched));
        assert!(!content.services.contains_key(&left));
        assert!(!content.revision(&left).is_before(seen));
        drop(content.subscribe(&left));
        assert!(!content.revision(&left).is_before(seen));
    }
}
