#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod admission;
mod backend;
mod backoff;
mod codec;
mod credential;
mod delegate;
mod dial;
mod driver;
mod due;
mod escape;
mod followed;
mod foreign;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod key_form;
mod leftovers;
mod lifeline;
mod log;
mod reconciler;
mod rows;
mod settings;
mod supervisor;
mod throttle;
mod timings;
mod url;

pub use admission::{Admission, AdmissionPolicy, Class, Permit};
pub use backend::Backend;
pub use backoff::Backoff;
pub use codec::{Decoded, decode, encode};
pub use credential::{Credential, Derived, is_pem};
pub use dial::{addresses, dial, reachable};
pub use driver::{
    Change, Departure, Driver, Entry, Interest, LeftOut, Listing, Record, Release, Skipped,
    Subscription, Update, Updates,
};
pub use due::due;
pub use escape::{escape, unescape};
pub use followed::Followed;
pub use foreign::{Foreign, foreign_id};
pub use key_form::{KeyForm, id_of};
pub use leftovers::Task;
pub use rows::{Read, Reading, Row, Rows, read_load};
pub use settings::{CommonSettings, check_root, check_span, invalid_setting, read_host};
pub use throttle::{LoadPolicy, Throttle};
pub use timings::{HoldDown, Timings};
pub use url::{Options, RegistryUrl};
