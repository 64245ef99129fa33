//! The system's word that something has changed, where it gives one.

use std::sync::Arc;

use tokio::net::unix::pipe::Receiver;

use crate::directory::{Directory, LOADS, RECORDS};

/// A stream of notices. What they say is not read: whatever it is, everything is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Notices(Arc<Receiver>);

impl Notices {
    /// None, if the system has no more to give. Within a runtime.
    pub(crate) fn new() -> Option<Self> {
        // It is read, and waited for, just as a pipe.
        let receiver = Receiver::from_owned_fd_unchecked(inotify::open()?);
        receiver.ok().map(|receiver| Self(Arc::new(receiver)))
    }

    /// Follows the directory from now on; the same one again changes nothing. Returns whether the
    /// system does so.
    pub(crate) fn attend(&self, directory: &Directory, loads: bool) -> bool {
        let watch = |below| inotify::watch(&self.0, &directory.path.join(below));
        watch(RECORDS) && (!loads || watch(LOADS))
    }

    /// Returns when something has changed. Cancel safe.
    pub(crate) async fn changed(&self) {
        let mut heard = false;
        while !heard {
            if self.0.readable().await.is_err() {
                return std::future::pending().await;
            }
            while let Ok(1..) = self.0.try_read(&mut [0; 4096]) {
                heard = true;
            }
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod inotify {
    use std::os::fd::{AsFd, OwnedFd};
    use std::path::Path;

    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

    pub(super) fn open() -> Option<OwnedFd> {
        init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()
    }

    pub(super) fn watch(instance: impl AsFd, path: &Path) -> bool {
        // The system closes the files of whoever is killed: so it is heard of the death of an owner.
        let written = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE;
        let moved = WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        let plain = WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        add_watch(instance, path, written | moved | plain).is_ok()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod inotify {
    use std::os::fd::{AsFd, OwnedFd};
    use std::path::Path;

    pub(super) const fn open() -> Option<OwnedFd> {
        None
    }

    pub(super) fn watch(_instance: impl AsFd, _path: &Path) -> bool {
        false
    }
}
