#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod agent;
mod builder;
mod codec;
mod config;
mod doubt;
mod driver;
mod each;
mod error;
mod fence;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod heart;
mod history;
mod http;
mod life;
mod pace;
mod paths;
mod reach;
mod read;
mod registry;
mod resolve;
mod session;
mod tls;
mod updates;
mod url;
mod waits;
mod wire;

pub use builder::ConsulBuilder;
pub use config::Consistency;
pub use plimsoll_backend_kit::Credential;
pub use registry::ConsulRegistry;
