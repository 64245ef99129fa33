//! What is kept of an instance, and how it is written and read.

mod codec;
mod entry;
mod escape;
mod foreign;
mod key_form;

use std::sync::Arc;
use std::time::SystemTime;

use plimsoll_discovery_api::{Incarnation, Instance, InstanceId, ServiceName};

pub use self::codec::{Decoded, RecordMark, decode, encode};
pub use self::entry::{Entry, LeftOut, Skipped};
pub use self::escape::{escape, unescape};
pub use self::foreign::{Foreign, foreign_id};
pub use self::key_form::{KeyForm, id_of};

/// What is to be written of a registration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// What the instance says of itself.
    pub instance: Arc<Instance>,
    /// The life it is written for.
    pub incarnation: Incarnation,
    /// When that life began, by this machine's wall clock.
    pub registered_at: SystemTime,
    /// The load at the time of writing.
    pub load: u64,
}

impl Record {
    /// The record of `instance` in `incarnation`.
    #[must_use]
    pub fn new(
        instance: Arc<Instance>,
        incarnation: Incarnation,
        registered_at: SystemTime,
        load: u64,
    ) -> Self {
        Self {
            instance,
            incarnation,
            registered_at,
            load,
        }
    }
}

/// What is to be removed: whatever stands under the id in one of these incarnations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Release {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub id: InstanceId,
    /// All lives that the registration may have left in the registry; never empty.
    pub incarnations: Vec<Incarnation>,
}
