//! Real registry servers for plimsoll's tests and benches, the faults that befall them, and what the
//! tests of every backend ask.
//!
//! A [`Process`] is one server in a directory of its own, on a [`free_port`]; a [`Proxy`] before it
//! cuts, holds and delays what passes. A [`WallClock`] jumps for the processes that go by it. What
//! cannot be had is loudly skipped, or fails where it is [required](available()). A [`probe`] waits
//! for what must come to pass. All of it panics on what it does not expect: it is for tests.
#![expect(
    clippy::missing_panics_doc,
    reason = "in a test whatever fails is a panic"
)]
#![expect(
    clippy::future_not_send,
    reason = "a test's own future stays on its thread"
)]

mod available;
mod burst;
mod clock;
pub mod consul;
pub mod etcd;
pub mod harness;
mod memory;
mod odd;
mod port;
pub mod probe;
mod process;
mod proxy;
mod slowed;
pub mod zk;

pub use available::{available, command_runs};
pub use burst::Burst;
pub use clock::WallClock;
pub use memory::resident_bytes;
pub use odd::holds_of_all;
pub use port::free_port;
pub use process::Process;
pub use proxy::{Mode, Proxy};
pub use slowed::Slowed;
