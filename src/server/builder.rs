//! Setting up a server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Error, Instance, Registration, Registry, Result};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::acceptor::Reception;
use super::bind::{BindAddress, not_bound};
use super::{DrainSignal, DrainTiming, Incoming, Server};
use crate::invalid::invalid_config;
use crate::task::OwnedTask;

/// What orchestrators give a process between asking it to end and killing it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Any will do to find what is wrong with the rest of an instance, before one is bound.
const ANY: (&str, u16) = ("localhost", 1);

/// Collects what a [`Server`] is to do and to say of itself; everything is checked in
/// [`start`](Self::start).
#[derive(Debug)]
#[must_use]
pub struct ServerBuilder {
    registry: Arc<dyn Registry>,
    bind: Option<BindAddress>,
    listener: Option<Listener>,
    advertised_host: Option<String>,
    advertised_port: Option<u16>,
    drain_timeout: Duration,
    propagation_wait: Option<Duration>,
    description: Description,
}

/// One that exists already.
#[derive(Debug)]
enum Listener {
    Tokio(TcpListener),
    Std(std::net::TcpListener),
}

/// What the instance says of itself besides its address.
#[derive(Debug, Default)]
struct Description {
    /// One at least.
    services: Vec<String>,
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
            bind: None,
            listener: None,
            advertised_host: None,
            advertised_port: None,
            drain_timeout: DRAIN_TIMEOUT,
            propagation_wait: None,
            description: Description {
                services: vec![service.to_owned()],
                ..Description::default()
            },
        }
    }

    /// Serves `service` as well: the same connections, registered under a further name with the
    /// same attributes and the same id, each counted in the load of every service. All are
    /// registered, and drained, as one. May be given several times.
    ///
    /// What is to differ between them is changed in each one's
    /// [registration](Server::registrations).
    pub fn with_service(mut self, service: impl Into<String>) -> Self {
        self.description.services.push(service.into());
        self
    }

    /// Where to listen: text such as `"0.0.0.0:80"`, a `SocketAddr`, or a host with a port; port 0
    /// lets the system choose. A name is resolved when the server is started, and the first of its
    /// addresses that can be bound is taken. Default: `127.0.0.1:0`, which nobody else can reach:
    /// being reachable is a decision.
    ///
    /// An unspecified address (`0.0.0.0`, `[::]`) takes
    /// [`with_advertised_host`](Self::with_advertised_host), as no client could connect to it.
    ///
    /// ```
    /// # use std::net::Ipv4Addr;
    /// # use plimsoll::{Server, memory::MemoryRegistry};
    /// # let server = || Server::builder(MemoryRegistry::new(), "orders");
    /// let one = server().with_bind("0.0.0.0:80").with_advertised_host("node-7.example");
    /// let same = server().with_bind((Ipv4Addr::UNSPECIFIED, 80)).with_advertised_host("node-7.example");
    /// ```
    pub fn with_bind(mut self, address: impl Into<BindAddress>) -> Self {
        self.bind = Some(address.into());
        self
    }

    /// Accepts from `listener`, which exists already, instead of binding one. Default: binds.
    ///
    /// If it listens at an unspecified address, that takes
    /// [`with_advertised_host`](Self::with_advertised_host).
    pub fn with_listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(Listener::Tokio(listener));
        self
    }

    /// [`with_listener`](Self::with_listener), for the standard library's, as a supervisor hands
    /// it over or an option was set on it. It is set to be non-blocking.
    pub fn with_std_listener(mut self, listener: std::net::TcpListener) -> Self {
        self.listener = Some(Listener::Std(listener));
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
    /// remains of the former one. With a name that stays, as those of a `StatefulSet` do, it is in the
    /// registry once what the former one has left has run out
    /// ([`Capabilities::id_release`](crate::Capabilities::id_release)).
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
    /// [`Registration::ready`](crate::Registration::ready) waits for it, and for an id that a former
    /// life has left to be free. An accept that fails, say
    /// for want of file descriptors, is logged and tried again at a slowing pace, for ever.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing accepts, and of several services those that were registered
    /// by then are given up, as by dropping their [`Registration`]. So they are after an error.
    ///
    /// # Errors
    /// Before any I/O, [`InvalidConfig`](crate::ErrorKind::InvalidConfig) if the address is none, or is
    /// given beside a listener, or is unspecified without an advertised host, and
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if an attribute is at fault or a service is
    /// given twice, each naming field and value. From binding:
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied),
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) if the address is not one of this machine's,
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if its name is not resolved within 10 s, else
    /// [`Unavailable`](crate::ErrorKind::Unavailable). Then what [`Registry::register`] reports.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start<H, Fut>(self, handler: H) -> Result<Server>
    where
        H: Fn(Incoming) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let before = self.check()?;
        let (listener, local_addr) = match self.listener {
            Some(listener) => listener.listen()?,
            None => before.listen().await?,
        };
        let host = match self.advertised_host {
            Some(host) => host,
            None => reachable(local_addr)?.to_string(),
        };
        let port = self.advertised_port.unwrap_or_else(|| local_addr.port());
        let mut registrations = Vec::new();
        for instance in self.description.instances(&host, port)? {
            registrations.push(self.registry.register(instance).await?);
        }

        let (stop, stopped) = oneshot::channel();
        let (draining, drain) = watch::channel(false);
        let reception = Reception {
            handler: Arc::new(handler),
            loads: registrations.iter().map(Registration::load).collect(),
            drain: DrainSignal(drain),
        };
        let propagation = || self.registry.capabilities().propagation;
        let timing = DrainTiming {
            propagation_wait: self.propagation_wait.unwrap_or_else(propagation),
            timeout: self.drain_timeout,
        };
        let acceptor = OwnedTask::spawn(reception.run(listener, stopped));
        Ok(Server {
            registrations,
            local_addr,
            acceptor,
            stop,
            draining,
            timing,
        })
    }

    /// Finds whatever can be found before any I/O; returns where to bind.
    fn check(&self) -> Result<BindAddress> {
        if let (Some(bind), Some(_)) = (&self.bind, &self.listener) {
            return Err(invalid_config("bind", bind, "is given beside a listener"));
        }
        let default = || (Ipv4Addr::LOCALHOST, 0).into();
        let bind = self.bind.clone().unwrap_or_else(default);
        let known = match &self.listener {
            Some(listener) => Some(listener.local_addr()?),
            None => bind.check()?,
        };
        let known = match (known, &self.advertised_host) {
            (Some(address), None) => Some(reachable(address)?.to_string()),
            _ => self.advertised_host.clone(),
        };
        let (host, port) = ANY;
        let (host, port) = (
            known.as_deref().unwrap_or(host),
            self.advertised_port.unwrap_or(port),
        );
        self.description.instances(host, port)?;
        Ok(bind)
    }
}

/// The address at which clients reach whoever listens at `address`.
fn reachable(address: SocketAddr) -> Result<IpAddr> {
    if address.ip().is_unspecified() {
        return Err(invalid_config(
            "bind",
            address,
            "is an address that no client can connect to; advertise a host",
        ));
    }
    Ok(address.ip())
}

impl Listener {
    fn local_addr(&self) -> Result<SocketAddr> {
        let address = match self {
            Self::Tokio(listener) => listener.local_addr(),
            Self::Std(listener) => listener.local_addr(),
        };
        address.map_err(|error| not_bound("a listener that exists", error))
    }

    fn listen(self) -> Result<(TcpListener, SocketAddr)> {
        let local_addr = self.local_addr()?;
        let listener = match self {
            Self::Tokio(listener) => Ok(listener),
            Self::Std(listener) => listener
                .set_nonblocking(true)
                .and_then(|()| TcpListener::from_std(listener)),
        };
        let listener = listener.map_err(|error| not_bound(&local_addr.to_string(), error))?;
        Ok((listener, local_addr))
    }
}

impl Description {
    /// One for each service, all of one id.
    fn instances(&self, host: &str, port: u16) -> Result<Vec<Instance>> {
        let mut instances: Vec<Instance> = Vec::with_capacity(self.services.len());
        for service in &self.services {
            let instance = match instances.first() {
                Some(first) => first.to_builder().with_service(service).build()?,
                None => self.instance(service, host, port)?,
            };
            if instances
                .iter()
                .any(|other| other.service() == instance.service())
            {
                return Err(Error::invalid("service", service, "is given twice"));
            }
            instances.push(instance);
        }
        Ok(instances)
    }

    fn instance(&self, service: &str, host: &str, port: u16) -> Result<Instance> {
        let mut instance = Instance::builder(service, host, port).with_secure(self.secure);
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
