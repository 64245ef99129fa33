#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod codec;
mod driver;
mod error;
mod paths;
mod read;
mod registry;
mod session;
mod updates;

pub use builder::ZkBuilder;
pub use registry::ZkRegistry;
