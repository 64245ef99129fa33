#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acl;
mod builder;
mod codec;
mod config;
mod connection;
mod driver;
mod error;
mod fetch;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod keys;
mod list;
mod login;
mod records;
mod registry;
mod row;
mod session;
#[cfg(feature = "tls")]
mod tls;
mod url;
mod watch;

pub use acl::Acl;
pub use builder::ZkBuilder;
pub use plimsoll_backend_kit::Credential;
pub use registry::ZkRegistry;
