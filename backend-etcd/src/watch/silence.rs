//! Whether a stream that says nothing is one on which nothing happens.
//!
//! A server answers a request for progress on the stream itself. Not everything that speaks for
//! etcd does: its own `grpc-proxy` passes none on, and says nothing
//! (<https://etcd.io/docs/v3.4/op-guide/grpc_proxy/>). So where a connection has never answered one,
//! a key is read through it, at the leader, before the stream is given up; and where that is
//! answered, the connection is known for one to be asked so, at the same times, from then on.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, WatchResponse};
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::connection::Link;
use crate::connection::habits::Progress;
use crate::connection::open::Connection;
use crate::error::failed;
use crate::history::Seen;
use crate::lease::FRESH;

/// What is to be done about a silent stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is to be asked for progress.
    Ask,
    /// The other end lives: silence means that nothing happens.
    Alive,
}

/// Watches over one stream: how long it may say nothing, and what it was asked meanwhile.
pub(crate) struct Watchdog {
    link: Arc<Link>,
    connection: Connection,
    history: Seen,
    /// A key that whoever watches may read.
    key: String,
    patience: Duration,
    heard: Instant,
    stage: Stage,
}

enum Stage {
    Listening,
    Asked,
    Reading(Pin<Box<dyn Future<Output = Result<()>> + Send>>),
}

impl Watchdog {
    /// Over a stream on `connection`, which was opened in the history `history`.
    pub(crate) fn new(
        link: &Arc<Link>,
        connection: Connection,
        history: Seen,
        key: impl Into<String>,
    ) -> Self {
        Self {
            link: Arc::clone(link),
            connection,
            history,
            key: key.into(),
            patience: link.config().watch_timeout,
            heard: Instant::now(),
            stage: Stage::Listening,
        }
    }

    /// The connection that the stream is on.
    pub(crate) fn connection(&self) -> u64 {
        self.connection.number
    }

    /// The stream has said something.
    pub(crate) fn heard(&mut self, message: Option<&WatchResponse>) {
        let is_progress =
            message.is_some_and(|m| m.events().is_empty() && !m.created() && !m.canceled());
        if is_progress {
            let habits = &self.connection.habits;
            habits.answers_progress(true);
        }
        self.heard = Instant::now();
        self.stage = Stage::Listening;
    }

    /// Waits until something is to be done about the silence. Cancel safe.
    ///
    /// # Errors
    /// The stream is of no more use: nothing came of what it was asked, or another history has
    /// begun.
    pub(crate) async fn turn(&mut self) -> Result<Turn> {
        let end = self.heard + self.patience;
        loop {
            let progress = self.connection.habits.progress();
            match &mut self.stage {
                Stage::Listening => {
                    sleep_until(self.heard + self.patience / 2).await;
                    self.link.history().check(self.history)?;
                    if progress == Progress::Ignores {
                        self.stage = self.read();
                    } else {
                        self.stage = Stage::Asked;
                        return Ok(Turn::Ask);
                    }
                }
                // Who has answered before, and does not now, is not there any more.
                Stage::Asked if progress == Progress::Answers => {
                    sleep_until(end).await;
                    self.link.history().check(self.history)?;
                    return Err(silent());
                }
                Stage::Asked => {
                    sleep_until(end - self.patience / 4).await;
                    self.stage = self.read();
                }
                Stage::Reading(read) => {
                    timeout_at(end, read)
                        .await
                        .unwrap_or_else(|_| Err(silent()))?;
                    self.link.history().check(self.history)?;
                    if progress == Progress::Unknown {
                        tracing::info!(
                            connection = self.connection.number,
                            "requests for progress are not answered here; reading a key instead"
                        );
                        self.connection.habits.answers_progress(false);
                    }
                    self.heard(None);
                    return Ok(Turn::Alive);
                }
            }
        }
    }

    /// Reads, at the leader; or not, if another stream of this connection has just done so.
    fn read(&self) -> Stage {
        let (link, key) = (Arc::clone(&self.link), self.key.clone());
        let Connection { kv, habits, .. } = self.connection.clone();
        let due = Instant::now();
        Stage::Reading(Box::pin(async move {
            if habits.last_read().is_some_and(|sent| sent + FRESH >= due) {
                return Ok(());
            }
            let before = link.history().known();
            let sent = Instant::now();
            let options = GetOptions::new().with_count_only();
            let mut kv = kv;
            match kv.get(key, Some(options)).await.map_err(failed) {
                Ok(answer) => {
                    link.history().place(before, answer.header())?;
                }
                // An answer that refuses is an answer.
                Err(error) if is_refusal(&error) => {}
                Err(error) => return Err(error),
            }
            habits.was_read(sent);
            Ok(())
        }))
    }
}

fn is_refusal(error: &Error) -> bool {
    use ErrorKind::{PermissionDenied, Unauthenticated};
    matches!(error.kind(), PermissionDenied | Unauthenticated)
}

pub(crate) fn silent() -> Error {
    Error::new(ErrorKind::TimedOut, "the stream of changes fell silent")
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog")
            .field("connection", &self.connection.number)
            .field("habits", &self.connection.habits)
            .finish_non_exhaustive()
    }
}
