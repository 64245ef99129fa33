//! The supervisor against a scripted registry, in paused time.

mod convergence;
mod histories;
mod log;
mod scenarios;
mod source;
