//! The task: opens the session, and beats.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result, Rng};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use crate::agent::Beat;
use crate::fence::Value;
use crate::life::Life;
use crate::session::{Session, wanted};
use crate::wire::Operation;

/// So many passes are under way at one time: enough to be done at once, few beside the connections
/// that an agent grants.
const ABREAST: usize = 8;
/// What failed is repeated after these: at first at once, as it may have been nothing, and later no
/// faster than checks need it that still stand.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_millis(1500);

/// Runs until nobody holds the other end of `end`; then closes the session.
pub(super) async fn run(shared: Arc<Shared>, mut end: watch::Receiver<()>) {
    let mut asked = shared.wanted.subscribe();
    let mut rng = Rng::from_entropy();
    // An agent may well take what its servers do not answer.
    let (mut opening, mut beating) = (Trouble::default(), Trouble::default());
    let mut next = Instant::now() + shared.config.beat();
    loop {
        let wanted = *asked.borrow_and_update();
        let session = shared.link.borrow().session.clone();
        if let Some(attempts) = wanted.session
            && session.is_none()
            && shared.link.borrow().attempts == attempts
        {
            if let Some(until) = opening.until {
                tokio::select! {
                    _ = end.changed() => break,
                    () = sleep_until(until) => {}
                }
            }
            let opened = open(&shared).await;
            opening.was(opened, &mut rng);
            next = Instant::now() + shared.config.beat();
            continue;
        }
        let due = [wanted.beat, wanted.align].into_iter().flatten();
        let due = due.fold(next, Instant::min);
        let due = beating.until.map_or(due, |until| until.max(due));
        tokio::select! {
            biased;
            // An error, as nothing is ever sent.
            _ = end.changed() => break,
            changed = asked.changed() => if changed.is_err() { break },
            () = sleep_until(due) => {
                shared.wanted.send_if_modified(|wanted| {
                    (wanted.beat, wanted.align) = (None, None);
                    false
                });
                let began = Instant::now();
                let sound = tokio::select! {
                    _ = end.changed() => break,
                    sound = beat(&shared) => sound,
                };
                beating.was(sound, &mut rng);
                // A little early, so that handles that began as one do not beat as one.
                next = began + shared.config.beat().mul_f64(0.9 + 0.1 * rng.next_f64());
                if let Some(until) = beating.until {
                    next = next.min(until);
                }
                shared.beaten.send_replace(Some(began));
            }
        }
    }
    let session = shared.link.borrow().session.clone();
    if let Some(session) = session
        && let Err(failure) = shared.agent.destroy_session(&session.id).await
    {
        tracing::debug!(cause = %failure.error, "session not closed; it runs out");
    }
}

/// For how long nothing has succeeded, and until when nothing is tried. Every registration asks for
/// what it needs at a pace of its own; all of them together are no more often in the agent's ear than
/// one would be.
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Instant>,
    until: Option<Instant>,
}

impl Trouble {
    /// Takes note of how it went.
    fn was(&mut self, sound: bool, rng: &mut Rng) {
        if sound {
            *self = Self::default();
            return;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let pause = (now.duration_since(since) / 2).clamp(FIRST_RETRY, LAST_RETRY);
        // Those that fell into it as one do not come out of it as one.
        self.until = Some(now + pause.mul_f64(0.5 + 0.5 * rng.next_f64()));
    }
}

/// Returns whether there is a session now.
async fn open(shared: &Shared) -> bool {
    let opened = open_one(shared).await;
    let is_open = opened.is_ok();
    shared.link.send_modify(|link| {
        link.attempts += 1;
        match opened {
            Ok(session) => (link.session, link.cause) = (Some(session), None),
            Err(cause) => link.cause = Some(cause),
        }
    });
    is_open
}

async fn open_one(shared: &Shared) -> Result<Session> {
    let id = shared.agent.create_session(&wanted(&shared.config)).await?;
    let confirmed = Instant::now();
    let node = shared.agent.renew_session(&id).await?;
    let gone = || {
        Error::new(
            ErrorKind::Unavailable,
            "the session has ended as soon as it began",
        )
    };
    Ok(Session {
        id: id.into(),
        node: node.ok_or_else(gone)?.into(),
        confirmed,
    })
}

/// Renews the session and passes every check. Returns whether all of it succeeded.
async fn beat(shared: &Arc<Shared>) -> bool {
    let session = shared.link.borrow().session.clone();
    let certain = session
        .as_ref()
        .is_some_and(|session| session.is_certain(shared.config.session_ttl));
    // Who was held up for longer than the session lasts may have lost its ids to others, and must
    // not keep anything of its own in sight before it knows.
    let (renewed, passed) = if certain {
        tokio::join!(renew(shared, session), pass_all(shared))
    } else {
        (renew(shared, session).await, pass_all(shared).await)
    };
    lay_ghosts(shared).await;
    renewed && passed
}

async fn renew(shared: &Shared, session: Option<Session>) -> bool {
    let Some(session) = session else {
        return true;
    };
    let confirmed = Instant::now();
    match shared.agent.renew_session(&session.id).await {
        Ok(Some(_)) => {
            shared.link.send_if_modified(|link| {
                if let Some(known) = &mut link.session {
                    known.confirmed = confirmed;
                }
                false
            });
            true
        }
        Ok(None) => {
            shared.link.send_modify(|link| link.session = None);
            for life in shared.lives() {
                if life.session == session.id {
                    life.end("the session has ended", None);
                }
            }
            true
        }
        Err(failure) => {
            tracing::debug!(cause = %failure.error, "session not renewed");
            for life in shared.lives() {
                life.failed(failure.error.clone());
            }
            false
        }
    }
}

async fn pass_all(shared: &Arc<Shared>) -> bool {
    let room = Arc::new(Semaphore::new(ABREAST));
    // Of an agent that leaves one request unanswered the others need not be waited for.
    let silent = Arc::new(Mutex::new(None::<Error>));
    let mut passes = JoinSet::new();
    for life in shared.lives() {
        let (shared, room, silent) = (Arc::clone(shared), Arc::clone(&room), Arc::clone(&silent));
        passes.spawn(async move {
            let _place = room.acquire().await;
            let cause = silent
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some(cause) = cause {
                life.failed(cause);
                return false;
            }
            let passed = pass(&shared, &life).await;
            if let Err(Some(cause)) = &passed {
                let mut silent = silent.lock().unwrap_or_else(PoisonError::into_inner);
                silent.get_or_insert_with(|| cause.clone());
            }
            passed.is_ok()
        });
    }
    let mut all = true;
    while let Some(passed) = passes.join_next().await {
        all &= passed.unwrap_or(false);
    }
    all
}

/// An error is there if there was no answer.
async fn pass(shared: &Shared, life: &Life) -> Result<(), Option<Error>> {
    let began = Instant::now();
    match shared.agent.pass(&life.names.service_id).await {
        Ok(Beat::Alive) => {
            life.passed(began);
            if life.is_in_doubt(began) {
                settle(shared, life).await;
            }
            Ok(())
        }
        Ok(Beat::Unknown) => {
            life.end("the agent does not know of the service any more", None);
            Ok(())
        }
        Err(failure) => {
            life.failed(failure.error.clone());
            Err(failure.status.is_none().then_some(failure.error))
        }
    }
}

/// Writes again what a registration that arrived late has replaced.
async fn settle(shared: &Shared, life: &Life) {
    if let Ok(Some(service)) = shared.agent.service(&life.names.service_id).await
        && !life.is_as_written(&service.meta)
    {
        tracing::debug!(
            service_id = life.names.service_id,
            "older attributes arrived late"
        );
        let _repeated_with_the_next_beat = shared.agent.register(&life.written()).await;
    }
}

/// Removes what has come of calls that were given up before their life was released.
async fn lay_ghosts(shared: &Shared) {
    let now = Instant::now();
    let ghosts = {
        let mut kept = shared.kept();
        kept.ghosts.retain(|ghost| ghost.until > now);
        kept.ghosts.clone()
    };
    for ghost in ghosts {
        let key = &ghost.names.key;
        if let Ok(Some(pair)) = shared.agent.key(key).await
            && Value::read(&pair).is_some_and(|value| value.life == ghost.life)
        {
            let delete = Operation::delete_at(key, pair.modify_index);
            let _repeated_with_the_next_beat = shared.agent.transact(vec![delete]).await;
        }
        let _repeated_with_the_next_beat = shared.agent.deregister(&ghost.names.service_id).await;
    }
}
