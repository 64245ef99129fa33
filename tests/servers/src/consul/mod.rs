//! Consul.

mod cluster;
mod server;

pub use cluster::Cluster;
pub use server::{Data, Server};

use crate::command_runs;
use server::{UNPACKED, program};

/// Whether there is an agent to test with; see [`available`](crate::available()).
#[must_use]
pub fn available() -> bool {
    let program = program();
    let found = command_runs(&program.to_string_lossy(), "version");
    crate::available(
        "consul",
        found,
        &format!("{UNPACKED}, or consul in the path"),
    )
}
