//! What the tests against a real `ZooKeeper` share, and what an operator could do to it.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "each test binary uses a part"
)]

pub mod bench;
pub mod harness;
pub mod raw;
