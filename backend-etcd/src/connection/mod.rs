//! The way to the cluster: one member at a time, another one when it fails.
//!
//! The client library would spread calls over all members, dead ones among them, and try none of
//! them twice.

pub(crate) mod habits;
pub(crate) mod open;
mod runtime;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Error as Native, KvClient, Txn, TxnResponse};
use plimsoll_backend_kit::Admission;
use plimsoll_discovery_api::{Error, ErrorKind, Result, Rng};
use tokio::time::{Instant, timeout};

use self::open::{Connection, connect};
use self::runtime::Home;
use crate::config::Config;
use crate::error::{failed, is_nobodys_fault, is_of_learner};
use crate::history::History;

/// The longest pause between two rounds of attempts to connect.
const RECONNECT_CAP: Duration = Duration::from_secs(1);
/// Wrong credentials are not mended by haste: the shortest time between two uses of them.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Link {
    config: Arc<Config>,
    admission: Admission,
    history: History,
    current: Mutex<Option<Connection>>,
    /// Where that was made.
    home: Mutex<Option<Home>>,
    connections: AtomicU64,
    /// The endpoint to be tried next.
    next: AtomicUsize,
    /// Held while connecting, so that many callers connect once.
    attempts: tokio::sync::Mutex<Attempts>,
}

struct Attempts {
    failures: u32,
    refusal: Option<Refusal>,
    /// When the last connection was made.
    connected: Option<Instant>,
    rng: Rng,
}

/// Why there is no connection, and how long nobody need try.
struct Refusal {
    at: Instant,
    until: Instant,
    cause: Error,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("endpoints", &self.config.endpoints)
            .field("connection", &*self.current())
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let mut rng = Rng::from_entropy();
        let first = rng.next_u64() % config.endpoints.len().max(1) as u64;
        Self {
            admission: Admission::new(&config.timings),
            config,
            history: History::default(),
            current: Mutex::new(None),
            home: Mutex::new(None),
            connections: AtomicU64::new(0),
            // Many processes must not all begin with the same member.
            next: AtomicUsize::new(usize::try_from(first).unwrap_or(0)),
            attempts: tokio::sync::Mutex::new(Attempts {
                failures: 0,
                refusal: None,
                connected: None,
                rng,
            }),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    fn current(&self) -> MutexGuard<'_, Option<Connection>> {
        // A panic while the lock was held cannot have left it half changed.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self) -> MutexGuard<'_, Option<Home>> {
        // As above.
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection ends with the runtime that it was made in, and would not say so.
    fn leave_what_is_gone(&self) {
        if self.home().take_if(|home| home.is_gone()).is_some() {
            *self.current() = None;
        }
    }

    /// The connection there is, or a new one. Cancel safe.
    pub(crate) async fn connection(&self) -> Result<Connection> {
        self.leave_what_is_gone();
        if let Some(connection) = self.current().clone() {
            return Ok(connection);
        }
        let asked = Instant::now();
        let mut attempts = self.attempts.lock().await;
        if let Some(connection) = self.current().clone() {
            return Ok(connection);
        }
        if let Some(refusal) = &attempts.refusal
            && (refusal.at >= asked || refusal.until > Instant::now())
        {
            return Err(refusal.cause.clone());
        }
        match Box::pin(self.connect()).await {
            Ok(connection) => {
                attempts.failures = 0;
                attempts.refusal = None;
                attempts.connected = Some(Instant::now());
                *self.home() = Some(Home::here());
                *self.current() = Some(connection.clone());
                Ok(connection)
            }
            Err(cause) => {
                tracing::debug!(%cause, "not connected");
                attempts.refuse(cause.clone());
                Err(cause)
            }
        }
    }

    /// Tries every endpoint once.
    async fn connect(&self) -> Result<Connection> {
        let endpoints = &self.config.endpoints;
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut cause = Error::new(ErrorKind::InvalidConfig, "there is no endpoint");
        for _ in endpoints {
            // Moved on beforehand: whoever waits for this may give up at any time.
            let index = self.next.fetch_add(1, Ordering::Relaxed) % endpoints.len();
            match connect(&self.config, &endpoints[index], number).await {
                Ok(connection) => {
                    tracing::debug!(endpoint = endpoints[index], number, "connected");
                    return Ok(connection);
                }
                Err(error) => cause = error,
            }
            // The same user would be refused by the others, and count as one more attempt.
            if !cause.is_retryable() {
                break;
            }
        }
        Err(cause)
    }

    /// The connection `number` is no good: the next call goes to another member.
    pub(crate) async fn failed(&self, number: u64, cause: &Error) {
        use ErrorKind::{TimedOut, Unauthenticated, Unavailable, Unexpected};
        let is_blamed = matches!(
            cause.kind(),
            Unavailable | TimedOut | Unauthenticated | Unexpected
        );
        if !is_blamed || is_nobodys_fault(cause) {
            return;
        }
        {
            let mut current = self.current();
            if current.as_ref().is_none_or(|c| c.number != number) {
                return;
            }
            *current = None;
        }
        tracing::debug!(number, %cause, "connection given up");
        if cause.kind() == Unauthenticated {
            // The token has run out, and a new connection brings another one. But a member that
            // refuses the one it has just given must not be asked for more and more of them.
            let mut attempts = self.attempts.lock().await;
            if attempts
                .connected
                .is_some_and(|at| at.elapsed() < REFUSED_RETRY)
            {
                attempts.refuse(cause.clone());
            }
        }
    }

    /// Calls, within the request timeout, or longer while claims are late again and again.
    pub(crate) async fn call<T, F>(&self, call: impl Fn(Connection) -> F + Sync) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T, Native>> + Send,
    {
        let (number, error) = match self.try_call(&call).await {
            Ok(answer) => return Ok(answer),
            Err((None, error)) => return Err(error),
            Err((Some(number), error)) => (number, error),
        };
        self.failed(number, &error).await;
        if error.kind() != ErrorKind::Unauthenticated && !is_of_learner(&error) {
            return Err(error);
        }
        // Whoever is not known has changed nothing, nor has a learner: so once more, with another
        // token, or elsewhere.
        match self.try_call(&call).await {
            Ok(answer) => Ok(answer),
            Err((number, error)) => {
                if let Some(number) = number {
                    self.failed(number, &error).await;
                }
                Err(error)
            }
        }
    }

    /// The error comes with the number of the connection that it arose on.
    async fn try_call<T, F>(
        &self,
        call: &(impl Fn(Connection) -> F + Sync),
    ) -> Result<T, (Option<u64>, Error)>
    where
        T: Send,
        F: Future<Output = Result<T, Native>> + Send,
    {
        let connection = self.connection().await.map_err(|error| (None, error))?;
        let number = connection.number;
        let limit = self.admission.patience(self.config.request_timeout);
        // On the heap: the client library's futures are larger than what is comfortable in another.
        match timeout(limit, Box::pin(call(connection))).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err((Some(number), failed(error))),
            Err(_) => {
                let late = Error::new(ErrorKind::TimedOut, "the etcd server did not answer");
                let late = late.with_context("waited", format!("{limit:?}"));
                Err((Some(number), late))
            }
        }
    }

    /// The same, for the key-value store.
    pub(crate) async fn kv<T, F>(&self, call: impl Fn(KvClient) -> F + Sync) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T, Native>> + Send,
    {
        self.call(|connection| call(connection.kv)).await
    }

    /// Commits `txn`, and sees that its answer has a place in the history.
    pub(crate) async fn commit(&self, txn: Txn) -> Result<TxnResponse> {
        let before = self.history().known();
        let answer = self
            .kv(|mut kv| {
                let txn = txn.clone();
                async move { kv.txn(txn).await }
            })
            .await?;
        self.history().place(before, answer.header())?;
        Ok(answer)
    }
}

impl Attempts {
    fn refuse(&mut self, cause: Error) {
        let factor = 2_u32.saturating_pow(self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        let bound = Duration::from_millis(20)
            .saturating_mul(factor)
            .min(RECONNECT_CAP);
        let pause = if cause.is_retryable() {
            bound.mul_f64(0.5 + 0.5 * self.rng.next_f64())
        } else {
            REFUSED_RETRY.mul_f64(1.0 + 0.5 * self.rng.next_f64())
        };
        let now = Instant::now();
        self.refusal = Some(Refusal {
            at: now,
            until: now + pause,
            cause,
        });
    }
}

#[cfg(test)]
mod tests {
    use etcd_client::Client;
    use plimsoll_backend_kit::Timings;
    use tonic::{Code, Status};

    use super::*;

    /// A link with a connection of the number 7, which nobody has used yet.
    async fn linked() -> Link {
        let span = Duration::from_secs(1);
        let config = Config {
            endpoints: vec!["http://127.0.0.1:1".into()],
            prefix: String::new(),
            lease_ttl: span,
            connect_timeout: span,
            request_timeout: span,
            watch_timeout: span,
            keep_alive: (span, span),
            max_message_bytes: 1,
            credentials: None,
            #[cfg(feature = "tls")]
            tls: None,
            timings: Timings::default(),
        };
        let link = Link::new(Arc::new(config));
        let client = Client::connect([link.config().endpoints[0].as_str()], None);
        let client = client.await.unwrap();
        *link.current() = Some(Connection {
            kv: client.kv_client(),
            watch: client.watch_client(),
            lease: client.lease_client(),
            number: 7,
            habits: Arc::default(),
        });
        link
    }

    #[tokio::test]
    async fn a_connection_is_given_up_for_what_it_can_be_blamed_for_and_for_nothing_else() {
        for (code, text, number, is_kept) in [
            (Code::Unavailable, "etcdserver: no leader", 7, false),
            (Code::Unavailable, "etcdserver: no leader", 6, true),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                7,
                false,
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                7,
                true,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: lease already exists",
                7,
                true,
            ),
            (Code::FailedPrecondition, "anything else", 7, false),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                7,
                true,
            ),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
                7,
                false,
            ),
        ] {
            let link = linked().await;
            let cause = failed(Native::GRpcStatus(Status::new(code, text)));
            link.failed(number, &cause).await;
            assert_eq!(link.current().is_some(), is_kept, "{text}");
        }
    }
}
