//! Deciding which losses to believe.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_discovery_api::{InstanceId, Member, Standing, Timestamp};
use tokio::time::Instant;

use crate::HoldDown;

/// Remembers the losses that nobody announced, and holds them down when they come in mass.
#[derive(Debug)]
pub(super) struct Losses {
    policy: HoldDown,
    /// Lost within the window, believed so far.
    recent: BTreeMap<InstanceId, (Instant, Member)>,
    /// Held down: the members, and until when.
    suspects: BTreeMap<InstanceId, (Instant, Member)>,
}

impl Losses {
    pub(super) fn new(policy: HoldDown) -> Self {
        Self {
            policy,
            recent: BTreeMap::new(),
            suspects: BTreeMap::new(),
        }
    }

    /// Members held down, in the order of their ids.
    pub(super) fn suspects(&self) -> impl Iterator<Item = &Member> {
        self.suspects.values().map(|(_, member)| member)
    }

    /// Takes in a loss that nobody announced.
    pub(super) fn lost(&mut self, member: Member, now: Instant) {
        self.recent.insert(member.id().clone(), (now, member));
    }

    /// The instance is there, or has said that it goes: nothing is left to suspect. Returns what
    /// it was when it was lost.
    pub(super) fn resolve(&mut self, id: &str) -> Option<Member> {
        let recent = self.recent.remove(id);
        self.suspects
            .remove(id)
            .or(recent)
            .map(|(_, member)| member)
    }

    /// Judges the recent losses, of a set of which `remaining` are left. Returns whether the
    /// suspects changed.
    pub(super) fn judge(&mut self, remaining: usize, now: Instant) -> bool {
        let window = self.policy.window;
        self.recent
            .retain(|_, (at, _)| now.duration_since(*at) <= window);
        // Those held down earlier in the same wave count with it.
        let lost = self.recent.len() + self.suspects.len();
        let before = remaining + lost;
        #[expect(clippy::cast_precision_loss, reason = "a fraction of a member count")]
        let in_mass =
            before >= self.policy.min_members && lost as f64 > before as f64 * self.policy.fraction;
        if self.recent.is_empty() || !(in_mass || remaining == 0) {
            return false;
        }
        let since = Timestamp::from(now.into_std());
        let until = now + self.policy.grace;
        for (id, (_, member)) in std::mem::take(&mut self.recent) {
            tracing::warn!(
                service = %member.instance().service(), instance = %id,
                "lost together with {lost} of {before}; held down as suspect"
            );
            let member = member.with_standing(Standing::Suspect { since });
            self.suspects.insert(id, (until, member));
        }
        true
    }

    /// The registry is back after `away`. If that was longer than the grace, nobody could have
    /// registered, and every suspect gets its full grace again. Shorter interruptions change
    /// nothing, or a flapping connection would keep suspects for ever.
    pub(super) fn returned_after(&mut self, away: Duration, now: Instant) {
        if away < self.policy.grace {
            return;
        }
        let until = now + self.policy.grace;
        for (end, _) in self.suspects.values_mut() {
            *end = until;
        }
    }

    /// When the next suspect is to be dropped.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.suspects.values().map(|(until, _)| *until).min()
    }

    /// Drops the suspects whose time is up. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.suspects.len();
        self.suspects.retain(|_, (until, _)| *until > now);
        self.suspects.len() != before
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_discovery_api::{Incarnation, Instance};

    use super::*;

    fn member(id: usize) -> Member {
        let instance = Instance::builder("s", "h", 1)
            .with_id(format!("{id:03}"))
            .build()
            .unwrap();
        Member::new(Arc::new(instance), Incarnation::random(), Arc::default())
    }

    /// Loses `lost` of `members` at once; how many become suspect?
    fn suspects(members: usize, lost: usize) -> usize {
        let mut losses = Losses::new(HoldDown::default());
        let now = Instant::now();
        (0..lost).for_each(|id| losses.lost(member(id), now));
        losses.judge(members - lost, now);
        losses.suspects().count()
    }

    #[test]
    fn a_crash_or_two_is_believed_a_mass_loss_is_not() {
        assert_eq!(suspects(5, 1), 0);
        assert_eq!(suspects(10, 3), 0);
        assert_eq!(suspects(10, 4), 4);
        assert_eq!(suspects(5, 2), 2);
        assert_eq!(
            suspects(4, 3),
            0,
            "below the minimum a fraction says nothing"
        );
    }

    #[test]
    fn losing_the_last_member_is_never_believed_at_once() {
        for members in 1..=6 {
            assert_eq!(suspects(members, members), members);
        }
    }

    #[test]
    fn a_wave_that_comes_one_by_one_is_held_down_with_its_first_victims() {
        let mut losses = Losses::new(HoldDown::default());
        let now = Instant::now();
        for id in 0..10 {
            losses.lost(member(id), now + Duration::from_millis(100 * id as u64));
            losses.judge(9 - id, now + Duration::from_millis(100 * id as u64));
        }
        assert_eq!(losses.suspects().count(), 10);
    }

    #[test]
    fn losses_far_apart_are_not_a_wave() {
        let mut losses = Losses::new(HoldDown::default());
        let start = Instant::now();
        for id in 0..9 {
            let now = start + Duration::from_secs(11 * id as u64);
            losses.lost(member(id), now);
            losses.judge(9 - id, now);
        }
        assert_eq!(losses.suspects().count(), 0);
    }

    #[test]
    fn suspects_end_with_the_grace_unless_the_registry_was_away_for_longer() {
        let policy = HoldDown::default();
        let mut losses = Losses::new(policy);
        let now = Instant::now();
        losses.lost(member(1), now);
        losses.judge(0, now);
        let later = now + policy.grace;
        assert_eq!(losses.next_expiry(), Some(later));
        losses.returned_after(policy.grace / 2, later);
        assert_eq!(losses.next_expiry(), Some(later));
        losses.returned_after(policy.grace, later);
        assert!(!losses.expire(later) && losses.expire(later + policy.grace));
        assert_eq!(losses.suspects().count(), 0);
    }
}
