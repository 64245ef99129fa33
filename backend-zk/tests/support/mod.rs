//! A real `ZooKeeper` server, a proxy before it, and what an operator could do to it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![expect(
    clippy::print_stderr,
    reason = "a skip, and a failing server's log, must be seen"
)]

pub mod harness;
pub mod proxy;
pub mod raw;
pub mod server;
