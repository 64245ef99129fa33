#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admission;
mod backend;
mod backoff;
mod delegate;
mod dial;
mod driver;
mod follow;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod handle_guard;
mod log;
mod operation;
mod reconciler;
mod record;
mod settings;
mod sleep_until_some;
mod throttle;
mod timings;
mod unfinished;

pub use admission::{Admission, AdmissionPolicy, Class, Permit};
pub use backend::Backend;
pub use backoff::Backoff;
pub use dial::{addresses, dial, reachable};
pub use driver::Driver;
pub use follow::{
    Change, Departure, DrivenUpdates, Interest, Listing, Read, Reading, Row, Rows, Subscription,
    Update, Updates, read_load,
};
pub use record::{
    Decoded, Entry, Foreign, KeyForm, LeftOut, Record, RecordMark, Release, Skipped, decode,
    encode, escape, foreign_id, id_of, unescape,
};
pub use settings::{
    CommonSettings, Credential, Derived, Options, RegistryUrl, check_root, check_span,
    invalid_setting, is_pem, read_host,
};
pub use sleep_until_some::sleep_until_some;
pub use throttle::{LoadPolicy, Throttle};
pub use timings::{HoldDown, Timings};
pub use unfinished::Task;
