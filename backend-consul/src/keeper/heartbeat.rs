//! The task: opens the session, and beats.

use std::sync::Arc;

use plimsoll_discovery_api::{Error, ErrorKind, Result, Rng};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::pass::{pass_all, worse};
use super::retry::{LAST_RETRY, RetryPacer};
use super::{Shared, reap};
use crate::session::{Session, wanted};

/// Runs until nobody holds the other end of `end`; then closes the session.
pub(super) async fn run(shared: Arc<Shared>, end: watch::Receiver<()>) {
    tokio::select! {
        () = beat_on(&shared, end) => {}
        never = reap::reap_all(&shared) => match never {},
    }
    let session = shared.link.borrow().session.clone();
    if let Some(session) = session {
        close(&shared, &session.id).await;
    }
}

async fn beat_on(shared: &Arc<Shared>, mut end: watch::Receiver<()>) {
    let mut asked = shared.wanted.subscribe();
    let mut rng = Rng::from_entropy();
    let rhythm = shared.config.beat();
    // An agent may well take what its servers do not answer.
    let (mut opening, mut beating) = (RetryPacer::new(LAST_RETRY), RetryPacer::new(rhythm));
    let mut next = Instant::now() + rhythm;
    loop {
        let wanted = *asked.borrow_and_update();
        let session = shared.link.borrow().session.clone();
        if let Some(attempts) = wanted.session
            && session.is_none()
            && shared.link.borrow().attempts == attempts
        {
            if let Some(until) = opening.until {
                tokio::select! {
                    _ = end.changed() => return,
                    () = sleep_until(until) => {}
                }
            }
            let opened = open(shared).await;
            opening.was(opened, &mut rng);
            next = Instant::now() + rhythm;
            continue;
        }
        let due = [wanted.beat, wanted.align, beating.until];
        let due = due.into_iter().flatten().fold(next, Instant::min);
        let due = beating.until.map_or(due, |until| until.max(due));
        tokio::select! {
            biased;
            // An error, as nothing is ever sent.
            _ = end.changed() => return,
            changed = asked.changed() => if changed.is_err() { return },
            () = sleep_until(due) => {
                let began = Instant::now();
                let whole = began >= next || wanted.align.is_some_and(|align| began >= align);
                shared.wanted.send_if_modified(|wanted| {
                    wanted.beat = None;
                    if whole {
                        wanted.align = None;
                    }
                    false
                });
                let reach = if whole { Reach::All } else { Reach::Wanting };
                let outcome = tokio::select! {
                    _ = end.changed() => return,
                    outcome = beat(shared, reach) => outcome,
                };
                beating.was(outcome, &mut rng);
                if whole {
                    // A little early, so that handles that began as one do not beat as one.
                    next = began + rhythm.mul_f64(0.9 + 0.1 * rng.next_f64());
                }
                shared.beaten.send_replace(Some(began));
            }
        }
    }
}

async fn open(shared: &Shared) -> Result<()> {
    let opened = open_one(shared).await;
    let outcome = opened.as_ref().map(drop).map_err(Clone::clone);
    shared.link.send_modify(|link| {
        link.attempts += 1;
        match opened {
            Ok(session) => (link.session, link.cause) = (Some(session), None),
            Err(cause) => link.cause = Some(cause),
        }
    });
    outcome
}

async fn open_one(shared: &Shared) -> Result<Session> {
    let id = shared.agent.create_session(&wanted(&shared.config)).await?;
    let confirmed = Instant::now();
    match shared.agent.renew_session(&id).await {
        Ok(Some(node)) => Ok(Session {
            id: id.into(),
            node: node.into(),
            confirmed,
        }),
        Ok(None) => Err(Error::new(
            ErrorKind::Unavailable,
            "the session has ended as soon as it began",
        )),
        Err(failure) => {
            // The next attempt makes another one.
            close(shared, &id).await;
            Err(failure.into())
        }
    }
}

async fn close(shared: &Shared, session: &str) {
    if let Err(failure) = shared.agent.destroy_session(session).await {
        tracing::debug!(cause = %failure.error, "session not closed; it runs out");
    }
}

/// Whose checks a beat passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All: the rhythm.
    All,
    /// Those that cannot wait for the rhythm.
    Wanting,
}

/// Renews the session and passes the checks. Fails with what is the least likely to pass by itself.
async fn beat(shared: &Arc<Shared>, reach: Reach) -> Result<()> {
    let session = shared.link.borrow().session.clone();
    let certain = session
        .as_ref()
        .is_some_and(|session| session.is_certain(shared.config.session_ttl));
    let mut lives = shared.lives();
    // What was refused for good waits for the rhythm, and keeps the pace of all that asks.
    let mut refused = Ok(());
    if reach == Reach::Wanting {
        let fresh = shared.config.fresh_pass();
        lives.retain(|life| {
            let wants = life.wants_a_pass(fresh);
            if !wants && let (_, Some(failure)) = life.last_pass() {
                refused = Err(failure);
            }
            wants
        });
    }
    let (renewed, passed) = if certain {
        tokio::join!(renew(shared, session), pass_all(shared, lives))
    } else {
        // Who was held up for longer than the session lasts may have lost its ids to others, and
        // must not bring anything of its own back in sight before it knows. What has not been out
        // of sight stays, for servers without a leader give no id to anybody.
        let renewed = renew(shared, session).await;
        if renewed.is_err() {
            let ttl = shared.config.ttl;
            lives.retain(|life| life.last_pass().0.elapsed() < ttl);
        }
        (renewed, pass_all(shared, lives).await)
    };
    worse(refused, worse(renewed, passed))
}

async fn renew(shared: &Shared, session: Option<Session>) -> Result<()> {
    let Some(session) = session else {
        return Ok(());
    };
    let confirmed = Instant::now();
    match shared.agent.renew_session(&session.id).await {
        Ok(Some(_)) => {
            shared.link.send_if_modified(|link| {
                link.cause = None;
                if let Some(known) = &mut link.session {
                    known.confirmed = confirmed;
                }
                false
            });
            Ok(())
        }
        Ok(None) => {
            shared.link.send_modify(|link| link.session = None);
            for life in shared.lives() {
                if life.session == session.id {
                    life.end("the session has ended", None);
                }
            }
            Ok(())
        }
        Err(failure) => {
            tracing::debug!(cause = %failure.error, "session not renewed");
            shared.link.send_if_modified(|link| {
                link.cause = Some(failure.error.clone());
                false
            });
            Err(failure.error)
        }
    }
}
