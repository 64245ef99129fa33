//! What the conformance suite asks of a backend's tests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_etcd::{EtcdBuilder, EtcdRegistry};
use plimsoll_discovery_api::conformance::{Faults, Harness, Oddity, Timing, odd_values};
use plimsoll_discovery_api::{
    Error, ErrorKind, Incarnation, InstanceId, Registry, Result, ServiceName,
};
use plimsoll_test_servers::etcd::Server;
use plimsoll_test_servers::harness::{self, Gates};
use plimsoll_test_servers::{Mode, Proxy};

use super::operator::{Operator, PREFIX, identity, load};

pub const TTL: Duration = Duration::from_secs(4);

/// One server, and a proxy before it for each handle.
pub struct EtcdHarness {
    server: Mutex<Server>,
    handles: Mutex<Vec<Handle>>,
    gates: Gates,
    nested: bool,
}

/// Not kept alive by this.
struct Handle {
    proxy: Arc<Proxy>,
    registry: Weak<EtcdRegistry>,
}

impl EtcdHarness {
    pub fn start(outage: Mode, nested: bool) -> Self {
        Self {
            server: Mutex::new(Server::start()),
            handles: Mutex::default(),
            gates: Gates::new(outage),
            nested,
        }
    }

    fn address(&self) -> SocketAddr {
        lock(&self.server).address()
    }

    async fn operator(&self) -> Operator {
        Operator::new(self.address()).await
    }

    /// The lease of the record.
    async fn owner(&self, service: &ServiceName, id: &InstanceId) -> Option<i64> {
        let found = self
            .operator()
            .await
            .get(&identity(service, id.as_str()))
            .await;
        found.map(|kv| kv.lease())
    }

    fn proxy_of(&self, lease: i64) -> Option<Arc<Proxy>> {
        let owns = |handle: &&Handle| {
            let registry = handle.registry.upgrade();
            registry.is_some_and(|registry| registry.lease_id() == Some(lease))
        };
        let handles = lock(&self.handles);
        handles
            .iter()
            .find(owns)
            .map(|handle| Arc::clone(&handle.proxy))
    }
}

/// A handle timed for tests: a short lease, loads that age fast, a grace that can be waited out.
pub fn builder(address: SocketAddr) -> EtcdBuilder {
    timed(EtcdRegistry::builder([address.to_string()]))
}

/// The same for any other hosts.
pub fn timed(builder: EtcdBuilder) -> EtcdBuilder {
    builder
        .with_prefix(PREFIX)
        .with_lease_ttl(TTL)
        .with_connect_timeout(Duration::from_secs(1))
        .with_request_timeout(Duration::from_millis(1_500))
        .with_watch_timeout(Duration::from_secs(3))
        .with_timings(|timings| harness::hasten(timings, timing().grace))
}

pub fn timing() -> Timing {
    harness::timing(TTL + Duration::from_secs(3))
}

#[async_trait]
impl Harness for EtcdHarness {
    async fn registry(&self) -> Arc<dyn Registry> {
        let proxy = self.gates.open(self.address());
        let registry = builder(proxy.address()).build().expect("good settings");
        if !self.gates.are_down() {
            registry.services().await.expect("the registry is up");
        }
        let registry = Arc::new(registry);
        lock(&self.handles).push(Handle {
            proxy,
            registry: Arc::downgrade(&registry),
        });
        if self.nested {
            harness::nested(registry)
        } else {
            registry
        }
    }

    fn timing(&self) -> Timing {
        timing()
    }

    fn faults(&self) -> &dyn Faults {
        self
    }
}

#[async_trait]
impl Faults for EtcdHarness {
    async fn expire(&self, service: &ServiceName, id: &InstanceId) {
        if let Some(lease) = self.owner(service, id).await {
            self.operator().await.revoke(lease).await;
        }
    }

    async fn crash(&self, service: &ServiceName, ids: &[InstanceId]) {
        let mut struck = Vec::new();
        for id in ids {
            let Some(lease) = self.owner(service, id).await else {
                continue;
            };
            struck.extend(self.proxy_of(lease));
        }
        for proxy in struck {
            proxy.set(Mode::End);
        }
    }

    async fn outage(&self) {
        self.gates.outage();
    }

    async fn restore(&self) {
        self.gates.restore();
    }

    async fn wipe(&self) {
        tokio::task::block_in_place(|| lock(&self.server).restart_empty());
    }

    async fn poison(&self, service: &ServiceName) {
        let key = identity(service, "broken");
        self.operator()
            .await
            .put(&key, b"{\"not\": an endpoint")
            .await;
    }

    async fn oddity(&self, service: &ServiceName, number: usize) -> Option<Oddity> {
        let (oddity, key, value) = oddities(service).into_iter().nth(number)?;
        self.operator().await.put_bytes(&key, &value).await;
        Some(oddity)
    }

    /// As `etcdctl make-mirror` does, and `etcdctl get | etcdctl put`.
    async fn copy(&self, service: &ServiceName, id: &InstanceId, other: &ServiceName) -> bool {
        let operator = self.operator().await;
        for key in [identity, load] {
            let kv = operator.get(&key(service, id.as_str())).await;
            let value = kv.expect("a record").value().to_owned();
            operator.put(&key(other, id.as_str()), &value).await;
        }
        true
    }

    async fn write_load(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        incarnation: Incarnation,
        value: u64,
    ) -> Result<()> {
        let operator = self.operator().await;
        let refused = || Error::new(ErrorKind::LeaseExpired, "another life stands there");
        let found = operator.get(&identity(service, id.as_str())).await;
        // The record says whose it is, and the write holds only for this one.
        let owned = found
            .filter(|kv| String::from_utf8_lossy(kv.value()).contains(&incarnation.to_string()));
        let owned = owned.ok_or_else(refused)?;
        let key = load(service, id.as_str());
        if operator.write_load(&owned, &key, value).await {
            Ok(())
        } else {
            Err(refused())
        }
    }
}

/// What a stranger may write, under which key, and how.
fn oddities(service: &ServiceName) -> Vec<(Oddity, Vec<u8>, Vec<u8>)> {
    let mut values = odd_values();
    for (what, text) in [
        ("no address", r#"{"Op":0}"#),
        (
            "an address that is none",
            r#"{"Op":0,"Addr":7,"Metadata":{}}"#,
        ),
        ("a port beyond all", r#"{"Op":0,"Addr":"h:5000000000"}"#),
        ("a port below all", r#"{"Op":0,"Addr":"h:-1"}"#),
        ("another operation", r#"{"Op":-1,"Addr":"10.9.9.9:1"}"#),
        (
            "no number for an operation",
            r#"{"Op":"add","Addr":"10.9.9.9:2"}"#,
        ),
        (
            "metadata that is a list",
            r#"{"Addr":"10.9.9.9:3","Metadata":[1,"x"]}"#,
        ),
        (
            "a mark of ours on nonsense",
            r#"{"Addr":"10.9.9.9:4","Metadata":{"schema":1,"incarnation":"x"}}"#,
        ),
    ] {
        values.push((what, text.as_bytes().to_owned()));
    }
    let (open, close) = ("[".repeat(9_000), "]".repeat(9_000));
    let deep = format!(r#"{{"Addr":"10.9.9.9:5","Metadata":{open}{close}}}"#);
    values.push(("metadata of great depth", deep.into_bytes()));
    let values = values.into_iter().enumerate();
    let mut oddities: Vec<_> = values
        .map(|(number, (what, value))| {
            let key = identity(service, &format!("odd-{number}"));
            (Oddity::entry(what), key.into_bytes(), value)
        })
        .collect();
    let branch = identity(service, "");
    let sound = br#"{"Op":0,"Addr":"10.9.9.9:6","Metadata":null}"#.to_vec();
    let long = "x".repeat(4_096);
    for (what, key) in [
        ("a key that is no text", &b"odd\xff\xfe"[..]),
        ("a key that is escaped wrongly", b"odd%zz%"),
        ("a key of several parts", b"odd/parts"),
        ("a key with control characters", b"odd\0\n"),
        ("a key that is too long for an id", long.as_bytes()),
        ("a key that ends in a space", b"odd "),
    ] {
        let key = [branch.as_bytes(), key].concat();
        oddities.push((Oddity::entry(what), key, sound.clone()));
    }
    let loads = load(service, "");
    for (what, key, value) in [
        ("a load that is no number", &b"first-odd"[..], &b"\xff"[..]),
        ("a load under a key that is no text", b"\xff", b"7"),
        (
            "a load beyond all bounds",
            b"odd-1",
            b"99999999999999999999999",
        ),
    ] {
        let key = [loads.as_bytes(), key].concat();
        oddities.push((Oddity::other(what), key, value.to_vec()));
    }
    for (what, name) in [
        ("a service whose name is no text", &b"\xff"[..]),
        ("a service whose name is escaped wrongly", b"%zz"),
        ("a service without a name", b""),
    ] {
        let key = [PREFIX.as_bytes(), b"/services/", name, b"/a"].concat();
        oddities.push((Oddity::other(what), key, sound.clone()));
    }
    oddities
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
