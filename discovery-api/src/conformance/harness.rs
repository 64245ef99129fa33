//! What a backend's tests bring.

use std::sync::Arc;

use async_trait::async_trait;

use crate::conformance::{Oddity, Timing};
use crate::{Incarnation, InstanceId, Registry, Result, ServiceName};

/// A registry under test. Each case gets a new one, whose faults touch no other.
///
/// It must be ready before the case starts, and run tasks of its own, such as a proxy's, on a runtime
/// of their own: one case counts the tasks of the runtime it is on.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A handle such as another process would have: two calls give two sessions on one registry.
    ///
    /// Works in an outage too, as a process can start in one.
    async fn registry(&self) -> Arc<dyn Registry>;

    /// How long things may take here.
    fn timing(&self) -> Timing;

    /// What can be done to the registry.
    fn faults(&self) -> &dyn Faults;
}

/// What can go wrong with a registry, on command. Each returns once it has been done.
///
/// Naming a record that does not exist is no error: a case may lose the race for it.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Ends the lease, session or check of the record in the registry, as it would after a silence
    /// of its owner. The owner lives on and is not told. Whatever hangs on the same session goes with
    /// it.
    async fn expire(&self, service: &ServiceName, id: &InstanceId);

    /// Ends the owners of the records without a word, all at one moment. The records expire by
    /// the registry's own means, within [`Timing::expiry`], and are never registered again.
    ///
    /// Whatever was registered through the same handles may go with them.
    async fn crash(&self, service: &ServiceName, ids: &[InstanceId]);

    /// Makes the registry unreachable for every handle, without a hint to anybody.
    async fn outage(&self);

    /// Makes it reachable again, with its data, less what has expired meanwhile.
    async fn restore(&self);

    /// Has it come back from a short outage with nothing at all: no record, lease or session.
    async fn wipe(&self);

    /// Writes one entry under `service` that cannot be understood.
    async fn poison(&self, service: &ServiceName);

    /// Writes the odd thing with this number, from 0 on, as a stranger could in this registry: a
    /// value, a field, a key, a load or the name of a service, of a shape, an encoding or a size that
    /// nothing of ours has. Where entries are bytes, [`odd_values`](super::odd_values) are among
    /// them. Nothing once there are no more.
    async fn oddity(&self, service: &ServiceName, number: usize) -> Option<Oddity>;

    /// Writes the record of `id` under `service`, and its load, under `other` as well, without the
    /// lease, session or check that keeps it alive, as a tool that copies a registry does. Returns
    /// `false` if records of this registry cannot be parted from what keeps them alive.
    async fn copy(&self, service: &ServiceName, id: &InstanceId, other: &ServiceName) -> bool;

    /// Writes a load just as the owner of `incarnation` would: by the same conditional write.
    ///
    /// # Errors
    /// Whatever the registry answers when it refuses.
    async fn write_load(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        incarnation: Incarnation,
        load: u64,
    ) -> Result<()>;
}
