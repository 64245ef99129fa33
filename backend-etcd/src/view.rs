//! What is known of a service: enough to tell a change from a repetition, and whose load is whose.

use std::collections::HashMap;

use etcd_client::KeyValue;
use plimsoll_backend_kit::{Change, Departure, Entry, Interest, Listing, Skipped};
use plimsoll_discovery_api::{Incarnation, Revision, ServiceName};

use crate::codec::{self, Reading};
use crate::keys::id_of;

/// A key and its value, below the branch of a service.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    key: &'a str,
    value: &'a [u8],
    created: i64,
    modified: i64,
    lease: i64,
}

impl<'a> Row<'a> {
    /// Nothing, if it is not below `branch`.
    pub(crate) fn of(kv: &'a KeyValue, branch: &str) -> Option<Self> {
        let key = kv.key_str().ok()?.strip_prefix(branch)?;
        (!key.is_empty()).then_some(Self {
            key,
            value: kv.value(),
            created: kv.create_revision(),
            modified: kv.mod_revision(),
            lease: kv.lease(),
        })
    }
}

/// What was last seen of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    created: i64,
    modified: i64,
    lease: i64,
    incarnation: Incarnation,
    /// Whether it could be understood.
    sound: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    modified: i64,
    lease: i64,
    value: u64,
}

/// A service at one moment, and what is needed to follow it from there.
#[derive(Debug)]
pub(crate) struct View {
    service: ServiceName,
    interest: Interest,
    pub(crate) revision: Revision,
    /// By key.
    seen: HashMap<String, Seen>,
    /// By key. Those of identities that have not been seen yet are kept too: one transaction writes
    /// both, and they may arrive in either order.
    loads: HashMap<String, Load>,
    /// What was listed and not taken yet, with its key.
    entries: Vec<(String, Entry)>,
    skipped: Vec<Skipped>,
}

impl View {
    pub(crate) fn new(service: ServiceName, revision: Revision, interest: Interest) -> Self {
        Self {
            service,
            interest,
            revision,
            seen: HashMap::new(),
            loads: HashMap::new(),
            entries: Vec::new(),
            skipped: Vec::new(),
        }
    }

    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    pub(crate) fn follows_loads(&self) -> bool {
        self.interest == Interest::Loads
    }

    /// What was listed, once; the identities and the loads of a listing may have come in any order.
    pub(crate) fn take_listing(&mut self) -> Listing {
        let listed = std::mem::take(&mut self.entries).into_iter();
        let entries = listed.map(|(key, mut entry)| {
            let seen = self.seen.get(&key);
            entry.load = seen.and_then(|seen| self.load_of(&key, seen.lease, seen.created));
            entry
        });
        let entries = entries.collect();
        Listing::new(self.revision, entries, std::mem::take(&mut self.skipped))
    }

    /// Takes in an identity of the listing.
    pub(crate) fn list(&mut self, row: &Row<'_>) {
        match self.put(row) {
            Some(Change::Put(entry)) => self.entries.push((row.key.to_owned(), entry)),
            Some(Change::Skipped(skipped)) => self.skipped.push(skipped),
            _ => {}
        }
    }

    /// The load under `key`, if it is of the life of the identity under `lease`, created at
    /// `created`.
    fn load_of(&self, key: &str, lease: i64, created: i64) -> Option<u64> {
        let load = self.loads.get(key)?;
        load.is_of(lease, created).then_some(load.value)
    }

    /// An identity came or changed.
    pub(crate) fn put(&mut self, row: &Row<'_>) -> Option<Change> {
        self.advance(row.modified);
        if self
            .seen
            .get(row.key)
            .is_some_and(|seen| seen.modified >= row.modified)
        {
            return None;
        }
        let (incarnation, change) =
            match codec::read(&self.service, row.key, row.value, row.created) {
                // Announced here: the removal of the key that follows is news no more.
                Ok(Reading::Departed) => return self.removed(row.key, Departure::Graceful),
                Ok(Reading::Present(mut entry)) => {
                    entry.load = self.load_of(row.key, row.lease, row.created);
                    (entry.incarnation, Change::Put(entry))
                }
                Err(skipped) => (Incarnation::from_bits(0), Change::Skipped(skipped)),
            };
        let seen = Seen {
            created: row.created,
            modified: row.modified,
            lease: row.lease,
            incarnation,
            sound: matches!(change, Change::Put(_)),
        };
        self.seen.insert(row.key.to_owned(), seen);
        Some(change)
    }

    /// An identity went.
    pub(crate) fn deleted(&mut self, row: &Row<'_>) -> Option<Change> {
        self.advance(row.modified);
        self.removed(row.key, Departure::Unannounced)
    }

    fn removed(&mut self, key: &str, departure: Departure) -> Option<Change> {
        let seen = self.seen.remove(key)?;
        Some(Change::Removed {
            key: id_of(key),
            departure: if seen.sound {
                departure
            } else {
                Departure::Unannounced
            },
        })
    }

    /// A load was published.
    pub(crate) fn published(&mut self, row: &Row<'_>) -> Option<Change> {
        let load = self.note_load(row)?;
        let seen = self.seen.get(row.key)?;
        if !seen.sound || !load.is_of(seen.lease, seen.created) {
            return None;
        }
        Some(Change::Load {
            id: id_of(row.key).parse().ok()?,
            incarnation: seen.incarnation,
            load: load.value,
        })
    }

    /// A load of the listing, or one that came later.
    pub(crate) fn note_load(&mut self, row: &Row<'_>) -> Option<Load> {
        self.advance(row.modified);
        let load = Load {
            modified: row.modified,
            lease: row.lease,
            value: codec::read_load(row.value)?,
        };
        self.loads.insert(row.key.to_owned(), load);
        Some(load)
    }

    pub(crate) fn unpublished(&mut self, row: &Row<'_>) {
        self.advance(row.modified);
        self.loads.remove(row.key);
    }

    fn advance(&mut self, revision: i64) {
        let newest = self.revision.counter().max(revision.unsigned_abs());
        self.revision = Revision::new(self.revision.epoch(), newest);
    }
}

impl Load {
    /// Whether it is of the life that the identity under `lease`, created at `created`, is of: an
    /// owner writes both in one transaction, and the load again and again under the same lease.
    fn is_of(&self, lease: i64, created: i64) -> bool {
        self.lease == lease && self.modified >= created
    }
}
