//! `ZooKeeper`.

mod ensemble;
mod release;
mod server;

pub use ensemble::Ensemble;
pub use release::{available, newest_available, oldest_available};
pub use server::Server;
