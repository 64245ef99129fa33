//! What a registry says of one service at one moment.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::{Error, Incarnation, Instance, InstanceId, ServiceName, Timestamp};

/// Where in a registry's history a snapshot stands.
///
/// Within one epoch a larger counter is later. Another epoch is another history (a restored, wiped
/// or replaced registry), and counters of two epochs cannot be compared. Epoch 0 is that of a registry
/// in which nothing has begun yet: what follows it is the beginning, not another history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Revision {
    epoch: u64,
    counter: u64,
}

impl Revision {
    /// The point `counter` in the history `epoch`.
    #[must_use]
    pub const fn new(epoch: u64, counter: u64) -> Self {
        Self { epoch, counter }
    }

    /// Which history.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.epoch
    }

    /// How far into it.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.counter
    }

    /// Whether it is earlier in the same history: something seen there is out of date.
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.epoch == other.epoch && self.counter < other.counter
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{}", self.epoch, self.counter)
    }
}

/// Whether a snapshot is kept up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// It is connected to the registry and follows every change.
    Live,
    /// It is the last good one: the registry has been out of reach since `since`.
    Stale {
        /// When the registry was last heard, by [`SystemClock`](crate::SystemClock).
        since: Timestamp,
    },
}

impl Freshness {
    /// Whether it follows every change.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live)
    }

    /// The name used in messages and as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale { .. } => "stale",
        }
    }

    /// How long ago the registry was last heard; zero while live.
    ///
    /// `now` is of the clock that `since` is of: the system's, which
    /// [`SystemClock`](crate::SystemClock) reads, whatever clock a client was given.
    #[must_use]
    pub fn age(self, now: Timestamp) -> Duration {
        match self {
            Self::Live => Duration::ZERO,
            Self::Stale { since } => now.since(since),
        }
    }
}

/// `live` or `stale`; for how long it has been that is [`age`](Freshness::age), as only a clock can
/// tell.
impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How far a member can be believed to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// The registry lists it.
    Registered,
    /// The registry stopped listing it, together with so many others and so suddenly that the
    /// registry is the likelier culprit. Clients leave it out while enough others remain, and it is
    /// dropped after a grace period.
    Suspect {
        /// When it went missing, by [`SystemClock`](crate::SystemClock).
        since: Timestamp,
    },
}

impl Standing {
    /// Whether the registry lists it.
    #[must_use]
    pub const fn is_registered(self) -> bool {
        matches!(self, Self::Registered)
    }
}

/// The load that a server last published: one value that all who watch it share.
///
/// An update is an atomic store here and nothing else: no snapshot is made, nobody wakes.
#[derive(Debug, Default)]
pub struct PublishedLoad {
    value: AtomicU64,
    /// The value before it.
    before: AtomicU64,
    /// Nanoseconds of a [`Timestamp`], plus one; 0 before the first report.
    received: AtomicU64,
}

/// One report of a server's load, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The load, in the server's unit (by default open connections).
    pub load: u64,
    /// The load reported before that; the same as `load` in the first report.
    pub before: u64,
    /// When it was received here, by [`SystemClock`](crate::SystemClock).
    pub received: Timestamp,
}

impl PublishedLoad {
    /// Nothing published yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            value: AtomicU64::new(0),
            before: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// For backends: takes in a report received at `received`.
    pub fn store(&self, load: u64, received: Timestamp) {
        let is_first = self.received.load(Ordering::Relaxed) == 0;
        let before = self.value.swap(load, Ordering::Relaxed);
        self.before
            .store(if is_first { load } else { before }, Ordering::Relaxed);
        let stamp = received.as_nanos().saturating_add(1);
        self.received.store(stamp, Ordering::Release);
    }

    /// The last report; `None` before the first.
    ///
    /// A reader that races a writer may get the new load with the old time, never the reverse.
    #[inline]
    #[must_use]
    pub fn report(&self) -> Option<LoadReport> {
        let stamp = self.received.load(Ordering::Acquire).checked_sub(1)?;
        Some(LoadReport {
            load: self.value.load(Ordering::Relaxed),
            before: self.before.load(Ordering::Relaxed),
            received: Timestamp::from_nanos(stamp),
        })
    }

    /// The load last reported; `None` before the first report.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        self.report().map(|report| report.load)
    }
}

/// One instance as the registry lists it.
///
/// Its identity is (service, id, incarnation). Attributes may change within one incarnation, and
/// the load changes all the time.
#[derive(Clone, Debug)]
pub struct Member {
    instance: Arc<Instance>,
    incarnation: Incarnation,
    registered_at: Option<SystemTime>,
    standing: Standing,
    load: Arc<PublishedLoad>,
}

impl Member {
    /// For backends: a registered member.
    #[must_use]
    pub fn new(
        instance: Arc<Instance>,
        incarnation: Incarnation,
        load: Arc<PublishedLoad>,
    ) -> Self {
        let standing = Standing::Registered;
        Self {
            instance,
            incarnation,
            registered_at: None,
            standing,
            load,
        }
    }

    /// The same member with the time at which it says it registered.
    #[must_use]
    pub fn with_registered_at(mut self, at: Option<SystemTime>) -> Self {
        self.registered_at = at;
        self
    }

    /// The same member in another standing.
    #[must_use]
    pub fn with_standing(mut self, standing: Standing) -> Self {
        self.standing = standing;
        self
    }

    /// What it says of itself.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Its name within the service.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        self.instance.id()
    }

    /// Which life of the instance this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// When this incarnation began, by the server's own wall clock: good for showing and for
    /// warm-up, not for ordering.
    #[must_use]
    pub fn registered_at(&self) -> Option<SystemTime> {
        self.registered_at
    }

    /// How far it can be believed to be there.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The load it publishes. The same object in every snapshot of one incarnation, so it may be
    /// kept and read at any time.
    #[must_use]
    pub fn load(&self) -> &Arc<PublishedLoad> {
        &self.load
    }

    /// Whether `other` says the same, its load aside.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.incarnation == other.incarnation
            && self.standing == other.standing
            && (Arc::ptr_eq(&self.instance, &other.instance) || self.instance == other.instance)
    }
}

/// What a registry says of one service at one revision. Immutable.
#[derive(Clone, Debug)]
pub struct Snapshot {
    service: ServiceName,
    members: Arc<[Member]>,
    revision: Revision,
    freshness: Freshness,
    cause: Option<Error>,
    skipped: usize,
    left_out: usize,
}

impl Snapshot {
    /// For backends: a live snapshot. `members` may come in any order; of several with one id the
    /// last stands.
    #[must_use]
    pub fn new(
        service: ServiceName,
        members: impl IntoIterator<Item = Member>,
        revision: Revision,
    ) -> Self {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort_by(|a, b| a.id().cmp(b.id()));
        members.dedup_by(|later, earlier| {
            let same = later.id() == earlier.id();
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        let freshness = Freshness::Live;
        Self {
            service,
            members: members.into(),
            revision,
            freshness,
            cause: None,
            skipped: 0,
            left_out: 0,
        }
    }

    /// The same snapshot in another freshness.
    #[must_use]
    pub fn with_freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }

    /// The same snapshot, with the error because of which it is stale.
    #[must_use]
    pub fn with_cause(mut self, cause: Error) -> Self {
        self.cause = Some(cause);
        self
    }

    /// The same snapshot, with the number of entries that could not be understood.
    #[must_use]
    pub fn with_skipped(mut self, skipped: usize) -> Self {
        self.skipped = skipped;
        self
    }

    /// The same snapshot, with the number of pairs that were left out of its members' metadata.
    #[must_use]
    pub fn with_left_out(mut self, left_out: usize) -> Self {
        self.left_out = left_out;
        self
    }

    /// Which service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The members, sorted by id, each id once. May be empty.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member named `id`.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Member> {
        let index = self
            .members
            .binary_search_by(|member| member.id().as_str().cmp(id))
            .ok()?;
        self.members.get(index)
    }

    /// Where in the registry's history it stands.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether it is kept up to date.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// The error because of which it is stale, where there is one. What failed after that is in
    /// [`Watch::last_error`](crate::Watch::last_error).
    #[must_use]
    pub fn cause(&self) -> Option<&Error> {
        self.cause.as_ref()
    }

    /// How many entries of the registry could not be understood and were left out.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// How many pairs of its members' metadata were left out, as they are beyond the limits of
    /// [`Metadata`](crate::Metadata). Programs other than plimsoll write such; the members are there.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

/// The members, by id.
impl<'a> IntoIterator for &'a Snapshot {
    type Item = &'a Member;
    type IntoIter = std::slice::Iter<'a, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.members.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, port: u16) -> Member {
        let instance = Instance::builder("s", "h", port)
            .with_id(id)
            .build()
            .unwrap();
        Member::new(Arc::new(instance), Incarnation::random(), Arc::default())
    }

    #[test]
    fn members_are_sorted_and_each_id_stands_once_the_last_one_winning() {
        let members = [member("b", 1), member("a", 2), member("b", 3)];
        let service = ServiceName::new("s").unwrap();
        let snapshot = Snapshot::new(service, members, Revision::new(1, 1));
        let seen: Vec<_> = snapshot
            .members()
            .iter()
            .map(|m| (m.id().as_str(), m.instance().port()))
            .collect();
        assert_eq!(seen, [("a", 2), ("b", 3)]);
        assert!(snapshot.get("a").is_some() && snapshot.get("c").is_none());
    }

    #[test]
    fn a_borrowed_snapshot_is_its_members_in_their_order() {
        let members = [member("b", 1), member("a", 2)];
        let snapshot = Snapshot::new("s".parse().unwrap(), members, Revision::new(1, 1));
        let mut ids = Vec::new();
        for member in &snapshot {
            ids.push(member.id().as_str());
        }
        assert_eq!(ids, ["a", "b"]);
        assert!(
            std::iter::zip(&snapshot, snapshot.members()).all(|(one, other)| one.is_same(other))
        );
    }

    #[test]
    fn a_load_is_absent_until_the_first_report() {
        let load = PublishedLoad::new();
        assert_eq!(load.get(), None);
        load.store(0, Timestamp::ZERO);
        let report = load.report().unwrap();
        assert_eq!(
            (report.load, report.before, report.received),
            (0, 0, Timestamp::ZERO)
        );
        load.store(7, Timestamp::from_nanos(3));
        let report = load.report().unwrap();
        assert_eq!((report.load, report.before), (7, 0));
    }

    #[test]
    fn revisions_of_two_epochs_are_never_before_each_other() {
        let old = Revision::new(1, 5);
        assert!(Revision::new(1, 4).is_before(old) && !old.is_before(old));
        assert!(!Revision::new(2, 1).is_before(old) && !old.is_before(Revision::new(2, 1)));
    }
}
