//! The one lease of a handle, and the task that keeps it.

mod granting;

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use etcd_client::{LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper};
use plimsoll_discovery_api::{Error, ErrorKind, Result, Rng};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::granting::{Granting, of_standing, window};
use crate::connection::Link;
use crate::connection::open::Connection;
use crate::error::{failed, is_granted_already, is_lease_lost};
use crate::keys::Tree;
use crate::owned_keys::Holdings;

/// A confirmation this young serves whoever asks for one: so many registrations of one process
/// cost two requests a second, and one costs no more than its own.
pub(crate) const FRESH: Duration = Duration::from_millis(500);
/// The parts of its time that an answer has on one stream, and then on another one.
const FIRST: f64 = 0.5;
const SECOND: f64 = 0.75;
/// The longest pause before a broken stream is opened again.
const REOPEN_CAP: Duration = Duration::from_millis(500);

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) id: i64,
    pub(crate) ttl: Duration,
}

/// When the server last confirmed the lease, by the time at which it was asked; and what is wrong.
#[derive(Clone, Debug)]
struct Confirmation {
    at: Option<Instant>,
    failing: Option<(Instant, Error)>,
}

#[derive(Debug)]
struct Shared {
    link: Arc<Link>,
    granted: watch::Sender<Option<Granted>>,
    confirmed: watch::Sender<Confirmation>,
    /// Somebody wants a confirmation.
    asked: Notify,
    holdings: Arc<Holdings>,
    tree: Tree,
    /// The stream was broken, and there is another one.
    reopened: Notify,
}

/// The task that keeps one lease.
#[derive(Debug)]
struct Keeper {
    lease: i64,
    task: AbortHandle,
}

/// Gives the lease back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    granting: Mutex<Granting>,
    /// The task that keeps it.
    keeping: std::sync::Mutex<Option<Keeper>>,
    /// Dropped with this.
    owner: watch::Sender<()>,
}

impl Lease {
    pub(crate) fn new(link: Arc<Link>, tree: Tree, holdings: Arc<Holdings>) -> Self {
        let confirmation = Confirmation {
            at: None,
            failing: None,
        };
        let shared = Shared {
            link,
            granted: watch::Sender::new(None),
            confirmed: watch::Sender::new(confirmation),
            asked: Notify::new(),
            holdings,
            tree,
            reopened: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
            granting: Mutex::default(),
            keeping: std::sync::Mutex::default(),
            owner: watch::Sender::new(()),
        }
    }

    /// The lease there is.
    pub(crate) fn granted(&self) -> Option<Granted> {
        *self.shared.granted.borrow()
    }

    /// Has the lease there is kept in the present runtime, unless that is done in another that is
    /// still there. Who kept the one before may not have noticed its end yet.
    fn keep_on(&self) {
        let mut keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: what a caller has seen may be the one before.
        let Some(granted) = self.granted() else {
            return;
        };
        let is_kept = |k: &Keeper| k.lease == granted.id && !k.task.is_finished();
        if keeping.as_ref().is_some_and(is_kept) {
            return;
        }
        let kept = keep(Arc::clone(&self.shared), granted, self.owner.subscribe());
        let keeper = Keeper {
            lease: granted.id,
            task: tokio::spawn(kept).abort_handle(),
        };
        if let Some(former) = keeping.replace(keeper) {
            former.task.abort();
        }
    }

    /// The lease there is, or a new one. Many callers get one. Needs a tokio runtime.
    pub(crate) async fn obtain(&self) -> Result<Granted> {
        if let Some(granted) = self.granted() {
            self.keep_on();
            return Ok(granted);
        }
        let asked = Instant::now();
        let mut granting = self.granting.lock().await;
        if let Some(granted) = self.granted() {
            return Ok(granted);
        }
        if let Some((at, cause)) = &granting.failed
            && *at >= asked
        {
            return Err(cause.clone());
        }
        granting.await_turn(window(self.shared.link.config())).await;
        // The sign is the server's own affair, and none is no lease.
        let id = || {
            i64::try_from(Rng::from_entropy().next_u64() >> 1)
                .unwrap_or(1)
                .max(1)
        };
        let id = *granting.id.get_or_insert_with(id);
        let sent = Instant::now();
        match self.grant(id).await {
            Ok(granted) => {
                granting.succeeded();
                let shared = Arc::clone(&self.shared);
                shared.confirmed.send_replace(Confirmation {
                    at: Some(sent),
                    failing: None,
                });
                shared.granted.send_replace(Some(granted));
                self.keep_on();
                Ok(granted)
            }
            Err(cause) => {
                granting.failed(&cause);
                Err(cause)
            }
        }
    }

    async fn grant(&self, id: i64) -> Result<Granted> {
        let link = &self.shared.link;
        let wanted = link.config().lease_ttl;
        let seconds = i64::try_from(wanted.as_secs()).unwrap_or(i64::MAX);
        let options = LeaseGrantOptions::new().with_id(id);
        let answer = link
            .call(|mut c| {
                let options = options.clone();
                async move { c.lease.grant(seconds, Some(options)).await }
            })
            .await;
        let seconds = match answer {
            Ok(answer) => answer.ttl(),
            // An earlier attempt had succeeded.
            Err(error) if is_granted_already(&error) => {
                let standing =
                    link.call(|mut c| async move { c.lease.time_to_live(id, None).await });
                let standing = standing.await?;
                of_standing(id, standing.ttl(), standing.granted_ttl())?
            }
            Err(error) => return Err(error),
        };
        let ttl = Duration::from_secs(seconds.unsigned_abs());
        if ttl > wanted {
            tracing::warn!(?wanted, granted = ?ttl, "etcd grants leases no shorter than this");
        }
        Ok(Granted { id, ttl })
    }

    /// Confirms that the lease `id` stands, by an answer no older than [`FRESH`].
    pub(crate) async fn confirm(&self, id: i64) -> Result<()> {
        let asked = Instant::now();
        let mut granted = self.shared.granted.subscribe();
        let mut confirmed = self.shared.confirmed.subscribe();
        loop {
            if granted.borrow_and_update().is_none_or(|g| g.id != id) {
                return Err(ended(id));
            }
            self.keep_on();
            let Confirmation { at, failing } = confirmed.borrow_and_update().clone();
            if at.is_some_and(|at| at + FRESH >= asked) {
                return Ok(());
            }
            if let Some((at, cause)) = failing
                && at >= asked
            {
                return Err(cause);
            }
            self.shared.asked.notify_one();
            // Neither sender can go before this.
            tokio::select! {
                _ = granted.changed() => {}
                _ = confirmed.changed() => {}
            }
        }
    }

    /// Returns when the lease `id` has ended. Cancel safe.
    pub(crate) async fn lost(&self, id: i64) -> Error {
        let mut granted = self.shared.granted.subscribe();
        let other = |granted: &Option<Granted>| granted.is_none_or(|granted| granted.id != id);
        let _sender_is_ours = granted.wait_for(other).await;
        ended(id)
    }

    /// The server has refused a write because there is no lease `id`.
    pub(crate) fn refused(&self, id: i64) {
        self.shared.end(id);
    }
}

impl Shared {
    fn end(&self, id: i64) {
        self.granted.send_if_modified(|granted| {
            let is_it = granted.is_some_and(|granted| granted.id == id);
            if is_it {
                *granted = None;
            }
            is_it
        });
    }

    fn stands(&self, id: i64) -> bool {
        self.granted
            .borrow()
            .is_some_and(|granted| granted.id == id)
    }
}

fn ended(id: i64) -> Error {
    Error::new(ErrorKind::LeaseExpired, "the lease has ended")
        .with_context("lease", format!("{id:x}"))
}

/// Keeps `granted` until the server says that it has ended; gives it back when its owner is gone.
async fn keep(shared: Arc<Shared>, granted: Granted, mut owner: watch::Receiver<()>) {
    let Granted { id, ttl } = granted;
    let cause = tokio::select! {
        cause = renew(&shared, granted) => cause,
        never = sweep_when_reopened(&shared, granted) => match never {},
        _ = owner.changed() => {
            let limit = shared.link.config().request_timeout;
            let revoke = shared.link.call(|mut c| async move { c.lease.revoke(id).await });
            let _expires_otherwise = timeout(limit, revoke).await;
            return;
        }
    };
    tracing::info!(lease = format!("{id:x}"), ?ttl, %cause, "lease ended");
    shared.end(id);
}

/// Returns when the lease has ended. A stream that breaks says nothing of it: another one is
/// opened, on another member if need be, and asked about the same lease; however long that takes,
/// since a server that was down may have kept it.
async fn renew(shared: &Shared, granted: Granted) -> Error {
    let mut rng = Rng::from_entropy();
    let (mut failures, mut was_broken) = (0_u32, false);
    let mut limit = patience(shared, granted);
    loop {
        if !shared.stands(granted.id) {
            return ended(granted.id);
        }
        let broken = match open(shared, granted, limit).await {
            Ok(stream) => {
                failures = 0;
                let connection = stream.connection.number;
                limit = patience(shared, granted);
                if std::mem::take(&mut was_broken) {
                    shared.reopened.notify_one();
                }
                match stream.follow(shared, granted).await {
                    End::Due => continue,
                    End::Late => {
                        limit = limit.mul_f64(SECOND);
                        continue;
                    }
                    End::Broken(broken) => {
                        shared.link.failed(connection, &broken).await;
                        broken
                    }
                }
            }
            Err(broken) => broken,
        };
        limit = patience(shared, granted);
        was_broken = true;
        if broken.kind() == ErrorKind::LeaseExpired {
            return broken;
        }
        tracing::debug!(cause = %broken, "lease not confirmed");
        shared
            .confirmed
            .send_modify(|c| c.failing = Some((Instant::now(), broken)));
        let bound =
            Duration::from_millis(20).saturating_mul(2_u32.saturating_pow(failures.min(10)));
        failures += 1;
        sleep(bound.min(REOPEN_CAP).mul_f64(0.5 + 0.5 * rng.next_f64())).await;
    }
}

/// The server may have been restored meanwhile, and have again what was removed: what is under the
/// lease and belongs to nobody is removed anew. Not before everybody has had the time to find out
/// what has become of its own.
async fn sweep_when_reopened(shared: &Shared, granted: Granted) -> Infallible {
    loop {
        shared.reopened.notified().await;
        loop {
            sleep(granted.ttl).await;
            let sweep = shared
                .holdings
                .sweep(&shared.link, &shared.tree, granted.id);
            let Err(cause) = sweep.await else { break };
            tracing::debug!(%cause, "not known whether the server has keys that nobody wants");
        }
    }
}

struct KeepAlive {
    keeper: LeaseKeeper,
    replies: LeaseKeepAliveStream,
    connection: Connection,
    /// When the lease was last asked for that was confirmed.
    sent: Instant,
}

/// Why a stream is given up.
enum End {
    /// It has answered once, which is all that its other end does in time, and it is time to ask
    /// again.
    Due,
    /// It has not answered, which another one may.
    Late,
    Broken(Error),
}

/// How long an answer may take: a lost one must leave time for another member.
fn patience(shared: &Shared, granted: Granted) -> Duration {
    shared.link.config().request_timeout.min(granted.ttl / 3)
}

/// Opens a stream, whose first answer confirms the lease.
async fn open(shared: &Shared, granted: Granted, limit: Duration) -> Result<KeepAlive> {
    let mut connection = shared.link.connection().await?;
    let sent = Instant::now();
    let opening = connection.lease.keep_alive(granted.id);
    let error = match timeout(limit, opening).await {
        Ok(Ok((keeper, replies))) => {
            shared.confirm(sent);
            return Ok(KeepAlive {
                keeper,
                replies,
                connection,
                sent,
            });
        }
        Ok(Err(error)) if is_lease_lost(&error) => return Err(ended(granted.id).with_source(error)),
        Ok(Err(error)) => failed(error),
        Err(_) => silent(),
    };
    shared.link.failed(connection.number, &error).await;
    Err(error)
}

fn silent() -> Error {
    Error::new(ErrorKind::TimedOut, "the lease was not confirmed in time")
}

impl Shared {
    fn confirm(&self, sent: Instant) {
        self.confirmed.send_modify(|confirmation| {
            confirmation.at = confirmation.at.max(Some(sent));
            confirmation.failing = None;
        });
    }
}

impl KeepAlive {
    /// Renews at every third of the TTL, and whenever somebody asks; returns why it ended.
    ///
    /// etcd's own `grpc-proxy` answers the first request of a stream, and every other one when it
    /// next renews the lease by itself, at a third of the TTL. So a stream that is late is given up
    /// for another one on the same connection before anything is taken for lost; and where that
    /// happens time and again, each stream is asked once.
    async fn follow(mut self, shared: &Shared, granted: Granted) -> End {
        let habits = Arc::clone(&self.connection.habits);
        if habits.answers_late() {
            let sent = self.sent;
            // Closed now, lest the proxy take the next stream for more of this one.
            drop(self);
            until_due(shared, granted, sent).await;
            return End::Due;
        }
        loop {
            tokio::select! {
                () = until_due(shared, granted, self.sent) => {}
                // Nobody has asked: it can only be the end of the stream.
                reply = self.replies.message() => if let Err(broken) = read(granted, reply) {
                    return End::Broken(broken);
                },
            }
            if !shared.stands(granted.id) {
                return End::Broken(ended(granted.id));
            }
            let sent = Instant::now();
            if let Err(broken) = self.keeper.keep_alive().await {
                return End::Broken(failed(broken));
            }
            let limit = patience(shared, granted).mul_f64(FIRST);
            let reply = timeout(limit, self.replies.message()).await;
            habits.answered_lease(reply.is_ok());
            let Ok(reply) = reply else { return End::Late };
            if let Err(broken) = read(granted, reply) {
                return End::Broken(broken);
            }
            self.sent = sent;
            shared.confirm(sent);
        }
    }
}

/// Waits for a third of the TTL since `sent`, or until somebody asks: by the age of what was
/// confirmed, as whoever asks does so because it is too old.
async fn until_due(shared: &Shared, granted: Granted, sent: Instant) {
    loop {
        tokio::select! {
            () = sleep_until(sent + granted.ttl / 3) => return,
            () = shared.asked.notified() => if sent.elapsed() >= FRESH {
                return;
            },
        }
    }
}

type Reply = Result<Option<etcd_client::LeaseKeepAliveResponse>, etcd_client::Error>;

fn read(granted: Granted, reply: Reply) -> Result<()> {
    match reply {
        Ok(Some(reply)) if reply.ttl() > 0 => Ok(()),
        Ok(Some(_)) => Err(ended(granted.id)),
        Ok(None) => Err(Error::new(
            ErrorKind::Unavailable,
            "the server closed the stream",
        )),
        Err(error) if is_lease_lost(&error) => Err(ended(granted.id).with_source(error)),
        Err(error) => Err(failed(error)),
    }
}
