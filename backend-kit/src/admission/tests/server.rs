//! A registry of a fixed capacity, which does what it was asked for whether anybody waits or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

use crate::Timings;
use crate::admission::{Admission, Class};

/// What a claim has.
pub(super) const LIMIT: Duration = Duration::from_secs(3);

/// So many workers, each of which takes a time for each request, in the order in which they come.
#[derive(Clone, Debug)]
pub(super) struct Server(Arc<Inside>);

#[derive(Debug)]
struct Inside {
    workers: Semaphore,
    count: u32,
    /// In microseconds.
    service: AtomicU64,
    /// On the way there and back.
    wire: Duration,
    queued: AtomicUsize,
    longest_queue: AtomicUsize,
}

impl Server {
    pub(super) fn new(workers: u32, service: Duration, wire: Duration) -> Self {
        let server = Self(Arc::new(Inside {
            workers: Semaphore::new(workers as usize),
            count: workers,
            service: AtomicU64::new(0),
            wire,
            queued: AtomicUsize::new(0),
            longest_queue: AtomicUsize::new(0),
        }));
        server.take(service);
        server
    }

    /// From now on each request takes this long.
    pub(super) fn take(&self, service: Duration) {
        let micros = u64::try_from(service.as_micros()).unwrap();
        self.0.service.store(micros, Ordering::Relaxed);
    }

    pub(super) fn service_time(&self) -> Duration {
        Duration::from_micros(self.0.service.load(Ordering::Relaxed))
    }

    /// Requests a second.
    pub(super) fn capacity(&self) -> f64 {
        f64::from(self.0.count) / self.service_time().as_secs_f64()
    }

    /// The most that have been there at one time since this was asked last.
    pub(super) fn longest_queue(&self) -> usize {
        self.0.longest_queue.swap(0, Ordering::Relaxed)
    }

    /// A request. What is sent is done, though it be given up.
    pub(super) async fn ask(&self) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let server = self.clone();
        tokio::spawn(async move {
            sleep(server.0.wire).await;
            let queued = server.0.queued.fetch_add(1, Ordering::Relaxed) + 1;
            server.0.longest_queue.fetch_max(queued, Ordering::Relaxed);
            let worker = server.0.workers.acquire().await;
            sleep(server.service_time()).await;
            drop(worker);
            server.0.queued.fetch_sub(1, Ordering::Relaxed);
            sleep(server.0.wire).await;
            let _gone = done.send(());
        });
        let lost = |_| Error::new(ErrorKind::Unavailable, "the server is gone");
        answer.await.map_err(lost)
    }
}

/// So many who want one thing after the other, and try again what fails: each has one request under
/// way or waits to have it. Counts what was answered.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) answered: Arc<AtomicUsize>,
    tasks: tokio::task::JoinSet<()>,
}

impl Crowd {
    pub(super) fn of(count: usize, admission: &Admission, class: Class, server: &Server) -> Self {
        let mut crowd = Self {
            answered: Arc::default(),
            tasks: tokio::task::JoinSet::new(),
        };
        for _ in 0..count {
            let (admission, server) = (admission.clone(), server.clone());
            let answered = Arc::clone(&crowd.answered);
            crowd.tasks.spawn(async move {
                loop {
                    let limit = admission.patience(LIMIT);
                    if admission.call(class, limit, server.ask()).await.is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    } else {
                        sleep(Duration::from_millis(100)).await;
                    }
                }
            });
        }
        crowd
    }

    pub(super) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// What part of the capacity of `server` comes to good use in `span`.
    pub(super) async fn goodput(&self, server: &Server, span: Duration) -> f64 {
        let before = self.answered();
        sleep(span).await;
        let answered = f64::from(u32::try_from(self.answered() - before).unwrap());
        answered / span.as_secs_f64() / server.capacity()
    }
}

pub(super) fn admission() -> Admission {
    Admission::new(&Timings::default())
}

/// One that admits everybody, as if there were none.
pub(super) fn unbounded() -> Admission {
    let mut timings = Timings::default();
    timings.admission.initial = 1 << 20;
    timings.admission.least = 1 << 20;
    Admission::new(&timings)
}
