#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod codec;
mod config;
mod driver;
mod error;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod history;
mod http;
mod keeper;
mod keys;
mod life;
mod list;
mod owner_lock;
mod records;
mod registry;
mod resolve;
mod session;
mod tls;
mod uncertain;
mod url;
mod watch;

pub use builder::ConsulBuilder;
pub use config::Consistency;
pub use plimsoll_backend_kit::Credential;
pub use registry::ConsulRegistry;
