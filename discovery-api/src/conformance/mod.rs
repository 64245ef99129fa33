//! The suite that every backend must pass: the contract of [`Registry`](crate::Registry), executable.
//!
//! Each case opens with the sentence of the contract that it holds a backend to, works in a
//! service of its own with a random name, and gets a [`Harness`] of its own, so that all of them
//! run in parallel. A backend's tests implement [`Harness`] and [`Faults`] and call
//! [`conformance_tests!`](crate::conformance_tests), which makes one test of each case. It works
//! with tokio's paused clock and against real servers alike.
//!
//! Not a stable part of the API: any release may add cases or demand more of a harness.

#![expect(
    clippy::missing_panics_doc,
    reason = "a case panics where the contract is broken: that is what it is for"
)]

pub mod conflict;
pub mod departure;
pub mod deregister;
pub mod handle;
pub mod lease;
pub mod load;
pub mod log;
pub mod names;
pub mod neighbours;
pub mod outage;
pub mod register;
pub mod update;
pub mod watch;

mod cases;
mod harness;
mod observer;
mod recorder;
mod scene;
mod timing;

pub use harness::{Faults, Harness};
pub use neighbours::{Oddity, odd_values};
pub use recorder::{Line, Recorder};
pub use timing::Timing;
