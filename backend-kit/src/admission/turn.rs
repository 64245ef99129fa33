//! A place in the queue of somebody who does other things meanwhile.

use std::future::pending;

use tokio::sync::oneshot;

use super::{Admission, Class, Permit};

/// A permit that is there, or is waited for, or neither.
#[derive(Debug)]
pub(crate) struct Turn {
    admission: Admission,
    class: Class,
    permit: Option<Permit>,
    queued: Option<oneshot::Receiver<Permit>>,
}

impl Turn {
    pub(crate) fn new(admission: Admission, class: Class) -> Self {
        Self {
            admission,
            class,
            permit: None,
            queued: None,
        }
    }

    /// The permit, if it is there or to be had at once; otherwise it is waited for.
    pub(crate) fn take(&mut self) -> Option<Permit> {
        if self.permit.is_none() && self.queued.is_none() {
            match self.admission.0.queue(self.class) {
                Ok(permit) => self.permit = Some(permit),
                Err(queued) => self.queued = Some(queued),
            }
        }
        self.permit.take()
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.queued.is_some()
    }

    /// Neither waits for it any longer nor keeps it.
    pub(crate) fn give_up(&mut self) {
        self.permit = None;
        self.queued = None;
    }

    /// Returns when the permit that is waited for is there. Cancel safe.
    pub(crate) async fn come(&mut self) {
        let Some(queued) = &mut self.queued else {
            return pending().await;
        };
        let permit = queued.await;
        self.queued = None;
        // There is one, as the other end is dropped with nothing but the queue.
        self.permit = permit.ok();
    }
}
