//! tower's power of two choices.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::load::{CompleteOnResponse, Load, PeakEwma, PendingRequests};

use crate::set::{Key, Set};
use crate::subject::Subject;

/// Answers at once with its number.
pub struct Numbered(u64);

impl Service<()> for Numbered {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

/// A service of which tower knows the load.
pub trait Loaded: Service<(), Response = u64, Error = Infallible> + Send + 'static {
    fn new(number: u64) -> Self;
}

pub type Pending = PendingRequests<Numbered>;

impl Loaded for Pending {
    fn new(number: u64) -> Self {
        Self::new(Numbered(number), CompleteOnResponse::default())
    }
}

pub type Ewma = PeakEwma<Numbered>;

impl Loaded for Ewma {
    /// linkerd's figures: 30 ms at first, 10 s to forget.
    fn new(number: u64) -> Self {
        let rtt = Duration::from_millis(30);
        Self::new(Numbered(number), rtt, 10e9, CompleteOnResponse::default())
    }
}

/// Says what has changed.
pub struct Feed<S>(Arc<Mutex<VecDeque<Change<u64, S>>>>);

impl<S> Clone for Feed<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Stream for Feed<S> {
    type Item = Result<Change<u64, S>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.lock().unwrap().pop_front() {
            Some(change) => Poll::Ready(Some(Ok(change))),
            None => Poll::Pending,
        }
    }
}

/// The balancer, which picks by `&mut`.
pub struct Balanced<S: Loaded> {
    balance: Balance<Feed<S>, ()>,
    feed: Feed<S>,
}

impl<S> Balanced<S>
where
    S: Loaded + Load<Metric: std::fmt::Debug>,
    S::Future: Send,
{
    pub fn new(set: Set) -> Self {
        let changes = set
            .numbers()
            .map(|number| Change::Insert(number, S::new(number)));
        let feed = Feed(Arc::new(Mutex::new(changes.collect())));
        let mut this = Self {
            balance: Balance::new(feed.clone()),
            feed,
        };
        // New services become ready in batches.
        for _ in 0..set.size {
            this.pick();
        }
        this
    }

    #[inline]
    pub fn pick(&mut self) -> u64 {
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(
            self.balance.poll_ready(&mut context),
            Poll::Ready(Ok(()))
        ));
        let call = pin!(self.balance.call(()));
        match call.poll(&mut context) {
            Poll::Ready(Ok(number)) => number,
            _ => unreachable!("a service answers at once"),
        }
    }

    pub fn leave(&mut self, number: u64) {
        self.change(Change::Remove(number));
    }

    pub fn join(&mut self, number: u64) {
        self.change(Change::Insert(number, S::new(number)));
    }

    fn change(&mut self, change: Change<u64, S>) {
        self.feed.0.lock().unwrap().push_back(change);
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.balance.poll_ready(&mut context).is_ready());
    }
}

/// Held by one thread: the lock is taken once.
pub struct Exclusive<S: Loaded>(Mutex<Balanced<S>>);

impl<S> Exclusive<S>
where
    S: Loaded + Load<Metric: std::fmt::Debug>,
    S::Future: Send,
{
    pub fn new(set: Set) -> Self {
        Self(Mutex::new(Balanced::new(set)))
    }
}

impl<S> Subject for Exclusive<S>
where
    S: Loaded + Load<Metric: std::fmt::Debug>,
    S::Future: Send,
{
    type Handle<'a> = MutexGuard<'a, Balanced<S>>;

    fn handle(&self) -> Self::Handle<'_> {
        self.0.lock().unwrap()
    }

    #[inline]
    fn pick(balanced: &mut Self::Handle<'_>, _: &Key) -> u64 {
        balanced.pick()
    }
}

/// Shared by threads: the lock is taken at each pick.
pub struct Locked<S: Loaded>(Exclusive<S>);

impl<S> Locked<S>
where
    S: Loaded + Load<Metric: std::fmt::Debug>,
    S::Future: Send,
{
    pub fn new(set: Set) -> Self {
        Self(Exclusive::new(set))
    }
}

impl<S> Subject for Locked<S>
where
    S: Loaded + Load<Metric: std::fmt::Debug>,
    S::Future: Send,
{
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    #[inline]
    fn pick(this: &mut &Self, _: &Key) -> u64 {
        this.0.0.lock().unwrap().pick()
    }
}
