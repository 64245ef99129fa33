//! The supervisor against a scripted registry, in paused time.

mod convergence;
mod scenarios;
mod source;
