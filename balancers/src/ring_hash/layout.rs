//! What a ring is made of, kept to make the next from it.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use plimsoll_discovery_api::InstanceId;

use crate::md5::md5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) place: u32,
    pub(super) owner: u32,
}

/// An endpoint's identity, and the name it is laid out by where that is another.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) id: InstanceId,
    pub(super) authority: Option<String>,
}

#[derive(Clone)]
struct Member {
    label: Label,
    digests: u64,
}

/// Endpoints and all their points, also those hidden by another on the same place: when that one
/// leaves, they stand.
#[derive(Clone, Default)]
pub(super) struct Layout {
    members: Box<[Member]>,
    /// In ascending order; owners are indices into `members`.
    points: Arc<[Point]>,
}

/// Digests for an endpoint of mean weight; each gives four points.
const DIGESTS: u64 = 40;

impl Layout {
    /// For each label, as many points as its weight is due, at least four.
    ///
    /// Only points that this layout does not have are hashed and sorted. The result is the same as
    /// from an empty one. Labels should be sorted by id, each id once; of others points may be
    /// hashed again.
    pub(super) fn next(&self, labels: Vec<(Label, u32)>) -> Self {
        let sum: u64 = labels.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mean_digests = DIGESTS * labels.len() as u64;
        let member = |(label, weight): (Label, u32)| Member {
            label,
            digests: (mean_digests * u64::from(weight) / sum).max(1),
        };
        let members: Box<[_]> = labels.into_iter().map(member).collect();

        // Each step of the walk goes forth in either list or both, so those that stay keep their
        // order, and their points remain sorted.
        let mut owners = vec![None; self.members.len()];
        let (mut added, mut dropped) = (Vec::new(), Vec::new());
        let mut at = 0;
        for (member, owner) in members.iter().zip(0..) {
            let is_before = |old: &Member| old.label.id < member.label.id;
            while self.members.get(at).is_some_and(is_before) {
                at += 1;
            }
            let mut had = 0;
            if let Some(old) = self.members.get(at)
                && old.label == member.label
            {
                owners[at] = Some(owner);
                had = old.digests;
                at += 1;
            }
            member.label.lay_out(had..member.digests, owner, &mut added);
            member
                .label
                .lay_out(member.digests..had, owner, &mut dropped);
        }
        let all_stay = owners.iter().zip(0..).all(|(owner, at)| *owner == Some(at));
        let points = if all_stay && added.is_empty() && dropped.is_empty() {
            Arc::clone(&self.points)
        } else {
            self.merge(&owners, added, dropped)
        };
        Self { members, points }
    }

    /// The points of those who stay, by their new indices, without `dropped` and with `added`.
    fn merge(
        &self,
        owners: &[Option<u32>],
        mut added: Vec<Point>,
        mut dropped: Vec<Point>,
    ) -> Arc<[Point]> {
        added.sort_unstable_by_key(Point::order);
        dropped.sort_unstable_by_key(Point::order);
        let (mut added, mut dropped) = (&*added, &*dropped);
        let mut points = Vec::with_capacity(self.points.len() + added.len());
        // Before the next change points are but copied.
        let first = |changes: &[Point]| changes.first().map_or(u64::MAX, Point::order);
        let mut change = first(added).min(first(dropped));
        for old in self.points.iter() {
            let Some(owner) = owners[old.owner as usize] else {
                continue;
            };
            let point = Point {
                place: old.place,
                owner,
            };
            if point.order() >= change {
                let before = added.partition_point(|new| new.order() < point.order());
                points.extend_from_slice(&added[..before]);
                added = &added[before..];
                let is_dropped = dropped.first() == Some(&point);
                dropped = &dropped[usize::from(is_dropped)..];
                change = first(added).min(first(dropped));
                if is_dropped {
                    continue;
                }
            }
            points.push(point);
        }
        points.extend_from_slice(added);
        points.into()
    }

    pub(super) fn points(&self) -> Arc<[Point]> {
        Arc::clone(&self.points)
    }
}

impl Label {
    /// Appends the points of the digests of these numbers.
    fn lay_out(&self, numbers: Range<u64>, owner: u32, points: &mut Vec<Point>) {
        let name = self.authority.as_deref().unwrap_or(self.id.as_str());
        let mut message = String::new();
        for number in numbers {
            message.clear();
            // Writing to a string does not fail.
            let _ = write!(message, "{name}-{number}");
            let place = |bytes: &[u8]| {
                bytes
                    .iter()
                    .rev()
                    .fold(0, |n, &byte| n << 8 | u32::from(byte))
            };
            points.extend(md5(message.as_bytes()).chunks_exact(4).map(|bytes| Point {
                place: place(bytes),
                owner,
            }));
        }
    }
}

impl Point {
    /// As the derived order, in one comparison.
    fn order(&self) -> u64 {
        u64::from(self.place) << 32 | u64::from(self.owner)
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layout")
            .field("members", &self.members.len())
            .field("points", &self.points.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;
