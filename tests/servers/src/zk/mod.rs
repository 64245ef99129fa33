//! `ZooKeeper`.

mod ensemble;
mod release;
mod server;

pub use ensemble::Ensemble;
pub use release::{available, class, newest_available, oldest_available, v3_5_available};
pub use server::Server;
