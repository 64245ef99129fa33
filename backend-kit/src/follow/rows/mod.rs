//! Understanding the rows of one service: which id stands where, whose load is whose, what is news.

mod row;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use plimsoll_discovery_api::{Error, Incarnation, Revision, ServiceName};

use self::row::{Load, Seen};
use crate::{Change, Departure, Entry, KeyForm, Listing, Skipped, id_of};

pub use self::row::{Read, Reading, Row, read_load};

/// So many announced departures are remembered before those of nobody known are forgotten.
const DEPARTED: usize = 16 * 1024;

/// A row that is kept; an error in the place of a value that may not be read.
#[derive(Debug)]
struct Kept {
    bytes: Result<Vec<u8>, Error>,
    created: u64,
    modified: u64,
    owner: Option<i64>,
}

/// A service at one moment, and what is needed to follow it from there.
///
/// It is told of rows, first those of a listing and then those that come, change and go, in the order
/// of the registry's history, and makes of them what watchers are told. Whatever a row holds, it is
/// news of its own id alone.
#[derive(Debug)]
pub struct Rows {
    service: ServiceName,
    read: Read,
    revision: Revision,
    /// By key: those that are shown, one for each id.
    seen: HashMap<String, Seen>,
    /// By key: those of other programs that are not escaped. Each is shown as long as there is no
    /// escaped one of the same id.
    raw: HashMap<String, Kept>,
    /// By key. Those of identities that have not been seen yet are kept too: one transaction writes
    /// both, and they may arrive in either order.
    loads: HashMap<String, Load>,
    /// The lives that were said to leave.
    departed: HashSet<Incarnation>,
    /// What was listed and not taken yet, with its key.
    entries: Vec<(String, Entry)>,
    skipped: Vec<Skipped>,
}

impl Rows {
    /// Nothing yet of `service`, at `revision`, whose values `read` understands.
    #[must_use]
    pub fn new(service: ServiceName, revision: Revision, read: Read) -> Self {
        Self {
            service,
            read,
            revision,
            seen: HashMap::new(),
            raw: HashMap::new(),
            loads: HashMap::new(),
            departed: HashSet::new(),
            entries: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// The service.
    #[must_use]
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// That of the newest row.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// What is followed turns out to be of this history.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.revision = Revision::new(epoch, self.revision.counter());
    }

    /// What is followed has come to this place in its history, by whatever was written there. The
    /// rows of identities say so by themselves.
    pub fn advance(&mut self, position: u64) {
        let newest = self.revision.counter().max(position);
        self.revision = Revision::new(self.revision.epoch(), newest);
    }

    /// Takes in an identity of the listing.
    pub fn list(&mut self, row: &Row<'_>) {
        let change = self.put(row);
        self.keep(&row.key, change);
    }

    /// Takes in an identity of the listing that may not be read, for this `cause`.
    pub fn list_unreadable(&mut self, key: &str, cause: Error) {
        let change = self.unreadable(key, cause);
        self.keep(key, change);
    }

    fn keep(&mut self, key: &str, change: Option<Change>) {
        match change {
            Some(Change::Put(entry)) => self.entries.push((key.to_owned(), entry)),
            Some(Change::Skipped(skipped)) => self.skipped.push(skipped),
            _ => {}
        }
    }

    /// What was listed, once; identities and loads of a listing may have come in any order.
    pub fn take_listing(&mut self) -> Listing {
        let listed = std::mem::take(&mut self.entries).into_iter();
        let entries = listed.map(|(key, mut entry)| {
            let seen = self.seen.get(&key);
            entry.load = seen.and_then(|seen| self.load_of(&key, seen));
            entry
        });
        let entries = entries.collect();
        Listing::new(self.revision, entries, std::mem::take(&mut self.skipped))
    }

    /// The load under `key`, if it is of the life of `identity`.
    fn load_of(&self, key: &str, identity: &Seen) -> Option<u64> {
        let load = self.loads.get(key)?;
        load.is_of(identity).then_some(load.value)
    }

    /// An identity came or changed. `None`: nothing is new.
    pub fn put(&mut self, row: &Row<'_>) -> Option<Change> {
        self.advance(row.modified);
        let seen = self.seen.get(&*row.key);
        if seen.is_some_and(|seen| seen.modified >= row.modified) {
            return None;
        }
        let kept = || Kept {
            bytes: Ok(row.bytes.to_owned()),
            created: row.created,
            modified: row.modified,
            owner: row.owner,
        };
        if self.is_hidden(&row.key, kept) {
            return None;
        }
        self.show(row)
    }

    /// An identity came or changed, and may not be read, for this `cause`. `None`: it is known.
    pub fn unreadable(&mut self, key: &str, cause: Error) -> Option<Change> {
        let kept = || Kept {
            bytes: Err(cause.clone()),
            created: 0,
            modified: 0,
            owner: None,
        };
        if self.is_hidden(key, kept) {
            return None;
        }
        self.show_unreadable(key, cause)
    }

    /// Whether the id of `key` is shown by another one, an escaped one; such a one takes the place of
    /// one that is not.
    fn is_hidden(&mut self, key: &str, kept: impl FnOnce() -> Kept) -> bool {
        match KeyForm::of(key) {
            KeyForm::Only => false,
            KeyForm::Raw(escaped) => {
                self.raw.insert(key.to_owned(), kept());
                self.seen.contains_key(&escaped)
            }
            KeyForm::Escaped(raw) => {
                if self.seen.remove(&raw).is_some() {
                    tracing::debug!(key, "another key has its id");
                    self.entries.retain(|(key, _)| *key != raw);
                    self.skipped.retain(|skipped| skipped.key != id_of(&raw));
                }
                false
            }
        }
    }

    fn show(&mut self, row: &Row<'_>) -> Option<Change> {
        let mut seen = Seen {
            created: row.created,
            modified: row.modified,
            owner: row.owner,
            incarnation: Incarnation::from_bits(0),
            sound: false,
        };
        let change = match (self.read)(&self.service, row) {
            // Announced here: the removal of the key that follows is news no more.
            Ok(Reading::Departed) => return self.removed(&row.key, true),
            Ok(Reading::Present(mut entry)) => {
                entry.load = self.load_of(&row.key, &seen);
                (seen.incarnation, seen.sound) = (entry.incarnation, true);
                Change::Put(entry)
            }
            Err(skipped) => Change::Skipped(skipped),
        };
        self.seen.insert(row.key.clone().into_owned(), seen);
        Some(change)
    }

    fn show_unreadable(&mut self, key: &str, cause: Error) -> Option<Change> {
        let unread = Seen {
            created: 0,
            modified: 0,
            owner: None,
            incarnation: Incarnation::from_bits(0),
            sound: false,
        };
        let before = self.seen.insert(key.to_owned(), unread);
        let change = Change::Skipped(Skipped::new(id_of(key), cause));
        (before != Some(unread)).then_some(change)
    }

    /// This life is said to leave: the removal of its identity, when that is told of, is no loss.
    pub fn note_departed(&mut self, life: Incarnation) {
        if self.departed.len() >= DEPARTED {
            // Those that were never seen here will not be asked for.
            let lives: HashSet<_> = self.seen.values().map(|seen| seen.incarnation).collect();
            self.departed.retain(|life| lives.contains(life));
        }
        self.departed.insert(life);
    }

    /// Whether the removal of `key` would be a loss, of somebody who is known.
    #[must_use]
    pub fn would_be_lost(&self, key: &str) -> bool {
        self.seen
            .get(key)
            .is_some_and(|seen| !self.is_announced(seen))
    }

    /// What no lease or session keeps alive has none to lose: somebody has meant its deletion.
    fn is_announced(&self, seen: &Seen) -> bool {
        seen.sound && (seen.owner.is_none() || self.departed.contains(&seen.incarnation))
    }

    /// The keys that are shown and not among those that are `present`.
    #[must_use]
    pub fn missing(&self, present: &HashSet<String>) -> Vec<String> {
        let gone = self.seen.keys().filter(|key| !present.contains(*key));
        gone.cloned().collect()
    }

    /// Whether the identity under `key` is shown.
    #[must_use]
    pub fn shows(&self, key: &str) -> bool {
        self.seen.contains_key(key)
    }

    /// An identity went.
    pub fn deleted(&mut self, key: &str) -> Option<Change> {
        self.raw.remove(key);
        self.removed(key, false)
    }

    fn removed(&mut self, key: &str, announced: bool) -> Option<Change> {
        let seen = self.seen.remove(key)?;
        let graceful = seen.sound && (announced || self.is_announced(&seen));
        self.departed.remove(&seen.incarnation);
        if let KeyForm::Escaped(raw) = KeyForm::of(key)
            && let Some(shown) = self.show_kept(&raw)
        {
            return Some(shown);
        }
        Some(Change::Removed {
            key: id_of(key),
            departure: if graceful {
                Departure::Graceful
            } else {
                Departure::Unannounced
            },
        })
    }

    /// The one that was hidden shows again.
    fn show_kept(&mut self, raw: &str) -> Option<Change> {
        let kept = self.raw.remove(raw)?;
        let shown = match &kept.bytes {
            Ok(bytes) => {
                let (created, modified) = (kept.created, kept.modified);
                self.show(&Row::new(raw, bytes, (created, modified), kept.owner))
            }
            Err(cause) => self.show_unreadable(raw, cause.clone()),
        };
        self.raw.insert(raw.to_owned(), kept);
        shown
    }

    /// A load was published. `None`: it is nobody's who is known, or no load.
    pub fn published(&mut self, row: &Row<'_>) -> Option<Change> {
        self.note_load(row);
        self.load(&row.key)
    }

    /// The load under `key`, told as news.
    #[must_use]
    pub fn load(&self, key: &str) -> Option<Change> {
        let seen = self.seen.get(key).filter(|seen| seen.sound)?;
        Some(Change::Load {
            id: id_of(key).parse().ok()?,
            incarnation: seen.incarnation,
            load: self.load_of(key, seen)?,
        })
    }

    /// Takes in a load without telling of it: one of the listing, or one that comes with its identity.
    pub fn note_load(&mut self, row: &Row<'_>) {
        let Some(value) = read_load(row.bytes) else {
            self.loads.remove(&*row.key);
            return;
        };
        let load = Load {
            modified: row.modified,
            owner: row.owner,
            value,
        };
        self.loads.insert(row.key.clone().into_owned(), load);
    }

    /// A load went.
    pub fn unpublished(&mut self, key: &str) {
        self.loads.remove(key);
    }
}
