//! The stream, and what is heard on it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{
    Event, EventType, GetOptions, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchRequestSender,
    WatchResponse, WatchResponseStream,
};
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Order, Post};
use crate::error::{cancelled, failed, gone};
use crate::history::Seen;
use crate::link::Link;

/// The most that a server takes in one transaction, unless it was told otherwise.
const VERIFIED_AT_ONCE: usize = 128;
/// The longest pause before a broken stream is opened again.
const REOPEN_CAP: Duration = Duration::from_secs(1);

pub(super) struct Task {
    link: Arc<Link>,
    orders: mpsc::UnboundedReceiver<Order>,
    posts: HashMap<i64, Post>,
}

/// The stream, and what it has yet to be asked.
struct Stream {
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    connection: u64,
    history: Seen,
    to_ask: VecDeque<Asked>,
    heard: Instant,
    asked_for_progress: bool,
}

enum Asked {
    Watch(i64, i64),
    Cancel(i64),
}

impl Task {
    pub(super) fn new(link: Arc<Link>, orders: mpsc::UnboundedReceiver<Order>) -> Self {
        Self {
            link,
            orders,
            posts: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            while self.posts.is_empty() {
                match self.orders.recv().await {
                    Some(order) => drop(self.take(order)),
                    None => return,
                }
            }
            let cause = match self.open().await {
                Ok(Some(mut stream)) => {
                    let opened = Instant::now();
                    let Some(cause) = self.follow(&mut stream).await else {
                        continue;
                    };
                    self.link.failed(stream.connection, &cause).await;
                    if opened.elapsed() > REOPEN_CAP {
                        failures = 0;
                    }
                    cause
                }
                Ok(None) => continue,
                Err(cause) => cause,
            };
            for post in self.posts.values() {
                post.attentive.send_replace(false);
            }
            tracing::debug!(%cause, "own keys are not watched; trying again");
            let pause =
                Duration::from_millis(20).saturating_mul(2_u32.saturating_pow(failures.min(10)));
            failures += 1;
            sleep(pause.min(REOPEN_CAP)).await;
        }
    }

    fn take(&mut self, order: Order) -> Asked {
        match order {
            Order::Attend(number, post) => {
                let from = post.written.load(Ordering::Relaxed) + 1;
                self.posts.insert(number, post);
                Asked::Watch(number, from)
            }
            Order::Leave(number) => {
                self.posts.remove(&number);
                Asked::Cancel(number)
            }
        }
    }

    /// Verifies every key, and opens a stream from there on; nothing, if no key is left.
    async fn open(&mut self) -> Result<Option<Stream>> {
        while let Ok(order) = self.orders.try_recv() {
            self.take(order);
        }
        let mut from = VecDeque::new();
        let numbers: Vec<i64> = self.posts.keys().copied().collect();
        for numbers in numbers.chunks(VERIFIED_AT_ONCE) {
            let revision = self.verify(numbers).await?;
            let standing = numbers.iter().filter(|n| self.posts.contains_key(n));
            from.extend(standing.map(|number| (*number, revision + 1)));
        }
        let Some((number, revision)) = from.pop_front() else {
            return Ok(None);
        };
        let history = self.link.history().known();
        let mut connection = self.link.connection().await?;
        let key = self.posts[&number].key.as_str();
        let options = options(number, revision);
        let opening = connection.watch.watch(key, Some(options));
        let limit = self.link.config().request_timeout;
        let stream = match tokio::time::timeout(limit, opening).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let error = failed(error);
                self.link.failed(connection.number, &error).await;
                return Err(error);
            }
            Err(_) => {
                let error = silent();
                self.link.failed(connection.number, &error).await;
                return Err(error);
            }
        };
        let (requests, responses) = stream.split();
        Ok(Some(Stream {
            requests,
            responses,
            connection: connection.number,
            history,
            to_ask: from.into_iter().map(|(n, r)| Asked::Watch(n, r)).collect(),
            heard: Instant::now(),
            asked_for_progress: false,
        }))
    }

    /// Reads the keys of `numbers` at one revision, which is returned; those that are lost are told
    /// so.
    async fn verify(&mut self, numbers: &[i64]) -> Result<i64> {
        let read = |number: &i64| {
            let key = self.posts[number].key.as_str();
            TxnOp::get(key, Some(GetOptions::new().with_keys_only()))
        };
        let reads: Vec<_> = numbers.iter().map(read).collect();
        // Known before it is asked: no answer that is true can be of an earlier one.
        let written = |number: &i64| self.posts[number].written.load(Ordering::Relaxed);
        let written: Vec<_> = numbers.iter().map(written).collect();
        let answer = self.link.commit(Txn::new().and_then(reads)).await?;
        let revision = answer
            .header()
            .map_or(0, etcd_client::ResponseHeader::revision);
        let found = answer.op_responses().into_iter();
        let mut rewritten = Vec::new();
        for ((number, written), found) in numbers.iter().zip(written).zip(found) {
            let TxnOpResponse::Get(found) = found else {
                continue;
            };
            let lease = self.posts[number].lease;
            match found.kvs().first().filter(|kv| kv.lease() == lease) {
                None => self.lose(*number, "the key is gone, or another's"),
                Some(kv) if kv.mod_revision() < written => {
                    self.lose(*number, "the key was set back to what it was before");
                }
                Some(kv) if kv.mod_revision() > written => rewritten.push(*number),
                Some(_) => {}
            }
        }
        for number in rewritten {
            self.examine(number).await?;
        }
        Ok(revision)
    }

    /// Reads the whole record of one that was written since it was known to be: by an update whose
    /// reply was lost, or by somebody else.
    async fn examine(&mut self, number: i64) -> Result<()> {
        let post = &self.posts[&number];
        let key = post.key.as_str();
        let before = self.link.history().known();
        let found = self
            .link
            .kv(|mut kv| async move { kv.get(key, None).await });
        let found = found.await?;
        self.link.history().place(before, found.header())?;
        match found.kvs().first().filter(|kv| post.owns(kv)) {
            Some(kv) => {
                post.written.fetch_max(kv.mod_revision(), Ordering::Relaxed);
            }
            None => self.lose(number, "the key is gone, or another's"),
        }
        Ok(())
    }

    fn lose(&mut self, number: i64, why: &str) {
        if let Some(post) = self.posts.remove(&number) {
            post.gone.send_replace(Some(gone(&post.key, why)));
        }
    }

    /// Follows until the stream fails; nothing, if there is no more to watch.
    async fn follow(&mut self, stream: &mut Stream) -> Option<Error> {
        let patience = self.link.config().watch_timeout;
        loop {
            if self.posts.is_empty() {
                return None;
            }
            let quiet_until = stream.quiet_until(patience);
            tokio::select! {
                order = self.orders.recv() => {
                    let asked = self.take(order?);
                    stream.to_ask.push_back(asked);
                }
                message = stream.responses.message() => {
                    stream.heard = Instant::now();
                    stream.asked_for_progress = false;
                    let taken = match message {
                        Ok(Some(message)) => self.hear(&message),
                        Ok(None) => Err(Error::new(ErrorKind::Unavailable, "the server closed the stream")),
                        Err(error) => Err(failed(error)),
                    };
                    if let Err(cause) = taken {
                        return Some(cause);
                    }
                }
                sent = ask(&mut stream.requests, stream.to_ask.front(), &self.posts) => {
                    stream.to_ask.pop_front();
                    if let Err(cause) = sent {
                        return Some(cause);
                    }
                }
                () = sleep_until(quiet_until) => {
                    if let Err(cause) = self.link.history().check(stream.history) {
                        return Some(cause);
                    }
                    if stream.asked_for_progress {
                        return Some(silent());
                    }
                    stream.asked_for_progress = true;
                    if let Err(error) = stream.requests.request_progress().await {
                        return Some(failed(error));
                    }
                }
            }
        }
    }

    fn hear(&mut self, message: &WatchResponse) -> Result<()> {
        let number = message.watch_id();
        if message.canceled() {
            // One that was given up is confirmed so; any other is to be asked for anew. One that is
            // refused as it is asked for goes by no number of ours at some servers: so it is when
            // the token has run out that the stream was opened with.
            if message.created() || self.posts.contains_key(&number) {
                return Err(cancelled(message));
            }
            return Ok(());
        }
        let Some(post) = self.posts.get(&number) else {
            return Ok(());
        };
        if message.created() {
            post.attentive.send_replace(true);
        }
        let is_lost = |event: &Event| {
            event.event_type() == EventType::Delete || event.kv().is_none_or(|kv| !post.owns(kv))
        };
        if message.events().iter().any(is_lost) {
            self.lose(number, "the key was deleted or overwritten");
        }
        Ok(())
    }
}

impl Stream {
    fn quiet_until(&self, patience: Duration) -> Instant {
        let part = if self.asked_for_progress { 1 } else { 2 };
        self.heard + patience / part
    }
}

fn options(number: i64, revision: i64) -> WatchOptions {
    WatchOptions::new()
        .with_watch_id(number)
        .with_start_revision(revision)
}

fn silent() -> Error {
    Error::new(ErrorKind::TimedOut, "the stream of changes fell silent")
}

/// Sends what is to be asked next; never returns if there is nothing. Cancel safe.
async fn ask(
    requests: &mut WatchRequestSender,
    next: Option<&Asked>,
    posts: &HashMap<i64, Post>,
) -> Result<()> {
    match next {
        Some(Asked::Watch(number, revision)) => match posts.get(number) {
            Some(post) => requests
                .watch(post.key.as_str(), Some(options(*number, *revision)))
                .await
                .map_err(failed),
            // Given up meanwhile.
            None => Ok(()),
        },
        Some(Asked::Cancel(number)) => requests.cancel(*number).await.map_err(failed),
        None => std::future::pending().await,
    }
}
