#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod driver;
mod faults;
mod plan;
mod registry;
mod store;
mod updates;

pub use faults::Faults;
pub use registry::{MemoryRegistry, MemoryRegistryBuilder};
