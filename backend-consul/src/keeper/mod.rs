//! What keeps the registrations of a handle alive: one session, and one beat for all their checks.
//!
//! All checks are passed together, so that those of a process that dies lapse together too, and
//! clients see its end as one loss and not as many. Only what has failed is passed in between.

mod heartbeat;
mod pass;
mod reap;
mod retry;
mod write;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::reap::Tombstone;
use crate::config::Config;
use crate::http::agent::Agent;
use crate::http::wire::Registration;
use crate::keys::Names;
use crate::life::Life;
use crate::session::{Link, Session};
use crate::uncertain::UncertainCalls;

/// For so long after a call was given up, what it would have done is looked for. Longer than any
/// pause of an agent that its servers would not notice.
const DOUBT: Duration = Duration::from_secs(60);
/// Registrations that follow each other this closely are aligned by one beat.
const ALIGN: Duration = Duration::from_millis(100);

/// The handle's end. Dropping it ends the task, which closes the session.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

struct Running {
    /// Its end is the task's.
    _alive: watch::Sender<()>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    agent: Agent,
    config: Arc<Config>,
    link: watch::Sender<Link>,
    /// What the task is asked for.
    wanted: watch::Sender<Wanted>,
    /// When the beat began that ended last.
    beaten: watch::Sender<Option<Instant>>,
    /// The first tombstone has come.
    enqueued: Notify,
    kept: Mutex<Kept>,
    uncertain: UncertainCalls,
}

/// What the task is asked for, beyond its own rhythm.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    /// A session, unless there is one; so many attempts were over when it was asked.
    session: Option<u64>,
    /// A beat by then.
    beat: Option<Instant>,
    /// A beat then, unless more registrations follow before.
    align: Option<Instant>,
}

#[derive(Debug, Default)]
struct Kept {
    lives: Vec<Weak<Life>>,
    tombstones: Vec<Tombstone>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("link", &*self.shared.link.borrow())
            .finish_non_exhaustive()
    }
}

impl Keeper {
    pub(crate) fn new(agent: Agent, config: Arc<Config>) -> Self {
        let shared = Shared {
            agent,
            config,
            link: watch::Sender::new(Link::default()),
            wanted: watch::Sender::new(Wanted::default()),
            beaten: watch::Sender::new(None),
            enqueued: Notify::new(),
            kept: Mutex::default(),
            uncertain: UncertainCalls::default(),
        };
        Self {
            shared: Arc::new(shared),
            running: Mutex::new(None),
        }
    }

    /// The session; opened, if there is none. It is the task that opens it, so that none is left
    /// over when the caller gives up.
    pub(crate) async fn session(&self) -> Result<Session> {
        self.run();
        let mut links = self.shared.link.subscribe();
        let asked = links.borrow_and_update().attempts;
        self.shared
            .wanted
            .send_modify(|wanted| wanted.session = Some(asked));
        let settled = |link: &Link| link.session.is_some() || link.attempts > asked;
        let link = links.wait_for(settled).await.map(|link| link.clone());
        match link {
            Ok(Link {
                session: Some(session),
                ..
            }) => Ok(session),
            Ok(Link {
                cause: Some(cause), ..
            }) => Err(cause),
            _ => Err(Error::new(ErrorKind::Closed, "the handle is being dropped")),
        }
    }

    /// The agent's node, while there is a session that tells.
    pub(crate) fn node(&self) -> Option<Arc<str>> {
        let link = self.shared.link.borrow();
        link.session
            .as_ref()
            .map(|session| Arc::clone(&session.node))
    }

    /// Whether `session` is still the handle's, and cannot have run out.
    pub(crate) fn is_certain_of(&self, session: &str) -> bool {
        let link = self.shared.link.borrow();
        link.session.as_ref().is_some_and(|known| {
            *known.id == *session && known.is_certain(self.shared.config.session_ttl)
        })
    }

    /// Passes the check of `life` from now on, in time with all others; unless its session is no
    /// more the handle's, whose end was told to those alone that were kept then.
    pub(crate) fn keep(&self, life: &Arc<Life>) -> Result<()> {
        let mut kept = self.shared.kept();
        kept.lives.retain(|life| life.strong_count() > 0);
        kept.lives.push(Arc::downgrade(life));
        drop(kept);
        let link = self.shared.link.borrow();
        if link.session.as_ref().is_none_or(|s| s.id != life.session) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the session has just ended",
            ));
        }
        drop(link);
        let align = Some(Instant::now() + ALIGN);
        self.shared
            .wanted
            .send_modify(|wanted| wanted.align = align);
        Ok(())
    }

    /// Nothing more is done for `life`, which is being removed. Returns whether something that was
    /// begun for it before may yet be carried out.
    pub(crate) fn forsake(&self, life: Incarnation) -> bool {
        for kept in self.shared.lives() {
            if kept.incarnation == life {
                kept.end("it is being removed", None);
            }
        }
        self.uncertain().concern(life)
    }

    /// What was begun and may yet be carried out.
    pub(crate) fn uncertain(&self) -> &UncertainCalls {
        &self.shared.uncertain
    }

    /// Tells the agent of `life` again; see [`Shared::write`].
    pub(crate) async fn write(&self, life: &Life, new: Option<Arc<Registration>>) -> Result<()> {
        Ok(self.shared.write(life, new).await?)
    }

    /// Sees to it that nothing comes of calls for `life` that were given up.
    pub(crate) fn reap(&self, names: Names, life: Incarnation) {
        self.uncertain().hand_over(life);
        self.shared.enqueue(Tombstone {
            names,
            life,
            until: Instant::now() + DOUBT,
        });
    }

    /// Asks for proof that the session lives.
    pub(crate) fn doubt_session(&self, session: &str) {
        self.shared.link.send_if_modified(|link| {
            if let Some(known) = &mut link.session
                && *known.id == *session
                && let Some(past) = Instant::now().checked_sub(self.shared.config.session_ttl)
            {
                known.confirmed = known.confirmed.min(past);
            }
            false
        });
        self.want_beat(Instant::now());
    }

    /// Returns once `life` is known to have been passed lately, or why not.
    pub(crate) async fn confirm(&self, life: &Life) -> Result<()> {
        self.run();
        let asked = Instant::now();
        let lately = self.shared.config.fresh_pass();
        let mut beats = self.shared.beaten.subscribe();
        loop {
            if let Some(cause) = life.ended() {
                return Err(cause);
            }
            let (passed, failure) = life.last_pass();
            if passed + lately > asked && self.is_certain_of(&life.session) {
                return Ok(());
            }
            if beats
                .borrow_and_update()
                .is_some_and(|began| began >= asked)
            {
                let cause = failure.or_else(|| self.shared.link.borrow().cause.clone());
                return Err(cause.unwrap_or_else(|| {
                    Error::new(ErrorKind::Unavailable, "the session could not be renewed")
                }));
            }
            self.want_beat(asked);
            if beats.changed().await.is_err() {
                return Err(Error::new(ErrorKind::Closed, "the handle is being dropped"));
            }
        }
    }

    fn want_beat(&self, by: Instant) {
        self.shared.wanted.send_modify(|wanted| {
            wanted.beat = Some(wanted.beat.map_or(by, |beat| beat.min(by)));
        });
    }

    /// Starts the task in the present runtime, unless it runs in another that is still there.
    fn run(&self) {
        // A panic while the lock was held cannot have left it half changed.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().is_none_or(|r| r.task.is_finished()) {
            let (alive, end) = watch::channel(());
            let task = tokio::spawn(heartbeat::run(Arc::clone(&self.shared), end));
            *running = Some(Running {
                _alive: alive,
                task: task.abort_handle(),
            });
        }
    }
}

impl Shared {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lives that somebody holds and nothing has ended.
    fn lives(&self) -> Vec<Arc<Life>> {
        let mut kept = self.kept();
        kept.lives.retain(|life| life.strong_count() > 0);
        let lives = kept.lives.iter().filter_map(Weak::upgrade);
        lives.filter(|life| life.ended().is_none()).collect()
    }
}
