//! What a server says it carries: counted locally, published by the registration.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::Result;

/// The server's side of load tracking.
///
/// All but [`flush`](Self::flush) act on a local counter: they never wait, never fail and may be
/// called from any thread. What they leave is published by the registration in its own time, as
/// an absolute value, by one writer.
#[async_trait]
pub trait LoadUpdater: fmt::Debug + Send + Sync + 'static {
    /// Adds `step`; saturates at `u64::MAX`.
    fn increase(&self, step: u64);

    /// Takes `step` away. Below 0 it stays at 0 and is counted as a bug of the caller.
    fn decrease(&self, step: u64);

    /// Replaces the value.
    fn set(&self, load: u64);

    /// The value now.
    fn current(&self) -> u64;

    /// Publishes the value now, without waiting for the publish interval, and returns when the
    /// registry has confirmed it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the request standing.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) while the registration is not live,
    /// [`Closed`](crate::ErrorKind::Closed) once it is deregistered, or what the registry
    /// answered. The value is not lost: it is published when that is possible again.
    async fn flush(&self) -> Result<()>;
}

/// The counter that a [`LoadUpdater`] changes and a registration publishes.
///
/// Backends build registrations on it; users meet it as [`LoadHandle`].
#[derive(Debug, Default)]
pub struct LoadGauge {
    value: AtomicU64,
    underflows: AtomicU64,
    dirty: AtomicBool,
    changed: Notify,
}

impl LoadGauge {
    /// A gauge at 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::SeqCst)
    }

    /// How often a decrease would have gone below 0: each is a bug of the program that counts.
    #[must_use]
    pub fn underflows(&self) -> u64 {
        self.underflows.load(Ordering::Relaxed)
    }

    /// Waits until the value has been touched since the last call returned.
    ///
    /// For the one publisher. Any number of changes make one wake-up, and the value must be read
    /// after it: a change that follows the read wakes again.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn changed(&self) {
        while !self.dirty.swap(false, Ordering::SeqCst) {
            self.changed.notified().await;
        }
    }

    fn increase(&self, step: u64) {
        let add = |value: u64| Some(value.saturating_add(step));
        let _always = self
            .value
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, add);
        self.touch();
    }

    fn decrease(&self, step: u64) {
        let take = |value: u64| Some(value.saturating_sub(step));
        let before = self
            .value
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, take);
        if before.is_ok_and(|before| before < step)
            && self.underflows.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::error!(
                step,
                "load decreased below zero and was held at 0; some code releases more than it \
                 acquired (further cases are only counted)"
            );
        }
        self.touch();
    }

    fn set(&self, load: u64) {
        self.value.store(load, Ordering::SeqCst);
        self.touch();
    }

    /// One plain load while a wake-up is already owed; a notification otherwise.
    ///
    /// The value is written before the flag is read, and the publisher clears the flag before it
    /// reads the value: sequential consistency of the four makes a missed change impossible.
    fn touch(&self) {
        if !self.dirty.load(Ordering::SeqCst) && !self.dirty.swap(true, Ordering::SeqCst) {
            self.changed.notify_one();
        }
    }
}

/// What makes a registration's load reach the registry ahead of its time.
#[async_trait]
pub trait Flush: fmt::Debug + Send + Sync + 'static {
    /// See [`LoadUpdater::flush`].
    async fn flush(&self) -> Result<()>;
}

/// A registration's load: the usual [`LoadUpdater`]. Cheap to clone; all clones are one counter.
///
/// It outlives the registration without harm: changes then go nowhere.
#[derive(Clone)]
pub struct LoadHandle {
    gauge: Arc<LoadGauge>,
    publisher: Arc<dyn Flush>,
}

impl LoadHandle {
    /// For backends: a handle on `gauge`, which `publisher` publishes.
    #[must_use]
    pub fn new(gauge: Arc<LoadGauge>, publisher: Arc<dyn Flush>) -> Self {
        Self { gauge, publisher }
    }

    /// Adds 1 until the guard is dropped, so that the count is exact whatever path a connection's
    /// handler leaves by, a panic included.
    pub fn acquire(&self) -> LoadGuard {
        self.acquire_many(1)
    }

    /// Adds `step` until the guard is dropped.
    pub fn acquire_many(&self, step: u64) -> LoadGuard {
        self.gauge.increase(step);
        LoadGuard {
            gauge: Arc::clone(&self.gauge),
            step,
            others: Vec::new(),
        }
    }

    /// [`LoadUpdater::increase`], without the trait.
    pub fn increase(&self, step: u64) {
        self.gauge.increase(step);
    }

    /// [`LoadUpdater::decrease`], without the trait.
    pub fn decrease(&self, step: u64) {
        self.gauge.decrease(step);
    }

    /// [`LoadUpdater::set`], without the trait.
    pub fn set(&self, load: u64) {
        self.gauge.set(load);
    }

    /// The value now.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.gauge.get()
    }

    /// [`LoadUpdater::flush`], without the trait.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the request standing.
    ///
    /// # Errors
    /// As [`LoadUpdater::flush`].
    pub async fn flush(&self) -> Result<()> {
        self.publisher.flush().await
    }

    /// How often a decrease would have gone below 0: each is a bug of the program that counts.
    #[must_use]
    pub fn underflows(&self) -> u64 {
        self.gauge.underflows()
    }
}

#[async_trait]
impl LoadUpdater for LoadHandle {
    fn increase(&self, step: u64) {
        Self::increase(self, step);
    }

    fn decrease(&self, step: u64) {
        Self::decrease(self, step);
    }

    fn set(&self, load: u64) {
        Self::set(self, load);
    }

    fn current(&self) -> u64 {
        Self::current(self)
    }

    async fn flush(&self) -> Result<()> {
        Self::flush(self).await
    }
}

impl fmt::Debug for LoadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadHandle")
            .field("current", &self.gauge.get())
            .finish_non_exhaustive()
    }
}

/// Holds a part of the load; dropping it gives the part back.
#[derive(Debug)]
#[must_use = "the load falls again as soon as the guard is dropped"]
pub struct LoadGuard {
    gauge: Arc<LoadGauge>,
    step: u64,
    /// Dropped with it.
    others: Vec<Self>,
}

impl LoadGuard {
    /// One guard of both: dropping it gives back either part, each to its own load.
    pub fn and(mut self, other: Self) -> Self {
        self.others.push(other);
        self
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.gauge.decrease(self.step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nowhere;

    #[async_trait]
    impl Flush for Nowhere {
        async fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    fn handle() -> LoadHandle {
        LoadHandle::new(Arc::new(LoadGauge::new()), Arc::new(Nowhere))
    }

    #[test]
    fn load_is_zero_after_the_last_guard_even_through_panics() {
        let load = handle();
        let guards: Vec<_> = (0..10).map(|_| load.acquire()).collect();
        assert_eq!(load.current(), 10);
        let inner = load.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = inner.acquire_many(5);
            panic!("a handler dies");
        })
        .join();
        assert!(panicked.is_err());
        drop(guards);
        assert_eq!((load.current(), load.underflows()), (0, 0));
    }

    #[test]
    fn a_joined_guard_gives_each_part_back_to_its_own_load() {
        let (one, other) = (handle(), handle());
        let guard = one.acquire().and(other.acquire_many(3)).and(one.acquire());
        assert_eq!((one.current(), other.current()), (2, 3));
        drop(guard);
        assert_eq!((one.current(), other.current()), (0, 0));
        assert_eq!((one.underflows(), other.underflows()), (0, 0));
    }

    #[tokio::test]
    async fn a_handle_and_the_trait_are_one_counter() {
        let load = handle();
        let through: &dyn LoadUpdater = &load;
        through.increase(3);
        load.decrease(1);
        through.set(through.current() + 5);
        assert_eq!(load.current(), 7);
        through.decrease(7);
        load.increase(2);
        assert_eq!(through.current(), 2);
        through.flush().await.unwrap();
        load.flush().await.unwrap();
    }

    #[test]
    fn decrease_below_zero_saturates_and_is_counted() {
        let load = handle();
        load.increase(1);
        load.decrease(3);
        load.decrease(1);
        assert_eq!((load.current(), load.underflows()), (0, 2));
        load.set(u64::MAX);
        load.increase(1);
        assert_eq!(load.current(), u64::MAX);
    }

    #[tokio::test]
    async fn changes_before_the_wait_are_not_missed_and_many_make_one_wakeup() {
        let gauge = LoadGauge::new();
        for _ in 0..100 {
            gauge.increase(1);
        }
        gauge.changed().await;
        assert_eq!(gauge.get(), 100);
        let mut again = std::pin::pin!(gauge.changed());
        assert!(futures_poll_once(again.as_mut()).await.is_pending());
        gauge.set(3);
        again.await;
    }

    async fn futures_poll_once(
        mut future: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> std::task::Poll<()> {
        std::future::poll_fn(move |cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await
    }
}
