//! Who is under way, and who waits.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use plimsoll_discovery_api::ErrorKind;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::limit::Limit;
use super::patience::Patience;
use super::{AdmissionPolicy, CLASSES, Class};

/// So many calls that keep something alive are under way whatever else is: they wait behind no
/// claim, and an answer to one takes milliseconds where anything is answered.
const RESERVED: usize = 8;

/// See [`State::sweep_at`]. Twice as many as are left after it: so each is looked at twice at most.
const SWEEP_AT: usize = 64;

pub(super) struct State<T> {
    limit: Limit,
    patience: Patience,
    /// Permits that are held.
    under_way: usize,
    /// Those of them that keep something alive.
    alive: usize,
    /// Calls that nobody waits for any more, and the server may still be busy with; the oldest first.
    abandoned: VecDeque<Abandoned>,
    waiting: [VecDeque<oneshot::Sender<T>>; CLASSES],
    /// How many may wait in a queue before it is looked through for those that have left it.
    sweep_at: [usize; CLASSES],
    /// Whether the last one of claims and others was a claim.
    was_claim: bool,
}

/// A call that was given up.
struct Abandoned {
    sent: Instant,
    /// As long again as it had been waited for: no more is known of it.
    until: Instant,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// By an answer, whatever it said, within this limit.
    Answered(Duration),
    /// By an answer: too much is asked.
    Refused,
    /// There was none in time.
    TimedOut,
    /// The connection broke, or there was none; nobody works on it.
    Failed,
    /// It was dropped.
    Abandoned,
}

impl Outcome {
    pub(super) fn of(error: ErrorKind, limit: Duration) -> Self {
        match error {
            ErrorKind::TimedOut => Self::TimedOut,
            // That a lease has ended is most often known here, and nothing was sent.
            ErrorKind::Unavailable | ErrorKind::Closed | ErrorKind::LeaseExpired => Self::Failed,
            ErrorKind::ResourceExhausted => Self::Refused,
            _ => Self::Answered(limit),
        }
    }
}

impl<T> State<T> {
    pub(super) fn new(policy: AdmissionPolicy, lease: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            limit: Limit::new(policy, now),
            patience: Patience::new(lease, now),
            under_way: 0,
            alive: 0,
            abandoned: VecDeque::new(),
            waiting: std::array::from_fn(|_| VecDeque::new()),
            sweep_at: [SWEEP_AT; CLASSES],
            was_claim: false,
        }
    }

    /// What a call is to be waited for that usually has `usual`.
    pub(super) fn patience(&mut self, usual: Duration) -> Duration {
        self.patience.of(usual, Instant::now())
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Whether a call of `class` may go at once, as nobody waits; it is counted then.
    pub(super) fn joins_at_once(&mut self, class: Class) -> bool {
        self.expire(Instant::now());
        let may = self.waiting.iter().all(VecDeque::is_empty) && self.has_room(class);
        if may {
            self.join(class);
        }
        may
    }

    pub(super) fn wait(&mut self, class: Class, sender: oneshot::Sender<T>) {
        let (queue, sweep_at) = (
            &mut self.waiting[class as usize],
            &mut self.sweep_at[class as usize],
        );
        if queue.len() >= *sweep_at {
            queue.retain(|sender| !sender.is_closed());
            *sweep_at = SWEEP_AT.max(queue.len() * 2);
        }
        queue.push_back(sender);
    }

    fn join(&mut self, class: Class) {
        self.under_way += 1;
        self.alive += usize::from(class == Class::Liveness);
    }

    /// A permit is given back.
    pub(super) fn leave(&mut self, class: Class) {
        self.under_way -= 1;
        self.alive -= usize::from(class == Class::Liveness);
    }

    fn has_room(&mut self, class: Class) -> bool {
        let window = self.limit.get();
        // Half of the window at most is kept free for what is given up, so that something is always
        // tried, whose end tells.
        let taken = self.under_way + self.abandoned.len().min(window / 2);
        let has_room = match class {
            Class::Liveness => self.alive < RESERVED || taken < window + RESERVED,
            _ => taken < window,
        };
        if !has_room {
            self.limit.keeps_waiting();
        }
        has_room
    }

    /// Whose turn it is, who is counted from now on.
    pub(super) fn next(&mut self) -> Option<(Class, oneshot::Sender<T>)> {
        let of_both = if self.was_claim {
            [Class::Other, Class::Claim]
        } else {
            [Class::Claim, Class::Other]
        };
        for class in [
            Class::Liveness,
            Class::Removal,
            of_both[0],
            of_both[1],
            Class::Load,
        ] {
            let index = class as usize;
            while self.waiting[index]
                .front()
                .is_some_and(oneshot::Sender::is_closed)
            {
                self.waiting[index].pop_front();
            }
            if self.waiting[index].is_empty() {
                continue;
            }
            if !self.has_room(class) {
                return None;
            }
            self.join(class);
            if matches!(class, Class::Claim | Class::Other) {
                self.was_claim = class == Class::Claim;
            }
            return self.waiting[index]
                .pop_front()
                .map(|sender| (class, sender));
        }
        None
    }

    /// A call that was sent at `sent` has ended.
    pub(super) fn ended(&mut self, class: Class, sent: Instant, outcome: Outcome) {
        let now = Instant::now();
        self.leave(class);
        match outcome {
            Outcome::Answered(limit) => {
                self.limit.answered(class, sent, now);
                if class == Class::Claim && now.duration_since(sent) < limit / 2 {
                    self.patience.answered_soon(sent, now);
                }
            }
            Outcome::Refused => self.limit.overloaded(sent, now),
            Outcome::TimedOut => {
                self.limit.overloaded(sent, now);
                if class == Class::Claim {
                    self.patience.timed_out(sent, now);
                }
            }
            Outcome::Failed | Outcome::Abandoned => {}
        }
        match outcome {
            // Servers answer by and large in the order in which they are asked: what was sent before
            // is done with.
            Outcome::Answered(_) | Outcome::Refused => {
                self.abandoned.retain(|other| other.sent > sent);
            }
            Outcome::TimedOut | Outcome::Abandoned => {
                let until = now + now.duration_since(sent);
                self.abandoned.push_back(Abandoned { sent, until });
            }
            Outcome::Failed => {}
        }
        self.expire(now);
    }

    fn expire(&mut self, now: Instant) {
        self.abandoned.retain(|call| call.until > now);
    }
}

impl<T> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("limit", &self.limit.get())
            .field("under_way", &self.under_way)
            .field("abandoned", &self.abandoned.len())
            .field("waiting", &self.waiting.each_ref().map(VecDeque::len))
            .finish()
    }
}
