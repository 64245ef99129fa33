// The README's links for whoever reads it here; of two definitions of a link the first counts.
#![doc = "[CHANGELOG]: https://docs.rs/crate/plimsoll/latest/source/CHANGELOG.md"]
#![doc = "[CONTRIBUTING]: https://docs.rs/crate/plimsoll/latest/source/CONTRIBUTING.md"]
#![doc = "[SECURITY]: https://docs.rs/crate/plimsoll/latest/source/SECURITY.md"]
#![doc = ""]
#![doc = include_str!("../README.md")]
//! # Features
//!
//! | Feature | What it adds |
//! |---|---|
//! | `memory` (default) | the embedded registry, `memory://` and the module [`memory`] |
//! | `dir` | a directory of files on one machine, `dir:///` and the module `dir` |
//! | `consul` | Consul, `consul://` and the module `consul` |
//! | `consul-tls` | TLS to Consul, `consul://…?tls=true` |
//! | `zk` | `ZooKeeper`, `zk://` and the module `zk` |
//! | `zk-sasl`, `zk-tls` | logins by SASL (DIGEST-MD5) and encrypted connections for it |
//! | `etcd` | etcd, `etcd://` and the module `etcd` |
//! | `etcd-tls` | the same over encrypted connections |
//! | `full` | every backend, with all it can do |
//!
//! A feature adds and never changes what is there. Without any, bring a [`Registry`] of your own.
//!
//! # The pieces
//!
//! - [`registry_from_url`] gives a [`Registry`] from a URL; [`first_answer`] waits until it has
//!   been heard.
//! - [`Server`] listens, registers and publishes its connections as its load. Programs that accept
//!   by themselves call [`Registry::register`] and hold the [`Registration`] and its [`LoadHandle`].
//! - [`Client`] follows a service and picks: [`Client::connect`] for a TCP connection,
//!   [`Client::call`] for an operation with retries elsewhere, [`Client::pick`] for all else, and
//!   [`LocalClient`] where a loop does little but pick.
//! - [`balancers`] holds the algorithms; [`HealthCheck`] checks endpoints actively.
//!
//! Everything runs in the tokio runtime it is made in, and says so once that has ended: registrations
//! are lost and snapshots stale, with the cause. A registry's handle works in any runtime.
//!
//! # The log
//!
//! By `tracing`: each change of a registration (`registration is lost`) and of a watch (`watch is
//! stale`) is one line, at `WARN` for the worse and `INFO` for the better, with `service`, `id`, what it
//! `was`, how long that `lasted`, how many `failures` there were meanwhile, and the `cause`. Failures
//! that change nothing (`registration fails; trying again`) are told of once a minute for each cause,
//! with their number. That a runtime ends is the program's own doing, and no line.
//!
//! # Beside axum and tonic
//!
//! Some names here are names there too: [`Server`] and [`Endpoint`] are in `tonic::transport`,
//! [`Status`] in `tonic`, and either has its `Error`. Where both are used, take plimsoll's by path,
//! or under another name:
//!
//! ```
//! use plimsoll::Server as PlimsollServer;
//!
//! # async fn example() -> plimsoll::Result<()> {
//! let registry = plimsoll::registry_from_url("memory://example")?;
//! let server = PlimsollServer::builder(registry, "greeter").start(|_incoming| async {}).await?;
//! server.registration().set_status(plimsoll::Status::OutOfService)?;
//! # Ok(()) }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod first_answer;
mod health;
mod invalid;
mod registry_url;
mod server;
mod task;

pub use plimsoll_balancers as balancers;
#[doc(inline)]
pub use plimsoll_discovery_api::{
    Admission, Balancer, Capabilities, Capacity, Clock, Endpoint, Endpoints, Error, ErrorKind,
    Exclusion, Freshness, Health, HealthChecker, Host, Incarnation, Instance, InstanceBuilder,
    InstanceId, LoadGuard, LoadHandle, LoadReport, LoadUpdater, ManualClock, Member, Metadata,
    Others, Outcome, Pick, PickContext, Picker, PublishedLoad, Queue, Registration,
    RegistrationState, RegistrationStates, Registry, Result, Revision, Rng, ServiceName, Snapshot,
    Standing, Status, SystemClock, Timestamp, Unreported, Utilization, Version, Watch, Weight,
    Zone,
};

pub use first_answer::first_answer;
pub use plimsoll_backend_kit::{Options, RegistryUrl};
pub use registry_url::{Schemes, registry_from_url};

#[cfg(feature = "consul")]
#[doc(inline)]
pub use plimsoll_backend_consul as consul;
#[cfg(feature = "dir")]
#[doc(inline)]
pub use plimsoll_backend_dir as dir;
#[cfg(feature = "etcd")]
#[doc(inline)]
pub use plimsoll_backend_etcd as etcd;
#[cfg(feature = "memory")]
#[doc(inline)]
pub use plimsoll_backend_memory as memory;
#[cfg(feature = "zk")]
#[doc(inline)]
pub use plimsoll_backend_zk as zk;

pub use client::{
    Attempt, AttemptExt, CallError, Client, ClientBuilder, ClientStats, Connection, FailureAccrual,
    LocalClient, NoEndpoint, NoEndpointReason, PickRequest, RetryBudget, TimedPick, View,
};
pub use health::{Constant, HealthCheck, TcpConnect};
pub use server::{BindAddress, DrainReport, DrainSignal, Incoming, Server, ServerBuilder};
