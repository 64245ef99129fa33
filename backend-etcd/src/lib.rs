#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod codec;
mod config;
mod connection;
mod driver;
mod error;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod history;
mod keys;
mod lease;
mod list;
mod owned_keys;
mod record_watch;
mod records;
mod registry;
mod row;
#[cfg(feature = "tls")]
mod tls;
mod txn;
mod watch;

pub use builder::EtcdBuilder;
pub use plimsoll_backend_kit::Credential;
pub use registry::EtcdRegistry;
#[cfg(feature = "tls")]
pub use tls::Tls;
