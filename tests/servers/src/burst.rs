//! Many registrations of one handle at once, and what becomes of them.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use plimsoll_discovery_api::{Incarnation, Instance, Registration, RegistrationState, Registry};
use tokio::time::sleep;

const LOOK: Duration = Duration::from_millis(20);

/// Registrations that were made at once, as far as they have been followed.
#[derive(Debug)]
pub struct Burst {
    /// All of them, in the order in which they were made.
    pub registrations: Vec<Registration>,
    began: Instant,
    lives: Vec<Option<Incarnation>>,
    losses: usize,
    progress: Vec<(Duration, usize)>,
}

impl Burst {
    /// Registers `instances`, and waits for none of them.
    pub async fn of(
        registry: &dyn Registry,
        instances: impl IntoIterator<Item = Instance>,
    ) -> Self {
        let began = Instant::now();
        let mut registrations = Vec::new();
        for instance in instances {
            let registration = registry.register(instance).await;
            registrations.push(registration.expect("an instance to be taken"));
        }
        Self {
            lives: vec![None; registrations.len()],
            registrations,
            began,
            losses: 0,
            progress: Vec::new(),
        }
    }

    /// Follows them until all are live, for at most `limit` since they were made. Returns how long
    /// that took, if they are.
    pub async fn until_live(&mut self, limit: Duration) -> Option<Duration> {
        loop {
            let live = self.look();
            if live == self.registrations.len() {
                return Some(self.began.elapsed());
            }
            if self.began.elapsed() >= limit {
                return None;
            }
            sleep(LOOK).await;
        }
    }

    /// Follows them for `span`.
    pub async fn during(&mut self, span: Duration) {
        let began = Instant::now();
        while began.elapsed() < span {
            self.look();
            sleep(LOOK).await;
        }
    }

    /// How many of them are live now. What was lost since the last look is counted.
    pub fn look(&mut self) -> usize {
        let mut live = 0;
        for (registration, life) in self.registrations.iter().zip(&mut self.lives) {
            let state = registration.state();
            let now = state.incarnation();
            let is_another = now.is_some() && life.is_some() && now != *life;
            if is_another || (matches!(state, RegistrationState::Lost { .. }) && life.is_some()) {
                self.losses += 1;
                *life = None;
            }
            if state.is_live() {
                *life = now;
                live += 1;
            }
        }
        self.progress.push((self.began.elapsed(), live));
        live
    }

    /// How often one that was live was found to be lost, or in another life.
    #[must_use]
    pub const fn losses(&self) -> usize {
        self.losses
    }

    /// The longest time in which no more of them became live, of those that were to.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        let (mut most, mut since, mut longest) = (0, Duration::ZERO, Duration::ZERO);
        for (at, live) in &self.progress {
            if most < self.registrations.len() {
                longest = longest.max(at.saturating_sub(since));
            }
            if *live > most {
                (most, since) = (*live, *at);
            }
        }
        longest
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, live) = self.progress.last().copied().unwrap_or_default();
        write!(
            f,
            "{live} of {} live after {:.2} s, {} lost, longest pause {:.2} s, machine's load {}",
            self.registrations.len(),
            at.as_secs_f64(),
            self.losses,
            self.longest_pause().as_secs_f64(),
            machine_load(),
        )
    }
}

/// The average of the last minute, for what is read beside a time.
fn machine_load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
