//! Watches over the handle's own keys, so that one that an operator deletes is put back at once.
//!
//! All of them on one stream, which is there as long as there is a key to watch.

mod task;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use etcd_client::KeyValue;
use plimsoll_discovery_api::{Error, Incarnation};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use self::task::Task;
use crate::codec;
use crate::connection::Link;

/// Ends its task with it.
#[derive(Debug)]
pub(crate) struct Sentinel {
    link: Arc<Link>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    orders: mpsc::UnboundedSender<Order>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A key that is watched until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    number: i64,
    gone: watch::Receiver<Option<Error>>,
    /// Whether the stream that would tell is there.
    attentive: watch::Receiver<bool>,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    Attend(i64, Post),
    Leave(i64),
}

/// A key to watch, the lease it must be under, the life it must be of, and the revision that it was
/// last written at.
#[derive(Debug)]
struct Post {
    key: String,
    lease: i64,
    life: Incarnation,
    written: Arc<AtomicI64>,
    gone: watch::Sender<Option<Error>>,
    attentive: watch::Sender<bool>,
}

impl Sentinel {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            running: Mutex::new(None),
        }
    }

    /// To the task; started in the present runtime if that in which it ran has ended.
    fn orders(&self) -> mpsc::UnboundedSender<Order> {
        // A panic while the lock was held cannot have left it half changed.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let present = running.take().filter(|r| !r.task.is_finished());
        let present = present.unwrap_or_else(|| {
            let (orders, received) = mpsc::unbounded_channel();
            let task = Task::new(Arc::clone(&self.link), received);
            let task = tokio::spawn(task.run()).abort_handle();
            Running { orders, task }
        });
        let orders = present.orders.clone();
        *running = Some(present);
        orders
    }

    /// Watches `key`, which was written for `life` under `lease` at the revision `written`; that is
    /// raised when it is written again. Needs a tokio runtime.
    pub(crate) fn attend(
        &self,
        key: &str,
        lease: i64,
        life: Incarnation,
        written: Arc<AtomicI64>,
    ) -> Watched {
        static NUMBER: AtomicI64 = AtomicI64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (gone, is_gone) = watch::channel(None);
        let (attentive, is_attentive) = watch::channel(false);
        let post = Post {
            key: key.to_owned(),
            lease,
            life,
            written,
            gone,
            attentive,
        };
        let orders = self.orders();
        let _ends_with_this = orders.send(Order::Attend(number, post));
        Watched {
            number,
            gone: is_gone,
            attentive: is_attentive,
            orders,
        }
    }
}

impl Post {
    /// Whether `kv` is the record of this life. A value may be exchanged with the lease left as it
    /// is.
    fn owns(&self, kv: &KeyValue) -> bool {
        let owner = codec::owner(kv.value(), kv.create_revision().unsigned_abs());
        kv.lease() == self.lease && owner.incarnation == self.life && !owner.departed
    }
}

impl Watched {
    /// Why the key is lost, if that is known.
    pub(crate) fn cause(&self) -> Option<Error> {
        self.gone.borrow().clone()
    }

    /// Whether a loss would be told without being asked for: not once the task is gone.
    pub(crate) fn is_attended(&self) -> bool {
        *self.attentive.borrow() && self.attentive.has_changed().is_ok()
    }

    /// Returns when the key is lost; never otherwise. Cancel safe.
    pub(crate) async fn lost(&self) -> Error {
        let mut gone = self.gone.clone();
        let cause = match gone.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone(),
            // Nobody watches any more, and nobody has said that it is lost.
            Err(_) => None,
        };
        match cause {
            Some(cause) => cause,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ended = self.orders.send(Order::Leave(self.number));
    }
}
