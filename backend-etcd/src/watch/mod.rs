//! Following the changes of one service.

pub(crate) mod silence;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use plimsoll_backend_kit::{Change, Interest, Rows, Subscription, Update, Updates};
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::connection::Link;
use crate::error::{cancelled, failed};
use crate::history::Seen;
use crate::keys::Tree;
use crate::row::row_of;
use crate::watch::silence::{Turn, Watchdog, silent};

/// Follows on `rows`, without a gap: from the revision after the one they were read at.
pub(crate) async fn follow(
    link: Arc<Link>,
    tree: &Tree,
    mut rows: Rows,
    interest: Interest,
) -> Result<Subscription> {
    let branches = Branches {
        identities: tree.identities(rows.service()),
        loads: tree.loads(rows.service()),
    };
    let listing = rows.take_listing();
    let from = i64::try_from(listing.revision.counter()).unwrap_or(i64::MAX - 1) + 1;
    let mut connection = link.connection().await?;
    let history = link.history().known();
    history.includes(listing.revision)?;
    let limit = link.config().request_timeout;
    let opening = async {
        let options = || {
            WatchOptions::new()
                .with_prefix()
                .with_start_revision(from)
                .with_fragment()
        };
        let identities = branches.identities.as_str();
        let mut stream = connection.watch.watch(identities, Some(options())).await?;
        if interest == Interest::Loads {
            let loads = branches.loads.as_str();
            stream.watch(loads, Some(options())).await?;
        }
        Ok(stream)
    };
    let stream = match timeout(limit, opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let error = failed(error);
            link.failed(connection.number, &error).await;
            return Err(error);
        }
        Err(_) => {
            let error = silent();
            link.failed(connection.number, &error).await;
            return Err(error);
        }
    };
    let watchdog = Watchdog::new(&link, connection, history, branches.identities.as_str());
    let updates = EtcdUpdates {
        link,
        stream,
        branches,
        rows,
        history,
        pending: VecDeque::new(),
        watchdog,
    };
    Ok(Subscription::new(listing, Box::new(updates)))
}

#[derive(Debug)]
struct Branches {
    identities: String,
    loads: String,
}

/// The stream, read as it is asked for: whoever reads slowly is waited for by the server.
struct EtcdUpdates {
    link: Arc<Link>,
    stream: WatchStream,
    branches: Branches,
    rows: Rows,
    history: Seen,
    pending: VecDeque<Change>,
    watchdog: Watchdog,
}

impl fmt::Debug for EtcdUpdates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdUpdates")
            .field("branches", &self.branches)
            .field("watchdog", &self.watchdog)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Updates for EtcdUpdates {
    async fn next(&mut self) -> Option<Result<Update>> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some(Ok(Update::new(self.rows.revision(), change)));
            }
            if let Err(cause) = self.listen().await {
                self.link.failed(self.watchdog.connection(), &cause).await;
                return Some(Err(cause));
            }
        }
    }
}

impl EtcdUpdates {
    /// Takes in one message, or asks for one. Cancel safe.
    async fn listen(&mut self) -> Result<()> {
        tokio::select! {
            biased;
            message = self.stream.message() => {
                let heard = message.as_ref().ok().and_then(Option::as_ref);
                self.watchdog.heard(heard);
                match message {
                    Ok(Some(message)) => self.hear(&message),
                    Ok(None) => Err(Error::new(ErrorKind::Unavailable, "the server closed the stream")),
                    Err(error) => Err(failed(error)),
                }
            }
            turn = self.watchdog.turn() => {
                match turn? {
                    // A connection that is half open would be silent for ever.
                    Turn::Ask => self.stream.request_progress().await.map_err(failed),
                    Turn::Alive => {
                        self.pending.push_back(Change::Progress);
                        Ok(())
                    }
                }
            }
        }
    }

    fn hear(&mut self, message: &WatchResponse) -> Result<()> {
        self.link.history().check(self.history)?;
        if let Some(header) = message.header() {
            if !self.history.is_of(header) {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "another cluster answers",
                ));
            }
            let behind = header.revision().unsigned_abs() < self.rows.revision().counter();
            if behind && message.events().is_empty() && !message.created() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the server is behind what was seen",
                )
                .with_context("revision", header.revision().to_string())
                .with_context("seen", self.rows.revision().to_string()));
            }
        }
        if message.canceled() {
            return Err(cancelled(message));
        }
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            self.rows.advance(kv.mod_revision().unsigned_abs());
            let deleted = event.event_type() == EventType::Delete;
            // By its key: how watches are numbered is for the other end to say.
            let change = if let Some(row) = row_of(kv, &self.branches.loads) {
                if deleted {
                    self.rows.unpublished(&row.key);
                    None
                } else {
                    self.rows.published(&row)
                }
            } else {
                row_of(kv, &self.branches.identities).and_then(|row| {
                    if deleted {
                        self.rows.deleted(&row.key)
                    } else {
                        self.rows.put(&row)
                    }
                })
            };
            self.pending.extend(change);
        }
        self.link.history().note(self.history, self.rows.revision());
        if self.pending.is_empty() {
            self.pending.push_back(Change::Progress);
        }
        Ok(())
    }
}
