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
    /// Lost within the window.
    recent: BTreeMap<InstanceId, Loss>,
    /// Held down: the members, and until when.
    suspects: BTreeMap<InstanceId, (Instant, Member)>,
    /// No earlier than this is there a loss to be judged, and a suspect to be dropped. Whoever asks
    /// looks here first: a wave of losses comes one by one, and to look through all of them each
    /// time would take its square.
    judge_at: Option<Instant>,
    expire_at: Option<Instant>,
}

#[derive(Debug)]
struct Loss {
    member: Member,
    at: Instant,
    /// Whether it has been told. Until then the member is shown as if nothing had happened.
    believed: bool,
}

impl Losses {
    pub(super) fn new(policy: HoldDown) -> Self {
        Self {
            policy,
            recent: BTreeMap::new(),
            suspects: BTreeMap::new(),
            judge_at: None,
            expire_at: None,
        }
    }

    /// Members that are lost and shown all the same.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Member> {
        let unsettled = self.recent.values().filter(|loss| !loss.believed);
        let suspects = self.suspects.values().map(|(_, member)| member);
        unsettled.map(|loss| &loss.member).chain(suspects)
    }

    /// Takes in a loss that nobody announced.
    pub(super) fn lost(&mut self, member: Member, at: Instant) {
        let loss = Loss {
            at,
            believed: false,
            member,
        };
        self.recent.insert(loss.member.id().clone(), loss);
        sooner(&mut self.judge_at, at + self.policy.settle);
    }

    /// Takes in a loss that is not to be believed.
    pub(super) fn hold(&mut self, member: Member, now: Instant) {
        let since = Timestamp::from(now.into_std());
        let member = member.with_standing(Standing::Suspect { since });
        let until = now + self.policy.grace;
        self.suspects.insert(member.id().clone(), (until, member));
        sooner(&mut self.expire_at, until);
    }

    /// The instance is there, or has said that it goes: nothing is left to suspect. Returns what
    /// it was when it was lost, and whether it is still shown.
    pub(super) fn resolve(&mut self, id: &str) -> Option<(Member, bool)> {
        let recent = self.recent.remove(id);
        let suspect = self.suspects.remove(id).map(|(_, member)| (member, true));
        suspect.or_else(|| recent.map(|loss| (loss.member, !loss.believed)))
    }

    /// Judges the losses that have settled, of a set of which `remaining` are left. Returns
    /// whether that changes what is shown.
    pub(super) fn judge(&mut self, remaining: usize, now: Instant) -> bool {
        if self.judge_at.is_none_or(|at| at > now) {
            return false;
        }
        let HoldDown {
            window,
            settle,
            fraction,
            min_members,
            ..
        } = self.policy;
        self.recent
            .retain(|_, loss| !loss.believed || now.duration_since(loss.at) <= window);
        let settled = |loss: &Loss| !loss.believed && loss.at + settle <= now;
        if !self.recent.values().any(settled) {
            self.judge_at = self.next_judgement();
            return false;
        }
        // Those held down earlier in the same wave count with it.
        let lost = self.recent.len() + self.suspects.len();
        let before = remaining + lost;
        #[expect(clippy::cast_precision_loss, reason = "a fraction of a member count")]
        let in_mass = before >= min_members && lost as f64 > before as f64 * fraction;
        if in_mass || remaining == 0 {
            tracing::warn!(lost, before, "lost together; held down as suspect");
            for (_, loss) in std::mem::take(&mut self.recent) {
                self.hold(loss.member, now);
            }
        } else {
            let settled = self.recent.values_mut().filter(|loss| settled(loss));
            settled.for_each(|loss| loss.believed = true);
        }
        self.judge_at = self.next_judgement();
        true
    }

    fn next_judgement(&self) -> Option<Instant> {
        let unsettled = self.recent.values().filter(|loss| !loss.believed);
        unsettled.map(|loss| loss.at + self.policy.settle).min()
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
        self.expire_at = Some(until).filter(|_| !self.suspects.is_empty());
    }

    /// When the next loss is to be judged or the next suspect dropped.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.judge_at.into_iter().chain(self.expire_at).min()
    }

    /// Drops the suspects whose time is up. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        if self.expire_at.is_none_or(|at| at > now) {
            return false;
        }
        let before = self.suspects.len();
        self.suspects.retain(|_, (until, _)| *until > now);
        self.expire_at = self.suspects.values().map(|(until, _)| *until).min();
        self.suspects.len() != before
    }
}

fn sooner(deadline: &mut Option<Instant>, at: Instant) {
    *deadline = Some(deadline.map_or(at, |deadline| deadline.min(at)));
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

    /// Loses `lost` of `members`, so far apart; how many are suspect in the end, and how many
    /// were shown at the least on the way?
    fn suspects(members: usize, lost: usize, apart: Duration) -> (usize, usize) {
        let mut losses = Losses::new(HoldDown::default());
        let (mut now, mut least) = (Instant::now(), members);
        let settle = losses.policy.settle;
        for id in 0..lost {
            losses.lost(member(id), now);
            losses.judge(members - id - 1, now);
            now += apart;
            if apart > settle {
                losses.judge(members - id - 1, now);
            }
            least = least.min(members - id - 1 + losses.shown().count());
        }
        losses.judge(members - lost, now + settle);
        least = least.min(members - lost + losses.shown().count());
        let suspect = losses
            .shown()
            .filter(|member| !member.standing().is_registered());
        (suspect.count(), least)
    }

    /// Twenty thousand at once, each of which is followed by a look at what is due. To look through
    /// all of them each time took minutes.
    #[test]
    fn a_wave_of_losses_takes_time_in_proportion_to_its_size() {
        let started = std::time::Instant::now();
        let mut losses = Losses::new(HoldDown::default());
        let (count, now) = (20_000, Instant::now());
        for id in 0..count {
            losses.lost(member(id), now);
            assert!(!losses.judge(count - id, now));
            assert_eq!(losses.next_deadline(), Some(now + losses.policy.settle));
        }
        let judged = now + losses.policy.settle;
        assert!(losses.judge(0, judged));
        for _ in 0..count {
            assert!(!losses.judge(0, judged) && !losses.expire(judged));
            assert_eq!(losses.next_deadline(), Some(judged + losses.policy.grace));
        }
        assert!(losses.expire(judged + losses.policy.grace));
        assert_eq!((losses.shown().count(), losses.next_deadline()), (0, None));
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
    }

    #[test]
    fn a_crash_or_two_is_believed_a_mass_loss_is_not() {
        let at_once = Duration::ZERO;
        assert_eq!(suspects(5, 1, at_once), (0, 4));
        assert_eq!(suspects(10, 3, at_once), (0, 7));
        assert_eq!(suspects(10, 4, at_once), (4, 10));
        assert_eq!(suspects(5, 2, at_once), (2, 5));
        let few = "below the minimum a fraction says nothing";
        assert_eq!(suspects(4, 3, at_once), (0, 1), "{few}");
    }

    #[test]
    fn losing_the_last_member_is_never_believed_at_once() {
        for members in 1..=6 {
            assert_eq!(
                suspects(members, members, Duration::ZERO),
                (members, members)
            );
        }
    }

    #[test]
    fn a_wave_within_the_settling_time_shows_no_gap() {
        assert_eq!(suspects(10, 6, Duration::from_millis(2)), (6, 10));
    }

    #[test]
    fn a_slow_wave_is_held_down_with_its_first_victims() {
        assert_eq!(suspects(10, 10, Duration::from_millis(500)), (10, 7));
    }

    #[test]
    fn losses_far_apart_are_not_a_wave() {
        let (suspect, least) = suspects(10, 9, Duration::from_secs(11));
        assert_eq!((suspect, least), (0, 1));
    }

    #[test]
    fn a_member_that_returns_before_it_is_missed_was_never_gone() {
        let mut losses = Losses::new(HoldDown::default());
        let now = Instant::now();
        losses.lost(member(1), now);
        let (_, shown) = losses.resolve("001").unwrap();
        assert!(shown);
        assert!(!losses.judge(0, now + losses.policy.settle));
        assert_eq!(losses.next_deadline(), None);
    }

    #[test]
    fn suspects_end_with_the_grace_unless_the_registry_was_away_for_longer() {
        let policy = HoldDown::default();
        let mut losses = Losses::new(policy);
        let now = Instant::now();
        losses.hold(member(1), now);
        let later = now + policy.grace;
        assert_eq!(losses.next_deadline(), Some(later));
        losses.returned_after(policy.grace / 2, later);
        assert_eq!(losses.next_deadline(), Some(later));
        losses.returned_after(policy.grace, later);
        assert!(!losses.expire(later) && losses.expire(later + policy.grace));
        assert_eq!(losses.shown().count(), 0);
    }
}
