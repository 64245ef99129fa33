#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod alias;
mod bounded_load_hash;
mod contest;
mod eligible;
mod hash;
mod least_connections;
mod least_load;
mod least_request;
mod maglev;
mod md5;
mod peak_ewma;
mod random;
mod rendezvous;
mod ring_hash;
mod round_robin;
mod sample;
#[cfg(test)]
mod testing;
mod turn;
mod weighted_random;
mod weighted_response_time;
mod weighted_round_robin;

pub use bounded_load_hash::BoundedLoadHash;
pub use least_connections::LeastConnections;
pub use least_load::LeastLoad;
pub use least_request::LeastRequest;
pub use maglev::Maglev;
pub use peak_ewma::PeakEwma;
pub use random::Random;
pub use rendezvous::Rendezvous;
pub use ring_hash::{RingHash, ketama_key};
pub use round_robin::RoundRobin;
pub use weighted_random::WeightedRandom;
pub use weighted_response_time::WeightedResponseTime;
pub use weighted_round_robin::WeightedRoundRobin;
