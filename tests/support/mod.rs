//! What the tests of the client and the server share.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its own part"
)]

mod balancers;
mod checkers;
mod clock;
mod members;
mod registry;
mod wait;

pub(crate) use balancers::{ByKey, First, Mood, Moody};
pub(crate) use checkers::Scripted;
pub(crate) use clock::TokioClock;
pub(crate) use members::{
    changed, heavier, member, member_at, named, suspect, weighing, with_status,
};
pub(crate) use registry::ScriptedRegistry;
pub(crate) use wait::{eventually, no_tasks_left, settle};
