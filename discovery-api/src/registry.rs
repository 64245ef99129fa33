//! The registry itself.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Capabilities, Instance, Registration, Result, ServiceName, Snapshot, Watch};

/// Where servers publish that they exist, and clients find them.
///
/// A handle: cheap to share, and nothing ends with it. It is used within a tokio runtime, and may be
/// used in several. Each [`Registration`] and each [`Watch`]
/// lives until it is dropped itself. Implementors build on `plimsoll-backend-kit` and prove
/// themselves with the `conformance` feature; each sentence under *Behaviour* has a case there.
///
/// # Behaviour
/// - Registrations and watches outlive the handle they came from.
/// - Once everything is dropped, no task is left behind.
/// - What was begun in a runtime that has ended says so: registrations are `Lost`, watches stale, both
///   for good and with the cause, and the records are removed or expire.
/// - A handle goes on working in another runtime than the one that it was first used in, which may have
///   ended.
/// - Every change of a registration's state and of a watch's freshness is one line on the log, at
///   `WARN` if it is for the worse and at `INFO` if for the better, that names the service and the
///   cause.
/// - A registry that has never answered is told of on the log at the first attempt that fails, and by
///   the watch.
#[async_trait]
pub trait Registry: fmt::Debug + Send + Sync + 'static {
    /// What the registry can do, and its bounds.
    ///
    /// # Behaviour
    /// - The bounds agree with one another.
    fn capabilities(&self) -> Capabilities;

    /// Records that `instance` shall be in the registry, and returns without waiting for it.
    ///
    /// # Behaviour
    /// - A registered instance becomes visible to every list and watch, as it was described.
    /// - A registry that is down at the start delays visibility, never the caller.
    /// - A registration that is dropped before it is in the registry leaves nothing there.
    /// - An id belongs to one live owner; a second registration of it stands in `Conflict` until
    ///   the owner leaves.
    /// - Who takes up the id of an owner that died waits for it in `Conflict`, and `ready` with it; a
    ///   conflict that outlasts what the dead leave is an error of `ready`.
    /// - Giving up a registration in `Conflict` leaves the owner untouched.
    /// - An update reaches every watcher within the same incarnation.
    /// - An update in an outage is written afterwards.
    /// - An update that would make it another server is refused.
    /// - A deregistration takes effect at once and is final.
    /// - No racing repair undoes a deregistration.
    /// - A deregistration is bounded in time, whatever the registry does, and goes on being tried.
    /// - A deregistration stands though its future is dropped.
    /// - A deregistration may be repeated.
    /// - Dropping the registration removes the instance.
    /// - What expires without being given up is registered again: a new incarnation, with the
    ///   current load.
    /// - An expiry shows in the state as `Lost`, then `Live`.
    /// - After an outage longer than the lease, and after a loss of all data, everything is
    ///   registered again.
    /// - The load is published as it is, without being asked.
    /// - A record that nothing keeps alive, such as a copy, is no member, and its id is free to take.
    /// - Even an unchanged load is published again before it exceeds its maximum age.
    /// - The load is 0 after the last guard drops.
    /// - A flush publishes the load at once.
    /// - A flush fails while the registration is not live, and after it was given up; no load is
    ///   lost.
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
    /// - A watch yields the present set first, whenever it starts.
    /// - A watch converges to the truth, and two watchers agree.
    /// - A service that nobody registered is empty, not an error.
    /// - Names are kept byte by byte, and services whose names are prefixes of each other never
    ///   mix.
    /// - An entry that cannot be understood is skipped and counted, and harms no other.
    /// - Whatever a neighbour writes, of whatever shape, encoding or size, costs at most his own
    ///   entry.
    /// - A change of load wakes no watcher and changes no identity.
    /// - In an outage the last good set stays, marked stale, and is live again afterwards.
    /// - A watch started in an outage waits, and yields once the registry is back.
    /// - A watcher never sees an empty list because the registry has lost its data.
    /// - A sudden mass loss is held down: what went missing is suspect for a grace period, then
    ///   dropped.
    /// - A single crash takes effect as soon as the registry knows of it.
    /// - A graceful departure takes effect at once, of many as of all.
    /// - A slow watcher sees the latest state, in bounded memory.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing is being followed.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the registry cannot hold the name.
    async fn watch(&self, service: &ServiceName) -> Result<Watch>;

    /// Follows the members of `service` as [`watch`](Self::watch) does, and need not follow their
    /// loads: what [`Member::load`](crate::Member::load) says is then old, or nothing. For whoever
    /// makes no use of published load, which is most of what changes in a registry.
    ///
    /// Unless a backend knows better, this is `watch`.
    ///
    /// # Behaviour
    /// - A watch of the members alone sees the members that a watch sees.
    /// - Loads are followed as soon as somebody watches them, whoever watches the members already.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing is being followed.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    async fn watch_members(&self, service: &ServiceName) -> Result<Watch> {
        self.watch(service).await
    }

    /// Reads the members of `service` from the registry now.
    ///
    /// # Behaviour
    /// - A service that nobody registered is empty, not an error.
    /// - An outage is an error, not an empty list.
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
    /// # Behaviour
    /// - Every service with an entry is named once, in order, and no other.
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

            async fn watch_members(&self, service: &ServiceName) -> Result<Watch> {
                (**self).watch_members(service).await
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
