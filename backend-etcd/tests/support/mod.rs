//! What the tests of this backend share.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]
#![allow(
    clippy::future_not_send,
    reason = "a test's own future stays on its thread"
)]

pub mod harness;
pub mod operator;
#[macro_use]
pub mod stage;
