//! Setting up a server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Instance, Registry, Result};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::acceptor::Reception;
use super::{DrainSignal, DrainTiming, Incoming, Server};
use crate::invalid::invalid_config;
use crate::task::OwnedTask;

/// What orchestrators give a process between asking it to end and killing it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Collects what a [`Server`] is to do and to say of itself; everything is checked in
/// [`start`](Self::start).
#[derive(Debug)]
#[must_use]
pub struct ServerBuilder {
    registry: Arc<dyn Registry>,
    bind: SocketAddr,
    advertised_host: Option<String>,
    advertised_port: Option<u16>,
    drain_timeout: Duration,
    propagation_wait: Option<Duration>,
    description: Description,
}

/// What the instance says of itself besides its address.
#[derive(Debug, Default)]
struct Description {
    service: String,
    id: Option<String>,
    secure: bool,
    zone: Option<String>,
    version: Option<String>,
    weight: Option<u32>,
    capacity: Option<u64>,
    metadata: Vec<(String, String)>,
}

impl ServerBuilder {
    pub(super) fn new(registry: Arc<dyn Registry>, service: &str) -> Self {
        Self {
            registry,
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertised_host: None,
            advertised_port: None,
            drain_timeout: DRAIN_TIMEOUT,
            propagation_wait: None,
            description: Description {
                service: service.to_owned(),
                ..Description::default()
            },
        }
    }

    /// Where to listen; port 0 lets the system choose. Default: `127.0.0.1:0`, which nobody else
    /// can reach: being reachable is a decision.
    ///
    /// An unspecified address (`0.0.0.0`, `[::]`) takes
    /// [`with_advertised_host`](Self::with_advertised_host), as no client could connect to it.
    pub fn with_bind(mut self, address: impl Into<SocketAddr>) -> Self {
        self.bind = address.into();
        self
    }

    /// The name or address under which clients reach this machine. Default: the address it is
    /// bound to.
    pub fn with_advertised_host(mut self, host: impl Into<String>) -> Self {
        self.advertised_host = Some(host.into());
        self
    }

    /// The port under which clients reach it, 1 to 65,535, where that is not the one it listens on:
    /// behind a mapped port of a container. Default: the port it is bound to.
    pub fn with_advertised_port(mut self, port: u16) -> Self {
        self.advertised_port = Some(port);
        self
    }

    /// Its name within the service. Default: random, so that a restarted process never meets the
    /// remains of the former one.
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.description.id = Some(id.into());
        self
    }

    /// Whether clients are to use TLS; the handler does the handshake. Default: no.
    pub fn with_secure(mut self, secure: bool) -> Self {
        self.description.secure = secure;
        self
    }

    /// Where it runs. Default: not said.
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.description.zone = Some(zone.into());
        self
    }

    /// What it runs, as a semantic version. Default: not said.
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.description.version = Some(version.into());
        self
    }

    /// Its share of the traffic, 0 to 1,000,000. Default: 100.
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.description.weight = Some(weight);
        self
    }

    /// The number of connections at which it is full, at least 1. Default: not said.
    pub fn with_capacity(mut self, capacity: u64) -> Self {
        self.description.capacity = Some(capacity);
        self
    }

    /// Adds one pair of the user's own, within the limits of [`Metadata`](crate::Metadata).
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.description.metadata.push((key.into(), value.into()));
        self
    }

    /// How long connections may go on after a draining server has stopped accepting. Default:
    /// 30 s, which is what orchestrators usually give a process.
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// How long a draining server gives each of its two changes to reach the clients. Default:
    /// the registry's own [`propagation`](crate::Capabilities::propagation).
    pub fn with_propagation_wait(mut self, wait: Duration) -> Self {
        self.propagation_wait = Some(wait);
        self
    }

    /// Binds, registers the bound address, and hands each accepted connection to `handler` in a
    /// task of its own, in the present tokio runtime.
    ///
    /// The registry need not be up: that delays when clients see the server, not the server.
    /// [`Registration::ready`](crate::Registration::ready) waits for it. An accept that fails, say
    /// for want of file descriptors, is logged and tried again at a slowing pace, for ever.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing has been started.
    ///
    /// # Errors
    /// Before any I/O, [`InvalidConfig`](ErrorKind::InvalidConfig) if it is bound to an
    /// unspecified address without an advertised host, and
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) naming the first attribute at fault and its
    /// value. From binding: [`PermissionDenied`](ErrorKind::PermissionDenied),
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) if the address is not one of this machine's,
    /// else [`Unavailable`](ErrorKind::Unavailable). Then what [`Registry::register`] reports.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start<H, Fut>(self, handler: H) -> Result<Server>
    where
        H: Fn(Incoming) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let host = self.host()?;
        // Any port will do to find what is wrong with the rest.
        self.description
            .instance(&host, self.advertised_port.unwrap_or(1))?;
        let (listener, local_addr) = bind(self.bind).await?;
        let port = self.advertised_port.unwrap_or_else(|| local_addr.port());
        let instance = self.description.instance(&host, port)?;
        let registration = self.registry.register(instance).await?;

        let (stop, stopped) = oneshot::channel();
        let (draining, drain) = watch::channel(false);
        let reception = Reception {
            handler: Arc::new(handler),
            load: registration.load(),
            drain: DrainSignal(drain),
        };
        let propagation = || self.registry.capabilities().propagation;
        let timing = DrainTiming {
            propagation_wait: self.propagation_wait.unwrap_or_else(propagation),
            timeout: self.drain_timeout,
        };
        let acceptor = OwnedTask::spawn(reception.run(listener, stopped));
        Ok(Server {
            registration,
            local_addr,
            acceptor,
            stop,
            draining,
            timing,
        })
    }

    fn host(&self) -> Result<String> {
        match &self.advertised_host {
            Some(host) => Ok(host.clone()),
            None if self.bind.ip().is_unspecified() => Err(invalid_config(
                "bind",
                self.bind,
                "is an address that no client can connect to; advertise a host",
            )),
            None => Ok(self.bind.ip().to_string()),
        }
    }
}

impl Description {
    fn instance(&self, host: &str, port: u16) -> Result<Instance> {
        let mut instance = Instance::builder(&self.service, host, port).with_secure(self.secure);
        if let Some(id) = &self.id {
            instance = instance.with_id(id);
        }
        if let Some(zone) = &self.zone {
            instance = instance.with_zone(zone);
        }
        if let Some(version) = &self.version {
            instance = instance.with_version(version);
        }
        if let Some(weight) = self.weight {
            instance = instance.with_weight(weight);
        }
        if let Some(capacity) = self.capacity {
            instance = instance.with_capacity(capacity);
        }
        for (key, value) in &self.metadata {
            instance = instance.with_metadata(key, value);
        }
        instance.build()
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let failed = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::AddrNotAvailable => ErrorKind::InvalidConfig,
            // Taken, or out of descriptors: both may pass.
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, "the listener was not bound")
            .with_operation("bind")
            .with_context("bind", address.to_string())
            .with_source(error)
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok((listener, local_addr))
}
