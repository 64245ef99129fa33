#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("the dir backend needs the file locks of a Unix system");

mod builder;
mod codec;
mod directory;
mod driver;
mod error;
mod keys;
mod list;
mod notices;
mod records;
mod registry;
mod watch;

pub use builder::DirBuilder;
pub use registry::DirRegistry;
