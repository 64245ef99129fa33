#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod balancer;
mod capabilities;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod endpoint;
mod error;
mod exclusion;
mod health;
mod host;
mod incarnation;
mod instance;
mod load;
mod metadata;
mod name;
mod registration;
mod registry;
mod rng;
mod snapshot;
mod text;
mod version;
mod watch;
mod weight;

pub use balancer::{Balancer, Endpoints, PickContext, Picker};
pub use capabilities::Capabilities;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use endpoint::{
    Admission, Endpoint, FailureAlarm, Health, Others, Outcome, Pick, Queue, Unreported,
    Utilization,
};
pub use error::{Error, ErrorKind, Result};
pub use exclusion::Exclusion;
pub use health::HealthChecker;
pub use host::Host;
pub use incarnation::Incarnation;
pub use instance::{Instance, InstanceBuilder, Status};
pub use load::{Flush, LoadGauge, LoadGuard, LoadHandle, LoadUpdater};
pub use metadata::Metadata;
pub use name::{InstanceId, ServiceName, Zone};
pub use registration::{Registration, RegistrationControl, RegistrationState, RegistrationStates};
pub use registry::Registry;
pub use rng::Rng;
pub use snapshot::{Freshness, LoadReport, Member, PublishedLoad, Revision, Snapshot, Standing};
pub use version::Version;
pub use watch::Watch;
pub use weight::{Capacity, Weight};
