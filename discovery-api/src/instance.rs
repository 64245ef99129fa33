//! One server of a service, as it describes itself.

use std::fmt;

use crate::text::try_from_text;
use crate::{
    Capacity, Error, Host, InstanceId, Metadata, Result, ServiceName, Version, Weight, Zone,
};

/// Whether an instance wants traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Status {
    /// It takes requests.
    #[default]
    Up,
    /// It finishes what it has and takes nothing new; it is about to leave.
    Draining,
    /// It is registered but takes nothing, until further notice.
    OutOfService,
}

impl Status {
    /// The word used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::OutOfService => "out_of_service",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Status {
    type Err = Error;

    /// Reads the word that `Display` writes.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "up" => Ok(Self::Up),
            "draining" => Ok(Self::Draining),
            "out_of_service" => Ok(Self::OutOfService),
            _ => Err(Error::invalid(
                "status",
                text,
                "is not up, draining or out_of_service",
            )),
        }
    }
}

try_from_text!(Status);

/// One server of a service, as it describes itself. Cannot hold nonsense.
///
/// What it carries now (its load) is not part of it: load changes constantly and is published
/// apart.
///
/// ```
/// use plimsoll_discovery_api::Instance;
///
/// let instance = Instance::builder("orders", "10.0.0.7", 8080)
///     .with_zone("eu-west-1a")
///     .with_version("2.4")
///     .with_weight(50)
///     .with_metadata("commit", "3f2a9c1")
///     .build()?;
/// assert_eq!(instance.authority(), "10.0.0.7:8080");
/// # Ok::<(), plimsoll_discovery_api::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    service: ServiceName,
    id: InstanceId,
    host: Host,
    port: u16,
    secure: bool,
    zone: Option<Zone>,
    version: Option<Version>,
    weight: Weight,
    capacity: Option<Capacity>,
    metadata: Metadata,
    status: Status,
}

impl Instance {
    /// Starts one. `port` is 1 to 65,535. Everything is checked in
    /// [`build`](InstanceBuilder::build).
    pub fn builder(service: impl AsRef<str>, host: impl AsRef<str>, port: u16) -> InstanceBuilder {
        InstanceBuilder::new(service.as_ref(), host.as_ref(), port)
    }

    /// The service it serves.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Its name within the service.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Where it listens.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port it listens on; never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it expects TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Where it runs.
    #[must_use]
    pub fn zone(&self) -> Option<&Zone> {
        self.zone.as_ref()
    }

    /// What it runs.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// Its share of the traffic.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// The load at which it is full, where it says so.
    #[must_use]
    pub fn capacity(&self) -> Option<Capacity> {
        self.capacity
    }

    /// The user's own pairs.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether it wants traffic.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// `host:port`, with brackets around an IPv6 address, as in a URL's authority
    /// ([RFC 3986 section 3.2.2](https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2)).
    #[must_use]
    pub fn authority(&self) -> String {
        match self.host.ip() {
            Some(ip) => std::net::SocketAddr::new(ip, self.port).to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// `https://host:port` where it [is secure](Self::is_secure), else `http://host:port`: for
    /// what speaks HTTP, gRPC included. All else has [`authority`](Self::authority).
    #[must_use]
    pub fn uri(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// A builder of an instance like this one, to be changed in any attribute:
    ///
    /// ```
    /// # use plimsoll_discovery_api::Instance;
    /// let instance = Instance::builder("orders", "10.0.0.7", 8080).with_zone("a").build()?;
    /// let other = instance.to_builder().with_zone("b").with_capacity(100).build()?;
    /// assert!(other.is_same_server(&instance));
    /// # Ok::<(), plimsoll_discovery_api::Error>(())
    /// ```
    pub fn to_builder(&self) -> InstanceBuilder {
        let this = self.clone();
        InstanceBuilder {
            service: Ok(this.service),
            id: Some(Ok(this.id)),
            host: Ok(this.host),
            port: this.port,
            secure: this.secure,
            zone: this.zone.map(Ok),
            version: this.version.map(Ok),
            weight: Ok(this.weight),
            capacity: this.capacity.map(Ok),
            metadata: Ok(this.metadata),
            status: this.status,
        }
    }

    /// The same instance with another status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// The same instance with another weight.
    #[must_use]
    pub fn with_weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// The same instance with other metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Whether both may stand in one incarnation: the same service, id and address.
    #[must_use]
    pub fn is_same_server(&self, other: &Self) -> bool {
        self.service == other.service
            && self.id == other.id
            && self.host == other.host
            && self.port == other.port
            && self.secure == other.secure
    }
}

/// Collects the fields of an [`Instance`]; the first fault is reported by
/// [`build`](Self::build).
#[derive(Clone, Debug)]
#[must_use]
pub struct InstanceBuilder {
    service: Result<ServiceName>,
    id: Option<Result<InstanceId>>,
    host: Result<Host>,
    port: u16,
    secure: bool,
    zone: Option<Result<Zone>>,
    version: Option<Result<Version>>,
    weight: Result<Weight>,
    capacity: Option<Result<Capacity>>,
    metadata: Result<Metadata>,
    status: Status,
}

impl InstanceBuilder {
    fn new(service: &str, host: &str, port: u16) -> Self {
        Self {
            service: ServiceName::new(service),
            id: None,
            host: Host::new(host),
            port,
            secure: false,
            zone: None,
            version: None,
            weight: Ok(Weight::DEFAULT),
            capacity: None,
            metadata: Ok(Metadata::new()),
            status: Status::Up,
        }
    }

    /// The service it serves.
    pub fn with_service(mut self, service: impl AsRef<str>) -> Self {
        self.service = ServiceName::new(service);
        self
    }

    /// Where it listens.
    pub fn with_host(mut self, host: impl AsRef<str>) -> Self {
        self.host = Host::new(host);
        self
    }

    /// The port it listens on, 1 to 65,535.
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Its name within the service. Default: [`InstanceId::random`], so that a restarted process
    /// never meets the remains of the former one.
    pub fn with_id(mut self, id: impl AsRef<str>) -> Self {
        self.id = Some(InstanceId::new(id));
        self
    }

    /// Whether it expects TLS. Default: no.
    pub fn with_secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Where it runs. Default: not said.
    pub fn with_zone(mut self, zone: impl AsRef<str>) -> Self {
        self.zone = Some(Zone::new(zone));
        self
    }

    /// Says nothing of where it runs.
    pub fn without_zone(mut self) -> Self {
        self.zone = None;
        self
    }

    /// What it runs, as a semantic version. Default: not said.
    pub fn with_version(mut self, version: impl AsRef<str>) -> Self {
        self.version = Some(version.as_ref().parse());
        self
    }

    /// Says nothing of what it runs.
    pub fn without_version(mut self) -> Self {
        self.version = None;
        self
    }

    /// Its share of the traffic, 0 to 1,000,000. Default: 100.
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = Weight::new(weight);
        self
    }

    /// The load at which it is full, at least 1. Default: not said.
    pub fn with_capacity(mut self, capacity: u64) -> Self {
        self.capacity = Some(Capacity::new(capacity));
        self
    }

    /// Says nothing of the load at which it is full.
    pub fn without_capacity(mut self) -> Self {
        self.capacity = None;
        self
    }

    /// Adds one pair of the user's own, within [`Metadata`]'s limits; replaces what its key had.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata = self.metadata.and_then(|mut metadata| {
            metadata.insert(key, value)?;
            Ok(metadata)
        });
        self
    }

    /// Takes the pair of `key` out, if there is one.
    pub fn without_metadata(mut self, key: impl AsRef<str>) -> Self {
        if let Ok(metadata) = &mut self.metadata {
            metadata.remove(key.as_ref());
        }
        self
    }

    /// Whether it wants traffic. Default: [`Status::Up`].
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) naming the first field at fault and
    /// its value.
    pub fn build(self) -> Result<Instance> {
        if self.port == 0 {
            return Err(Error::invalid("port", 0, "is zero"));
        }
        Ok(Instance {
            service: self.service?,
            id: self.id.transpose()?.unwrap_or_else(InstanceId::random),
            host: self.host?,
            port: self.port,
            secure: self.secure,
            zone: self.zone.transpose()?,
            version: self.version.transpose()?,
            weight: self.weight?,
            capacity: self.capacity.transpose()?,
            metadata: self.metadata?,
            status: self.status,
        })
    }
}

/// `service/id at host:port`, and the status in brackets unless it is up:
/// `orders/a1 at 10.0.0.7:8080 (draining)`. One line; metadata, which may hold anything, is left out.
impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} at {}", self.service, self.id, self.authority())?;
        match self.status {
            Status::Up => Ok(()),
            status => write!(f, " ({status})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn each_bad_field_is_named_and_nothing_is_ignored() {
        let good = || Instance::builder("s", "h", 1);
        let cases = [
            ("service", Instance::builder("", "h", 1)),
            ("host", Instance::builder("s", "a b", 1)),
            ("port", Instance::builder("s", "h", 0)),
            ("id", good().with_id("")),
            ("zone", good().with_zone("\n")),
            ("version", good().with_version("newest")),
            ("weight", good().with_weight(2_000_000)),
            ("capacity", good().with_capacity(0)),
            (
                "metadata key",
                good().with_metadata("a b", "v").with_metadata("ok", "v"),
            ),
        ];
        for (field, builder) in cases {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert_eq!(error.context().next().map(|(name, _)| name), Some(field));
        }
    }

    #[test]
    fn authority_and_uri_bracket_ipv6() {
        let instance = Instance::builder("s", "::1", 80).build().unwrap();
        assert_eq!(instance.authority(), "[::1]:80");
        assert_eq!(instance.uri(), "http://[::1]:80");
        let secure = instance.to_builder().with_host("h.").with_secure(true);
        assert_eq!(secure.build().unwrap().uri(), "https://h.:80");
    }

    #[test]
    fn a_builder_of_an_instance_makes_the_same_and_changes_every_attribute() {
        let full = Instance::builder("s", "h", 1)
            .with_id("a")
            .with_secure(true)
            .with_zone("z")
            .with_version("1.2.3")
            .with_weight(7)
            .with_capacity(9)
            .with_metadata("k", "v")
            .with_metadata("l", "w")
            .with_status(Status::Draining)
            .build()
            .unwrap();
        assert_eq!(full.to_builder().build().unwrap(), full);
        let changed = full
            .to_builder()
            .with_service("t")
            .with_id("b")
            .with_host("10.0.0.1")
            .with_port(2)
            .with_secure(false)
            .without_zone()
            .without_version()
            .with_weight(100)
            .without_capacity()
            .without_metadata("k")
            .without_metadata("none")
            .without_metadata("l")
            .with_status(Status::Up);
        let plain = Instance::builder("t", "10.0.0.1", 2).with_id("b");
        assert_eq!(changed.build().unwrap(), plain.build().unwrap());
        let error = full.to_builder().with_port(0).build().unwrap_err();
        assert_eq!(error.context().next(), Some(("port", "0")));
    }

    #[test]
    fn display_is_one_line_without_metadata() {
        let instance = Instance::builder("orders", "::1", 80)
            .with_id("a1")
            .with_metadata("password", "hunter2")
            .build()
            .unwrap();
        assert_eq!(instance.to_string(), "orders/a1 at [::1]:80");
        let draining = instance.with_status(Status::Draining);
        assert_eq!(draining.to_string(), "orders/a1 at [::1]:80 (draining)");
    }

    #[test]
    fn attributes_do_not_make_another_server_but_an_address_does() {
        let one = Instance::builder("s", "h", 1).with_id("a").build().unwrap();
        let heavier = one
            .clone()
            .with_weight(Weight::MAX)
            .with_status(Status::Draining);
        assert!(one.is_same_server(&heavier));
        let moved = Instance::builder("s", "h", 2).with_id("a").build().unwrap();
        assert!(!one.is_same_server(&moved));
    }
}
