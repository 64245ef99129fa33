//! Other crates, as their documents say they are to be used.

pub mod alias;
pub mod pingora;
pub mod rings;
pub mod tower;
pub mod volo;
