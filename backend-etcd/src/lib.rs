#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod claim;
mod codec;
mod config;
mod connect;
mod driver;
mod error;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod history;
mod holdings;
mod home;
mod keys;
mod lease;
mod link;
mod read;
mod registry;
mod row;
mod sentinel;
#[cfg(feature = "tls")]
mod tls;
mod updates;
mod watchdog;

pub use builder::EtcdBuilder;
pub use plimsoll_backend_kit::Credential;
pub use registry::EtcdRegistry;
#[cfg(feature = "tls")]
pub use tls::Tls;
