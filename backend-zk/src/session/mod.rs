//! The one session of a registry handle, and the task that keeps it.

mod background;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_backend_kit::Task;
use plimsoll_discovery_api::{Error, ErrorKind, Result, Rng};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use zookeeper_client::{Client, Error as Native, SessionInfo, SessionState};

use self::background::Background;
use crate::config::Config;
use crate::connection::{Connection, connect};

/// The longest pause between two attempts to connect.
const RECONNECT_CAP: Duration = Duration::from_secs(1);
/// Wrong credentials, or a server of the wrong release, are not mended by haste.
const REFUSED_RETRY: Duration = Duration::from_secs(5);

/// Where the session stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// The client, from its connection until its end.
    pub(crate) client: Option<Client>,
    /// The session, until the server has declared it ended.
    pub(crate) id: Option<i64>,
    /// Counts every change of the connection, so that whoever waits sees each.
    pub(crate) turn: u64,
    /// For how long the server has granted the session without a word, when it was last asked.
    pub(crate) granted: Option<Duration>,
    /// Why there is no connection; before the first attempt has ended there is no telling.
    pub(crate) cause: Option<Error>,
}

/// Ends its task with it.
pub(crate) struct Session {
    link: watch::Receiver<Link>,
    limit: Duration,
    /// Dropped with this.
    _end: oneshot::Sender<()>,
    background: Option<Background>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.link.borrow().id)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Needs a tokio runtime.
    pub(crate) fn open(config: Arc<Config>) -> Self {
        let (sender, link) = watch::channel(Link::default());
        let limit = config.timings.call_timeout;
        let (end, ended) = oneshot::channel();
        let kept = async move {
            tokio::select! {
                () = keep(config, sender) => {}
                _ = ended => {}
            }
        };
        let background = match Background::start() {
            Ok(background) => Some(background),
            Err(error) => {
                tracing::warn!(%error, "no thread for the session, which ends with this runtime");
                None
            }
        };
        let session = Self {
            link,
            limit,
            _end: end,
            background,
        };
        if let Err(kept) = session.carry(Box::pin(kept)) {
            tokio::spawn(kept);
        }
        session
    }

    /// Runs `task` where the session is kept; gives it back if that is in one of its users' runtimes.
    pub(crate) fn carry(&self, task: Task) -> std::result::Result<(), Task> {
        match &self.background {
            Some(background) => background.spawn(task),
            None => Err(task),
        }
    }

    pub(crate) fn links(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// The negotiated timeout, since there is a session.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.link.borrow().granted
    }

    /// The client, connected; waits for nothing but the very first attempt to connect.
    ///
    /// Requests made while the client is disconnected would be kept back and carried out later,
    /// long after they were given up.
    pub(crate) async fn connection(&self) -> Result<Connection> {
        let mut link = self.link.clone();
        let first = link
            .wait_for(|link| link.client.is_some() || link.cause.is_some())
            .await;
        let Ok(link) = first else {
            return Err(Error::new(ErrorKind::Closed, "the session was given up"));
        };
        match (&link.client, &link.cause) {
            (Some(client), None) if client.state() == SessionState::SyncConnected => {
                Ok(Connection {
                    client: client.clone(),
                    session: client.session_id().0,
                    limit: self.limit,
                })
            }
            _ => Err(link.cause.clone().unwrap_or_else(disconnected)),
        }
    }
}

fn disconnected() -> Error {
    Error::new(ErrorKind::Unavailable, "disconnected from ZooKeeper")
}

/// Connects, and whenever the client has come to its end, asks the server about the old session
/// before it begins a new one: a client declares its session expired by its own clock, while the
/// server may still hold it with all its nodes. Since a new session begins only when the server
/// has declared the old one ended, nothing that was still on its way for the old one can be
/// carried out any more.
async fn keep(config: Arc<Config>, link: watch::Sender<Link>) {
    let mut former: Option<SessionInfo> = None;
    let mut rng = Rng::from_entropy();
    let mut failures = 0_u32;
    loop {
        match connect(&config, former.clone()).await {
            Ok(client) => {
                failures = 0;
                former = Some(client.session().clone());
                follow(&client, &config, &link).await;
            }
            Err(error) => {
                let expired = former.is_some() && is_expired(&error);
                let refused = !error.is_retryable();
                link.send_modify(|link| {
                    link.client = None;
                    link.turn += 1;
                    if expired {
                        link.id = None;
                    } else {
                        link.cause = Some(error.clone());
                    }
                });
                if expired {
                    tracing::info!("session expired; beginning a new one");
                    former = None;
                    continue;
                }
                tracing::debug!(%error, "not connected");
                failures += 1;
                let bound = Duration::from_millis(50)
                    .saturating_mul(2_u32.saturating_pow(failures.min(10)))
                    .min(RECONNECT_CAP);
                let pause = if refused { REFUSED_RETRY } else { bound };
                sleep(pause.mul_f64(0.5 + 0.5 * rng.next_f64())).await;
            }
        }
    }
}

fn is_expired(error: &Error) -> bool {
    let native = std::error::Error::source(error).and_then(|s| s.downcast_ref::<Native>());
    matches!(native, Some(Native::SessionExpired | Native::SessionMoved))
}

/// Tells of the connection until the client has come to its end.
async fn follow(client: &Client, config: &Config, link: &watch::Sender<Link>) {
    let mut states = client.state_watcher();
    let mut state = states.state();
    loop {
        let connected = state == SessionState::SyncConnected;
        link.send_modify(|link| {
            link.turn += 1;
            link.id = Some(client.session_id().0);
            link.client = Some(client.clone());
            link.granted = Some(client.session_timeout());
            link.cause = (!connected).then(disconnected);
        });
        tracing::debug!(session = %client.session_id(), ?state, "session");
        if state.is_terminated() {
            return;
        }
        if !connected {
            // It may connect again at once.
            config.refresh();
        }
        state = loop {
            tokio::select! {
                state = states.changed() => break state,
                // It connects again by itself, with the certificates that it was last given.
                () = sleep(RECONNECT_CAP), if !connected => config.refresh(),
            }
        };
    }
}
