//! Service discovery with published load.
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
    Balancer, Capabilities, Capacity, Clock, Endpoint, Endpoints, Error, ErrorKind, Freshness,
    Health, HealthChecker, Host, Incarnation, Instance, InstanceBuilder, InstanceId, LoadGuard,
    LoadHandle, LoadReport, LoadUpdater, ManualClock, Member, Metadata, Outcome, Pick, PickContext,
    Picker, PublishedLoad, Registration, RegistrationState, RegistrationStates, Registry, Result,
    Revision, Rng, ServiceName, Snapshot, Standing, Status, SystemClock, Timestamp, Version, Watch,
    Weight, Zone,
};

pub use connect_url::connect;

#[cfg(feature = "memory")]
#[doc(inline)]
pub use plimsoll_backend_memory as memory;

pub use client::{
    Attempt, AttemptExt, CallError, Client, ClientBuilder, ClientStats, Connection, LocalClient,
    NoEndpoint, NoEndpointReason, PickRequest, View,
};
pub use health::{Constant, HealthCheck, TcpConnect};
pub use server::{DrainReport, DrainSignal, Incoming, Server, ServerBuilder};
