//! The actor against a scripted registry, in paused time.

mod admitted;
mod doubt;
mod log;
mod properties;
mod scenarios;
mod world;
