//! The members of one service, as the registry's words add up.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{
    Freshness, InstanceId, Member, Revision, ServiceName, Snapshot, Status, Timestamp,
};
use tokio::time::Instant;

use super::hold_down::Losses;
use crate::{Change, Departure, Entry, HoldDown, LeftOut, Listing, Skipped, Update};

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// There is something new to tell.
    Changed,
    /// There is not.
    Unchanged,
    /// Something was missed before it: everything must be read again.
    Gap,
}

#[derive(Debug)]
pub(super) struct Members {
    service: ServiceName,
    members: BTreeMap<InstanceId, Member>,
    skipped: BTreeSet<String>,
    /// Of those whose metadata is not whole.
    left_out: BTreeMap<InstanceId, LeftOut>,
    losses: Losses,
    revision: Revision,
}

impl Members {
    pub(super) fn new(service: ServiceName, policy: HoldDown) -> Self {
        Self {
            service,
            members: BTreeMap::new(),
            skipped: BTreeSet::new(),
            left_out: BTreeMap::new(),
            losses: Losses::new(policy),
            revision: Revision::default(),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Replaces everything by `listing`, telling apart what came, stayed and went. Returns
    /// whether the members changed.
    pub(super) fn list(&mut self, listing: Listing, now: Instant) -> bool {
        let mut changed = false;
        let mut gone: BTreeSet<InstanceId> = self.members.keys().cloned().collect();
        for entry in listing.entries {
            gone.remove(entry.instance.id());
            changed |= self.put(entry, now);
        }
        let known = self.revision.epoch();
        let new_history = known != 0 && listing.revision.epoch() != known;
        let departed: HashSet<_> = listing.departed.into_iter().collect();
        for id in gone {
            let life = self.members[&id].incarnation();
            if departed.contains(&life) {
                changed |= self.remove(id.as_str(), Departure::Graceful, now);
                continue;
            }
            if new_history && let Some(member) = self.members.remove(&id) {
                self.left_out.remove(&id);
                if !leaves(&member) {
                    self.losses.hold(member, now);
                }
                changed = true;
                continue;
            }
            changed |= self.remove(id.as_str(), Departure::Unannounced, now);
        }
        let known = std::mem::take(&mut self.skipped);
        for skipped in listing.skipped {
            self.note_skipped(skipped, &known);
        }
        changed |= known != self.skipped;
        self.revision = listing.revision;
        changed | self.judge(now)
    }

    /// The registry is there again after `away`.
    pub(super) fn returned_after(&mut self, away: Duration, now: Instant) {
        self.losses.returned_after(away, now);
    }

    /// Takes in one update.
    pub(super) fn apply(&mut self, update: Update, now: Instant) -> Applied {
        if update
            .follows
            .is_some_and(|counter| counter != self.revision.counter())
        {
            return Applied::Gap;
        }
        let changed = match update.change {
            Change::Listed(listing) => self.list(listing, now),
            Change::Put(entry) => self.put(entry, now),
            Change::Removed { key, departure } => {
                self.skipped.remove(&key) | self.remove(&key, departure, now)
            }
            Change::Skipped(skipped) => {
                let lost = self.remove(&skipped.key, Departure::Unannounced, now);
                self.note_skipped(skipped, &BTreeSet::new()) | lost
            }
            Change::Load {
                id,
                incarnation,
                load,
            } => {
                // A load of another life arrived late, or ahead of the entry, which brings its own.
                if let Some(member) = self.members.get(id.as_str())
                    && member.incarnation() == incarnation
                {
                    member.load().store(load, Timestamp::from(now.into_std()));
                }
                false
            }
            Change::Progress => false,
        };
        self.revision = update.revision;
        if changed | self.judge(now) {
            Applied::Changed
        } else {
            Applied::Unchanged
        }
    }

    fn judge(&mut self, now: Instant) -> bool {
        self.losses.judge(self.members.len(), now)
    }

    fn put(&mut self, entry: Entry, now: Instant) -> bool {
        let id = entry.instance.id().clone();
        self.skipped.remove(id.as_str());
        let left_out = self.note_left_out(&id, entry.left_out);
        let (was_lost, shown) = self.losses.resolve(id.as_str()).unzip();
        let known = self.members.get(&id).or(was_lost.as_ref());
        let same_life = known.filter(|known| known.incarnation() == entry.incarnation);
        // One cell per life, shared by every snapshot and every client.
        let cell = same_life
            .map(|known| Arc::clone(known.load()))
            .unwrap_or_default();
        if let Some(load) = entry.load
            && cell.get() != Some(load)
        {
            cell.store(load, Timestamp::from(now.into_std()));
        }
        let instance = match same_life {
            Some(known) if **known.instance() == entry.instance => Arc::clone(known.instance()),
            _ => Arc::new(entry.instance),
        };
        let member =
            Member::new(instance, entry.incarnation, cell).with_registered_at(entry.registered_at);
        let before = self.members.insert(id, member.clone());
        let before = before.or_else(|| was_lost.filter(|_| shown == Some(true)));
        left_out | !before.is_some_and(|before| before.is_same(&member))
    }

    /// Returns whether it is news.
    fn note_left_out(&mut self, id: &InstanceId, left_out: LeftOut) -> bool {
        if left_out.count() == 0 {
            return self.left_out.remove(id).is_some();
        }
        let known = self.left_out.get(id);
        let is_new = known != Some(&left_out);
        if is_new {
            tracing::warn!(
                service = %self.service, %id, keys = %left_out,
                "metadata beyond the limits left out"
            );
            self.left_out.insert(id.clone(), left_out);
        }
        is_new
    }

    /// Returns whether what is shown changed: a loss that nobody announced is judged later.
    fn remove(&mut self, key: &str, departure: Departure, now: Instant) -> bool {
        let member = self.members.remove(key);
        self.left_out.remove(key);
        match member {
            Some(member) if departure == Departure::Unannounced && !leaves(&member) => {
                self.losses.lost(member, now);
                false
            }
            Some(_) => true,
            None if departure == Departure::Graceful => {
                self.losses.resolve(key).is_some_and(|(_, shown)| shown)
            }
            None => false,
        }
    }

    fn note_skipped(&mut self, skipped: Skipped, known: &BTreeSet<String>) -> bool {
        let is_new = !known.contains(&skipped.key) && !self.skipped.contains(&skipped.key);
        if is_new {
            tracing::warn!(
                service = %self.service, key = skipped.key, cause = %skipped.cause,
                "entry skipped"
            );
        }
        self.skipped.insert(skipped.key);
        is_new
    }

    /// When the next loss is to be judged or the next suspect dropped.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.losses.next_deadline()
    }

    /// Does what is due at a deadline. Returns whether that changes the members.
    pub(super) fn meet_deadline(&mut self, now: Instant) -> bool {
        self.judge(now) | self.losses.expire(now)
    }

    pub(super) fn snapshot(&self, freshness: Freshness) -> Snapshot {
        let members = self.losses.shown().chain(self.members.values()).cloned();
        Snapshot::new(self.service.clone(), members, self.revision)
            .with_freshness(freshness)
            .with_skipped(self.skipped.len())
            .with_left_out(self.left_out.values().map(LeftOut::count).sum())
    }
}

/// Whoever is draining has announced that it goes.
fn leaves(member: &Member) -> bool {
    member.instance().status() == Status::Draining
}
