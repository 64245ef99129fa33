//! What is known of a service: enough to tell a change from a repetition, and whose load is whose.

use std::borrow::Cow;
use std::collections::HashMap;

use etcd_client::KeyValue;
use plimsoll_backend_kit::{Change, Departure, Entry, Interest, Listing, Skipped};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Revision, ServiceName};

use crate::codec::{self, Reading};
use crate::keys::{Spelling, id_of};

/// A key and its value, below the branch of a service.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    key: Cow<'a, str>,
    value: &'a [u8],
    created: i64,
    modified: i64,
    lease: i64,
}

impl<'a> Row<'a> {
    /// Nothing, if it is not below `branch`.
    pub(crate) fn of(kv: &'a KeyValue, branch: &str) -> Option<Self> {
        let (created, modified) = (kv.create_revision(), kv.mod_revision());
        let branch = branch.as_bytes();
        Self::new(kv.key(), branch, kv.value(), created, modified, kv.lease())
    }

    pub(crate) fn new(
        key: &'a [u8],
        branch: &[u8],
        value: &'a [u8],
        created: i64,
        modified: i64,
        lease: i64,
    ) -> Option<Self> {
        let key = key.strip_prefix(branch)?;
        (!key.is_empty()).then(|| Self {
            // Whoever wrote a key that is no text gets one that nobody else has.
            key: std::str::from_utf8(key)
                .map_or_else(|_| format!(" {}", key.escape_ascii()).into(), Cow::Borrowed),
            value,
            created,
            modified,
            lease,
        })
    }

    #[cfg(any(test, feature = "_fuzz"))]
    pub(crate) fn key(&self) -> &str {
        &self.key
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

/// A row that is kept.
#[derive(Debug)]
struct Kept {
    value: Vec<u8>,
    created: i64,
    modified: i64,
    lease: i64,
}

impl Kept {
    fn of(row: &Row<'_>) -> Self {
        Self {
            value: row.value.to_owned(),
            created: row.created,
            modified: row.modified,
            lease: row.lease,
        }
    }

    fn row<'a>(&'a self, key: &'a str) -> Row<'a> {
        Row {
            key: key.into(),
            value: &self.value,
            created: self.created,
            modified: self.modified,
            lease: self.lease,
        }
    }
}

/// A service at one moment, and what is needed to follow it from there.
#[derive(Debug)]
pub(crate) struct View {
    service: ServiceName,
    interest: Interest,
    pub(crate) revision: Revision,
    /// By key: those that are shown, one for each id.
    seen: HashMap<String, Seen>,
    /// By key: those of other programs that are not escaped. Each is shown as long as there is no
    /// escaped one of the same id.
    raw: HashMap<String, Kept>,
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
            raw: HashMap::new(),
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
            Some(Change::Put(entry)) => self.entries.push((row.key.clone().into_owned(), entry)),
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
            .get(&*row.key)
            .is_some_and(|seen| seen.modified >= row.modified)
        {
            return None;
        }
        match Spelling::of(&row.key) {
            Spelling::Only => {}
            Spelling::Raw(escaped) => {
                self.raw.insert(row.key.clone().into_owned(), Kept::of(row));
                if self.seen.contains_key(&escaped) {
                    return None;
                }
            }
            Spelling::Escaped(raw) => self.hide(&raw),
        }
        self.show(row)
    }

    /// Another one of the same id takes its place.
    fn hide(&mut self, raw: &str) {
        if self.seen.remove(raw).is_some() {
            self.entries.retain(|(key, _)| key != raw);
            self.skipped.retain(|skipped| skipped.key != raw);
        }
    }

    fn show(&mut self, row: &Row<'_>) -> Option<Change> {
        let (incarnation, change) =
            match codec::read(&self.service, &row.key, row.value, row.created) {
                // Announced here: the removal of the key that follows is news no more.
                Ok(Reading::Departed) => return self.removed(&row.key, Departure::Graceful),
                Ok(Reading::Present(entry))
                    if row.lease == 0 && !codec::is_foreign(&entry, row.created) =>
                {
                    let skipped = Skipped::new(id_of(&row.key), unkept());
                    (Incarnation::from_bits(0), Change::Skipped(skipped))
                }
                Ok(Reading::Present(mut entry)) => {
                    entry.load = self.load_of(&row.key, row.lease, row.created);
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
        self.seen.insert(row.key.clone().into_owned(), seen);
        Some(change)
    }

    /// An identity went.
    pub(crate) fn deleted(&mut self, row: &Row<'_>) -> Option<Change> {
        self.advance(row.modified);
        self.raw.remove(&*row.key);
        // Of what no lease keeps alive none can have ended: somebody has meant it.
        let unleased = self.seen.get(&*row.key).is_some_and(|seen| seen.lease == 0);
        let departure = if unleased {
            Departure::Graceful
        } else {
            Departure::Unannounced
        };
        self.removed(&row.key, departure)
    }

    fn removed(&mut self, key: &str, departure: Departure) -> Option<Change> {
        let seen = self.seen.remove(key)?;
        if let Spelling::Escaped(raw) = Spelling::of(key)
            && let Some(kept) = self.raw.remove(&raw)
        {
            let shown = self.show(&kept.row(&raw));
            self.raw.insert(raw, kept);
            if shown.is_some() {
                return shown;
            }
        }
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
        let seen = self.seen.get(&*row.key)?;
        if !seen.sound || !load.is_of(seen.lease, seen.created) {
            return None;
        }
        Some(Change::Load {
            id: id_of(&row.key).parse().ok()?,
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
        self.loads.insert(row.key.clone().into_owned(), load);
        Some(load)
    }

    pub(crate) fn unpublished(&mut self, row: &Row<'_>) {
        self.advance(row.modified);
        self.loads.remove(&*row.key);
    }

    fn advance(&mut self, revision: i64) {
        let newest = self.revision.counter().max(revision.unsigned_abs());
        self.revision = Revision::new(self.revision.epoch(), newest);
    }
}

/// Our records are under a lease, each of them: what is not is a copy or a backup of one.
fn unkept() -> Error {
    let why = "a record of plimsoll's that no lease keeps alive: copied, restored or overwritten";
    Error::new(ErrorKind::Corrupt, why)
}

impl Load {
    /// Whether it is of the life that the identity under `lease`, created at `created`, is of: an
    /// owner writes both in one transaction, and the load again and again under the same lease.
    fn is_of(&self, lease: i64, created: i64) -> bool {
        self.lease == lease && self.modified >= created
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = "10.0.0.1:80";
    const ESCAPED: &str = "10.0.0.1%3A80";

    fn view() -> View {
        View::new(
            "orders".parse().unwrap(),
            Revision::new(1, 0),
            Interest::Loads,
        )
    }

    fn row(key: &'static str, modified: i64) -> Row<'static> {
        Row {
            key: key.into(),
            value: if key == RAW {
                br#"{"Addr":"raw:1"}"#
            } else {
                br#"{"Addr":"escaped:1"}"#
            },
            created: modified,
            modified,
            lease: 0,
        }
    }

    /// What the change shows.
    fn told(change: Option<Change>) -> String {
        match change {
            None => "nothing".into(),
            Some(Change::Put(entry)) => entry.instance.authority(),
            Some(Change::Removed { key, .. }) => format!("{key} removed"),
            Some(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_id_under_two_keys_is_shown_by_the_escaped_one_as_long_as_that_is_there() {
        let mut view = view();
        assert_eq!(told(view.put(&row(RAW, 1))), "raw:1");
        assert_eq!(told(view.put(&row(ESCAPED, 2))), "escaped:1");
        assert_eq!(told(view.put(&row(RAW, 3))), "nothing");
        assert_eq!(told(view.deleted(&row(ESCAPED, 4))), "raw:1");
        assert_eq!(told(view.put(&row(ESCAPED, 5))), "escaped:1");
        assert_eq!(told(view.deleted(&row(RAW, 6))), "nothing");
        let gone = format!("{RAW} removed");
        assert_eq!(told(view.deleted(&row(ESCAPED, 7))), gone);
        assert_eq!(told(view.put(&row(RAW, 8))), "raw:1");
        assert_eq!(told(view.deleted(&row(RAW, 9))), gone);
    }

    /// Nobody but an operator, or its owner, can have deleted what hangs on no lease.
    #[test]
    fn the_deletion_of_a_permanent_key_is_a_departure_and_the_end_of_a_lease_a_loss() {
        for (lease, meant) in [(0, Departure::Graceful), (7, Departure::Unannounced)] {
            let mut view = view();
            let put = Row {
                lease,
                ..row(RAW, 1)
            };
            assert!(matches!(view.put(&put), Some(Change::Put(_))));
            // A deletion does not say under which lease the key was.
            let Some(Change::Removed { departure, .. }) = view.deleted(&row(RAW, 2)) else {
                panic!("not removed");
            };
            assert_eq!(departure, meant);
        }
    }

    #[test]
    fn a_record_of_ours_without_a_lease_is_no_instance() {
        let value = br#"{"Op":0,"Addr":"h:1","Metadata":{"schema":1,"id":"a","host":"h","port":1,
            "incarnation":"000000000000000000000000000000ff"}}"#;
        let record = |lease, modified| Row {
            value,
            lease,
            ..row("a", modified)
        };
        let mut view = view();
        assert_eq!(told(view.put(&record(7, 1))), "h:1");
        let Some(Change::Skipped(skipped)) = view.put(&record(0, 2)) else {
            panic!("not skipped");
        };
        assert!(
            skipped.cause.to_string().contains("no lease keeps alive"),
            "{skipped:?}"
        );
        assert_eq!(told(view.put(&record(7, 3))), "h:1");
    }

    #[test]
    fn an_id_under_two_keys_is_listed_once() {
        for keys in [[RAW, ESCAPED], [ESCAPED, RAW]] {
            let mut view = view();
            keys.into_iter().for_each(|key| view.list(&row(key, 1)));
            let listed = view.take_listing().entries;
            let listed = listed.iter().map(|entry| entry.instance.authority());
            assert_eq!(listed.collect::<Vec<_>>(), ["escaped:1"]);
            assert_eq!(told(view.deleted(&row(ESCAPED, 2))), "raw:1");
        }
    }
}
