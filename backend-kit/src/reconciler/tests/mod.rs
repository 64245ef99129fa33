//! The actor against a scripted registry, in paused time.

mod properties;
mod scenarios;
mod world;
