//! The registry as users meet it.

use std::path::PathBuf;

use plimsoll_backend_kit::{Backend, RegistryUrl, invalid_setting};
use plimsoll_discovery_api::Result;

use crate::DirBuilder;
use crate::driver::DirDriver;

/// A registry in a directory of this machine.
///
/// Clones are one handle; one made anew is as another process would have it. Needs a tokio runtime
/// with I/O and time.
#[derive(Clone, Debug)]
pub struct DirRegistry(pub(crate) Backend<DirDriver>);

impl DirRegistry {
    /// Settings for a handle on the directory at this absolute path, the parent of which must be there.
    pub fn builder(path: impl Into<PathBuf>) -> DirBuilder {
        DirBuilder::new(path.into())
    }

    /// The registry of a URL such as `dir:///run/plimsoll?load_interval=50ms`.
    ///
    /// # Errors
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming the part at fault.
    pub fn from_url(url: &RegistryUrl) -> Result<Self> {
        if url.scheme() != "dir" {
            return Err(invalid_setting("scheme", url.scheme(), "is not dir"));
        }
        if url.user().is_some() {
            return Err(invalid_setting(
                "user",
                "(not shown)",
                "has no meaning for a directory",
            ));
        }
        if let Some(host) = url.hosts().first() {
            return Err(invalid_setting(
                "host",
                host,
                "has no meaning: a path begins with dir:///",
            ));
        }
        let mut builder = Self::builder(format!("/{}", url.path()));
        let mut options = url.options();
        if let Some(interval) = options.take_duration("load_interval")? {
            builder = builder.with_load_interval(interval);
        }
        options.finish()?;
        builder.build()
    }
}

plimsoll_backend_kit::delegate_registry!(DirRegistry);
