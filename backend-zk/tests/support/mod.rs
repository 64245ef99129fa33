//! What the tests against a real `ZooKeeper` share, and what an operator could do to it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

pub mod harness;
pub mod raw;
