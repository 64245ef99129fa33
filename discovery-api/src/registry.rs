//! The registry itself.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Capabilities, Instance, Registration, Result, ServiceName, Snapshot, Watch};

/// Where servers publish that they exist, and clients find them.
///
/// A handle: cheap to share, and nothing ends with it. Each [`Registration`] and each [`Watch`]
/// lives until it is dropped itself. Implementors build on `plimsoll-backend-kit` and prove
/// themselves with the `conformance` feature; each sentence under *Behaviour* is a case there.
#[async_trait]
pub trait Registry: fmt::Debug + Send + Sync + 'static {
    /// What the registry can do, and its bounds.
    fn capabilities(&self) -> Capabilities;

    /// Records that `instance` shall be in the registry, and returns without waiting for it.
    ///
    /// # Behaviour
    /// - A registered instance becomes visible to every list and watch, as it was described.
    /// - A registry that is down at the start delays visibility, never the caller.
    /// - An id belongs to one live owner; a second registration of it stands in `Conflict`.
    /// - Deregistration is immediate and final, and no racing repair undoes it.
    /// - Dropping the registration removes the instance.
    /// - What expires without being given up is registered again, with the current load.
    /// - The load is published as it is; it is 0 after the last guard drops.
    /// - A load write of a former incarnation is refused.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing has been registered.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the registry could never take
    /// the record. All else is reported by the registration.
    async fn register(&self, instance: Instance) -> Result<Registration>;

    /// Follows the members of `service`. Returns without waiting for the registry.
    ///
    /// # Behaviour
    /// - A watch yields the present set first, then every later state, and converges to the truth.
    /// - Two watchers agree.
    /// - A service that nobody registered is empty, not an error.
    /// - Services whose names are prefixes of each other never mix.
    /// - An entry that cannot be understood is skipped and harms no other.
    /// - A change of load wakes no watcher and changes no identity.
    /// - In an outage the last good set stays, marked stale, and is live again afterwards.
    /// - A sudden mass loss is held down; a graceful departure takes effect at once.
    /// - A slow watcher sees the latest state, in bounded memory.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing is being followed.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the registry cannot hold the name.
    async fn watch(&self, service: &ServiceName) -> Result<Watch>;

    /// Reads the members of `service` from the registry now.
    ///
    /// # Behaviour
    /// - A service that nobody registered is empty, not an error.
    ///
    /// # Cancel safety
    /// A read; nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) or [`TimedOut`](crate::ErrorKind::TimedOut)
    /// if the registry does not answer, or what it answered.
    async fn list(&self, service: &ServiceName) -> Result<Snapshot>;

    /// Reads the names of all services that have at least one entry, sorted, each once.
    ///
    /// # Cancel safety
    /// A read; nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) or [`TimedOut`](crate::ErrorKind::TimedOut)
    /// if the registry does not answer, or what it answered.
    async fn services(&self) -> Result<Vec<ServiceName>>;
}

macro_rules! forward {
    ($pointer:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<T: Registry + ?Sized> Registry for $pointer<T> {
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            async fn register(&self, instance: Instance) -> Result<Registration> {
                (**self).register(instance).await
            }

            async fn watch(&self, service: &ServiceName) -> Result<Watch> {
                (**self).watch(service).await
            }

            async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
                (**self).list(service).await
            }

            async fn services(&self) -> Result<Vec<ServiceName>> {
                (**self).services().await
            }
        }
    };
}

forward!(Arc);
forward!(Box);

const _: fn(&dyn Registry) = |_| {};
