#![doc = include_str!("../README.md")]
//! # Features
//!
//! | Feature | What it adds |
//! |---|---|
//! | `memory` (default) | the embedded registry, `memory://` and the module [`memory`] |
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
//! - [`connect`] gives a [`Registry`] from a URL.
//! - [`Server`] listens, registers and publishes its connections as its load. Programs with a
//!   listener of their own call [`Registry::register`] and hold the [`Registration`] and its
//!   [`LoadHandle`].
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
//! with their number.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod connect_url;
mod health;
mod invalid;
mod server;
mod task;

pub use plimsoll_balancers as balancers;
#[doc(inline)]
pub use plimsoll_discovery_api::{
    Balancer, Capabilities, Capacity, Clock, Endpoint, Endpoints, Error, ErrorKind, Exclusion,
    Freshness, Health, HealthChecker, Host, Incarnation, Instance, InstanceBuilder, InstanceId,
    LoadGuard, LoadHandle, LoadReport, LoadUpdater, ManualClock, Member, Metadata, Outcome, Pick,
    PickContext, Picker, PublishedLoad, Queue, Registration, RegistrationState, RegistrationStates,
    Registry, Result, Revision, Rng, ServiceName, Snapshot, Standing, Status, SystemClock,
    Timestamp, Unreported, Utilization, Version, Watch, Weight, Zone,
};

pub use connect_url::connect;

#[cfg(feature = "consul")]
#[doc(inline)]
pub use plimsoll_backend_consul as consul;
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
    Attempt, AttemptExt, CallError, Client, ClientBuilder, ClientStats, Connection, LocalClient,
    NoEndpoint, NoEndpointReason, PickRequest, View,
};
pub use health::{Constant, HealthCheck, TcpConnect};
pub use server::{DrainReport, DrainSignal, Incoming, Server, ServerBuilder};
