#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acl;
mod background;
mod builder;
mod claim;
mod codec;
mod connect;
mod depart;
mod driver;
mod error;
mod fetch;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod login;
mod parents;
mod paths;
mod place;
mod read;
mod registry;
mod row;
mod session;
#[cfg(feature = "tls")]
mod tls;
mod url;
mod watch;
mod write;

pub use acl::Acl;
pub use builder::ZkBuilder;
pub use plimsoll_backend_kit::Credential;
pub use registry::ZkRegistry;
