//! Settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_backend_kit::{Backend, CommonSettings, Timings, invalid_setting};
use plimsoll_discovery_api::Result;

use crate::DirRegistry;
use crate::driver::DirDriver;

/// Each publication is a file that is replaced, and read by everybody who follows the service.
const LOAD_INTERVAL: Duration = Duration::from_millis(200);

/// Settings of a [`DirRegistry`].
#[derive(Debug)]
#[must_use]
pub struct DirBuilder {
    path: PathBuf,
    common: CommonSettings,
}

impl DirBuilder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            common: CommonSettings::default(),
        }
    }

    /// The shortest time between two publications of a load, at most a day. Default: 200 ms; each is a
    /// file that is replaced, and read by everybody who follows the service.
    pub fn with_load_interval(mut self, interval: Duration) -> Self {
        self.common.load_interval = Some(interval);
        self
    }

    /// Changes how this handle times what it does.
    pub fn with_timings(mut self, change: impl FnOnce(&mut Timings) + Send + 'static) -> Self {
        self.common.change_timings(change);
        self
    }

    /// Makes the handle. The directory is opened, or made, when it is first used.
    ///
    /// # Errors
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming the setting at fault:
    /// a `path` that is not absolute, or is that of the root; `load_interval`.
    pub fn build(self) -> Result<DirRegistry> {
        if !self.path.is_absolute() || self.path.file_name().is_none() {
            let path = self.path.display().to_string();
            let why = "is not the absolute path of a directory";
            return Err(invalid_setting("path", &path, why));
        }
        Ok(DirRegistry(Backend::new(DirDriver {
            path: self.path.into(),
            timings: self.common.apply(timings())?,
            swept: Arc::default(),
        })))
    }
}

/// Nothing crosses a network, so everything is prompt. There is no lease: a record is as good as its
/// owner's lock, but nobody knows of it while the directory is out of reach.
fn timings() -> Timings {
    let mut timings = Timings::default();
    timings.renew_interval = Duration::from_secs(1);
    timings.backoff.base = Duration::from_millis(20);
    timings.backoff.cap = Duration::from_secs(1);
    timings.coalesce = Duration::from_millis(10);
    timings.conflict_retry = Duration::from_millis(500);
    timings.load.min_interval = LOAD_INTERVAL;
    timings.load.settle = LOAD_INTERVAL;
    timings.load.absolute = 1;
    timings.load.relative = 0.0;
    timings
}
