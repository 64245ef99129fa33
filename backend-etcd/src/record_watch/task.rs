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
use tokio::time::{Instant, sleep};

use super::{Order, Post};
use crate::connection::Link;
use crate::error::{cancelled, failed, gone};
use crate::watch::silence::{Turn, Watchdog, silent};

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
    to_ask: VecDeque<Asked>,
    numbers: Numbers,
    watchdog: Watchdog,
}

/// By what numbers the other end knows our watches.
///
/// etcd takes those that it is given, its own `grpc-proxy` counts them as they are asked for, and
/// whatever else speaks for etcd does as it likes. So none are given, which makes etcd count as
/// well; and where somebody counts in another way, the order is taken to be that of asking.
#[derive(Default)]
struct Numbers {
    asked: i64,
    /// Those that were asked for and not confirmed, by the number that counting gives them.
    unconfirmed: VecDeque<(i64, i64)>,
    ours: HashMap<i64, i64>,
    theirs: HashMap<i64, i64>,
}

impl Numbers {
    fn ask(&mut self, ours: i64) {
        self.unconfirmed.push_back((self.asked, ours));
        self.asked += 1;
    }

    fn confirm(&mut self, theirs: i64) {
        let counted = |(count, _): &(i64, i64)| *count == theirs;
        let at = self.unconfirmed.iter().position(counted).unwrap_or(0);
        if let Some((_, ours)) = self.unconfirmed.remove(at) {
            self.ours.insert(theirs, ours);
            self.theirs.insert(ours, theirs);
        }
    }

    fn ours(&self, theirs: i64) -> Option<i64> {
        self.ours.get(&theirs).copied()
    }

    fn theirs(&self, ours: i64) -> Option<i64> {
        let unconfirmed = self.unconfirmed.iter().find(|(_, asked)| *asked == ours);
        let counted = unconfirmed.map(|(count, _)| *count);
        self.theirs.get(&ours).copied().or(counted)
    }

    fn forget(&mut self, theirs: i64) {
        if let Some(ours) = self.ours.remove(&theirs) {
            self.theirs.remove(&ours);
        }
    }
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
                    self.link.failed(stream.watchdog.connection(), &cause).await;
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
        let options = options(revision);
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
        let mut numbers = Numbers::default();
        numbers.ask(number);
        Ok(Some(Stream {
            requests,
            responses,
            to_ask: from.into_iter().map(|(n, r)| Asked::Watch(n, r)).collect(),
            numbers,
            watchdog: Watchdog::new(&self.link, connection, history, key),
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
        loop {
            if self.posts.is_empty() {
                return None;
            }
            tokio::select! {
                order = self.orders.recv() => {
                    let asked = self.take(order?);
                    stream.to_ask.push_back(asked);
                }
                message = stream.responses.message() => {
                    let heard = message.as_ref().ok().and_then(Option::as_ref);
                    stream.watchdog.heard(heard);
                    let taken = match message {
                        Ok(Some(message)) => self.hear(&mut stream.numbers, &message),
                        Ok(None) => Err(Error::new(ErrorKind::Unavailable, "the server closed the stream")),
                        Err(error) => Err(failed(error)),
                    };
                    if let Err(cause) = taken {
                        return Some(cause);
                    }
                }
                sent = ask(&mut stream.requests, stream.to_ask.front(), &self.posts, &stream.numbers) => {
                    match sent {
                        Ok(Some(number)) => stream.numbers.ask(number),
                        Ok(None) => {}
                        Err(cause) => return Some(cause),
                    }
                    stream.to_ask.pop_front();
                }
                turn = stream.watchdog.turn() => {
                    let asked = match turn {
                        Ok(Turn::Ask) => stream.requests.request_progress().await.map_err(failed),
                        Ok(Turn::Alive) => Ok(()),
                        Err(cause) => Err(cause),
                    };
                    if let Err(cause) = asked {
                        return Some(cause);
                    }
                }
            }
        }
    }

    fn hear(&mut self, numbers: &mut Numbers, message: &WatchResponse) -> Result<()> {
        let theirs = message.watch_id();
        if message.created() && !message.canceled() {
            numbers.confirm(theirs);
        }
        let number = numbers.ours(theirs);
        if message.canceled() {
            // One that was given up is confirmed so; any other is to be asked for anew. One that is
            // refused as it is asked for goes by no number at some servers: so it is when the token
            // has run out that the stream was opened with.
            let is_wanted = number.is_some_and(|number| self.posts.contains_key(&number));
            if message.created() || is_wanted {
                return Err(cancelled(message));
            }
            numbers.forget(theirs);
            return Ok(());
        }
        let Some((number, post)) =
            number.and_then(|number| Some((number, self.posts.get(&number)?)))
        else {
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

fn options(revision: i64) -> WatchOptions {
    WatchOptions::new().with_start_revision(revision)
}

/// Sends what is to be asked next, and returns the number of what is to be watched, if it is that;
/// never returns if there is nothing. Cancel safe.
async fn ask(
    requests: &mut WatchRequestSender,
    next: Option<&Asked>,
    posts: &HashMap<i64, Post>,
    numbers: &Numbers,
) -> Result<Option<i64>> {
    match next {
        Some(Asked::Watch(number, revision)) => {
            // Given up meanwhile, unless it is there.
            if let Some(post) = posts.get(number) {
                let asked = requests.watch(post.key.as_str(), Some(options(*revision)));
                asked.await.map_err(failed)?;
                return Ok(Some(*number));
            }
            Ok(None)
        }
        Some(Asked::Cancel(number)) => {
            if let Some(theirs) = numbers.theirs(*number) {
                requests.cancel(theirs).await.map_err(failed)?;
            }
            Ok(None)
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_known_by_the_numbers_that_they_are_given_wherever_they_come_from() {
        // Of who counts as they are asked for, in whatever order they are confirmed; and of who
        // counts in another way.
        for (confirmed, known) in [
            ([0, 1, 2], [7, 8, 9]),
            ([2, 0, 1], [9, 7, 8]),
            ([40, 41, 42], [7, 8, 9]),
        ] {
            let mut numbers = Numbers::default();
            for ours in [7, 8, 9] {
                numbers.ask(ours);
            }
            assert_eq!(numbers.theirs(8), Some(1), "as it would be counted");
            for (theirs, ours) in confirmed.into_iter().zip(known) {
                numbers.confirm(theirs);
                assert_eq!(numbers.ours(theirs), Some(ours));
                assert_eq!(numbers.theirs(ours), Some(theirs));
            }
            numbers.forget(confirmed[0]);
            assert_eq!(
                (numbers.ours(confirmed[0]), numbers.theirs(known[0])),
                (None, None)
            );
        }
    }
}
