//! Real registry servers for plimsoll's tests and benches, and the faults that befall them.
//!
//! A [`Process`] is one server in a directory of its own, on a [`free_port`]; a [`Proxy`] before it
//! cuts, holds and delays what passes. A [`WallClock`] jumps for the processes that go by it. What
//! cannot be had is loudly skipped, or fails where it is [required](available()). All of it panics
//! on what it does not expect: it is for tests.
#![expect(
    clippy::missing_panics_doc,
    reason = "in a test whatever fails is a panic"
)]

mod available;
mod clock;
pub mod consul;
pub mod etcd;
mod memory;
mod port;
mod process;
mod proxy;
pub mod zk;

pub use available::{available, command_runs};
pub use clock::WallClock;
pub use memory::resident_bytes;
pub use port::free_port;
pub use process::Process;
pub use proxy::{Mode, Proxy};
