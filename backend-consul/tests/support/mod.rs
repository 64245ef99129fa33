//! What the tests share.

#![allow(
    dead_code,
    clippy::future_not_send,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "each test target uses a part, and all of it panics on what it does not expect"
)]
#![allow(unreachable_pub, reason = "a module of each test target")]

pub mod bench;
pub mod counter;
pub mod fake;
pub mod harness;
pub mod operator;
pub mod provider;
