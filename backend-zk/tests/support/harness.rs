//! What the conformance suite asks of a backend's tests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::escape;
use plimsoll_backend_zk::{ZkBuilder, ZkRegistry};
use plimsoll_discovery_api::conformance::{Faults, Harness, Oddity, Timing, odd_values};
use plimsoll_discovery_api::{
    Error, ErrorKind, Incarnation, InstanceId, Registry, Result, ServiceName,
};
use plimsoll_test_servers::harness::{self, Gates};
use plimsoll_test_servers::probe::eventually;
use plimsoll_test_servers::zk::Server;
use plimsoll_test_servers::{Mode, Proxy};
use zookeeper_client::{Acls, Client, CreateMode};

use super::raw::{Ticket, end_session};

pub const ROOT: &str = "plimsoll-test";
pub const SESSION: Duration = Duration::from_secs(4);

/// One server, and a proxy before it for each handle.
pub struct ZkHarness {
    server: Mutex<Server>,
    gates: Gates,
    nested: bool,
}

impl ZkHarness {
    pub fn start(outage: Mode, nested: bool) -> Self {
        Self::with(Server::start(), outage, nested)
    }

    /// A server of the newest release there is.
    pub fn of_newest_release(outage: Mode) -> Self {
        Self::with(Server::start_newest(), outage, false)
    }

    fn with(server: Server, outage: Mode, nested: bool) -> Self {
        Self {
            server: Mutex::new(server),
            gates: Gates::new(outage),
            nested,
        }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .address()
    }

    /// Past every proxy, as an operator would.
    async fn operator(&self) -> Client {
        operator(self.address()).await
    }

    /// Which session owns the record.
    async fn owner(&self, service: &ServiceName, id: &InstanceId) -> Option<i64> {
        let stat = self
            .operator()
            .await
            .check_stat(&identity(service, id.as_str()))
            .await;
        stat.expect("the server is up")
            .map(|stat| stat.ephemeral_owner)
    }

    fn proxy_of(&self, session: i64) -> Option<Arc<Proxy>> {
        let granted = |proxy: &&Arc<Proxy>| tickets(proxy).iter().any(|t| t.id == session);
        self.gates.all().iter().find(granted).cloned()
    }
}

/// The sessions that were granted through it, oldest first.
pub fn tickets(proxy: &Proxy) -> Vec<Ticket> {
    let opened = proxy.openings();
    let granted = opened.iter().filter_map(|bytes| Ticket::read(bytes));
    granted.filter(|ticket| ticket.id != 0).collect()
}

pub fn identity(service: &ServiceName, id: &str) -> String {
    format!(
        "/{ROOT}/services/{}/{}",
        escape(service.as_str()),
        escape(id)
    )
}

pub fn load(service: &ServiceName, id: &str) -> String {
    format!("/{ROOT}/load/{}/{}", escape(service.as_str()), escape(id))
}

pub async fn operator(address: std::net::SocketAddr) -> Client {
    let connector = Client::connector().with_session_timeout(Duration::from_secs(20));
    connector
        .connect(&address.to_string())
        .await
        .expect("the server is up")
}

/// A handle timed for tests: a short session, loads that age fast, a grace that can be waited out.
pub fn builder(address: std::net::SocketAddr) -> ZkBuilder {
    builder_for([address.to_string()])
}

/// The same, for several servers.
pub fn builder_for(hosts: impl IntoIterator<Item = String>) -> ZkBuilder {
    ZkRegistry::builder(hosts)
        .with_root(ROOT)
        .with_session_timeout(SESSION)
        .with_connect_timeout(SESSION / 2)
        .with_timings(|timings| harness::hasten(timings, timing().grace))
}

pub fn timing() -> Timing {
    harness::timing(SESSION + Duration::from_secs(3))
}

#[async_trait]
impl Harness for ZkHarness {
    async fn registry(&self) -> Arc<dyn Registry> {
        let proxy = self.gates.open(self.address());
        let registry = builder(proxy.address()).build().expect("good settings");
        if !self.gates.are_down() {
            // A busy machine may take several attempts.
            eventually("the registry", || async { registry.services().await.ok() }).await;
        }
        let registry: Arc<dyn Registry> = Arc::new(registry);
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
impl Faults for ZkHarness {
    async fn expire(&self, service: &ServiceName, id: &InstanceId) {
        let Some(session) = self.owner(service, id).await else {
            return;
        };
        let ticket = self.proxy_of(session).and_then(|proxy| {
            tickets(&proxy)
                .into_iter()
                .rev()
                .find(|ticket| ticket.id == session)
        });
        let (ticket, address) = (ticket.expect("a session of this harness"), self.address());
        tokio::task::spawn_blocking(move || end_session(address, &ticket))
            .await
            .expect("the session to end");
    }

    async fn crash(&self, service: &ServiceName, ids: &[InstanceId]) {
        let mut struck = Vec::new();
        for id in ids {
            let Some(session) = self.owner(service, id).await else {
                continue;
            };
            struck.extend(self.proxy_of(session));
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
        tokio::task::block_in_place(|| {
            self.server
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .restart_empty();
        });
    }

    async fn poison(&self, service: &ServiceName) {
        let operator = self.operator().await;
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let path = identity(service, "broken");
        let parent = path.rsplit_once('/').expect("a path").0;
        operator.mkdir(parent, &options).await.expect("the parent");
        operator
            .create(&path, b"{\"not\": an instance", &options)
            .await
            .expect("the entry");
    }

    async fn oddity(&self, service: &ServiceName, number: usize) -> Option<Oddity> {
        let (oddity, path, value) = oddities(service).into_iter().nth(number)?;
        let operator = self.operator().await;
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let parent = path.rsplit_once('/').expect("a path").0;
        operator.mkdir(parent, &options).await.expect("the parent");
        let created = operator.create(&path, &value, &options).await;
        created.expect("the entry");
        Some(oddity)
    }

    async fn copy(&self, service: &ServiceName, id: &InstanceId, other: &ServiceName) -> bool {
        let operator = self.operator().await;
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        for path in [identity, load] {
            let (data, _) = operator
                .get_data(&path(service, id.as_str()))
                .await
                .expect("a record");
            let path = path(other, id.as_str());
            let parent = path.rsplit_once('/').expect("a path").0;
            operator.mkdir(parent, &options).await.expect("the parent");
            operator
                .create(&path, &data, &options)
                .await
                .expect("the copy");
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
        let failed = |e| Error::new(ErrorKind::Unavailable, "not written").with_source(e);
        let (path, value) = (identity(service, id.as_str()), value.to_string());
        let (bytes, stat) = operator.get_data(&path).await.map_err(failed)?;
        // The record says whose it is, and the write holds only for this version of it.
        if !String::from_utf8_lossy(&bytes).contains(&incarnation.to_string()) {
            return Err(Error::new(
                ErrorKind::LeaseExpired,
                "another life stands there",
            ));
        }
        let mut writer = operator.new_multi_writer();
        writer
            .add_check_version(&path, stat.version)
            .map_err(failed)?;
        writer
            .add_set_data(&load(service, id.as_str()), value.as_bytes(), None)
            .map_err(failed)?;
        let written = writer.commit().await;
        written.map(drop).map_err(|e| failed(e.into()))
    }
}

/// What a stranger may write, at which path, and how.
fn oddities(service: &ServiceName) -> Vec<(Oddity, String, Vec<u8>)> {
    let mut values = odd_values();
    for (what, text) in [
        ("no address", r#"{"port":1}"#),
        ("an address that is none", r#"{"address":{},"port":1}"#),
        ("a port beyond all", r#"{"address":"h","port":5000000000}"#),
        (
            "a port below all",
            r#"{"address":"h","port":-1,"sslPort":null}"#,
        ),
        (
            "a port that is no number",
            r#"{"address":"h","port":"http"}"#,
        ),
        (
            "times before all",
            r#"{"address":"10.9.9.9","port":1,"registrationTimeUTC":-1}"#,
        ),
        (
            "neither enabled nor not",
            r#"{"address":"10.9.9.9","port":2,"enabled":"maybe"}"#,
        ),
        (
            "a payload that is a list",
            r#"{"address":"10.9.9.9","port":3,"payload":[1,"x"]}"#,
        ),
        (
            "a mark of ours on nonsense",
            r#"{"address":"h","port":4,"payload":{"schema":1,"incarnation":"x"}}"#,
        ),
    ] {
        values.push((what, text.as_bytes().to_owned()));
    }
    let (open, close) = ("[".repeat(9_000), "]".repeat(9_000));
    let deep = format!(r#"{{"address":"10.9.9.9","port":5,"payload":{open}{close}}}"#);
    values.push(("a payload of great depth", deep.into_bytes()));
    let values = values.into_iter().enumerate();
    let mut oddities: Vec<_> = values
        .map(|(number, (what, value))| {
            let path = identity(service, &format!("odd-{number}"));
            (Oddity::entry(what), path, value)
        })
        .collect();
    let branch = identity(service, "");
    let sound = br#"{"address":"10.9.9.9","port":6}"#.to_vec();
    let long = "x".repeat(4_096);
    for (what, key) in [
        ("a name that is escaped wrongly", "odd%zz%"),
        ("a name that is too long for an id", &long),
        ("a name that ends in a space", "odd "),
    ] {
        oddities.push((Oddity::entry(what), format!("{branch}{key}"), sound.clone()));
    }
    let below = format!("{}/child", identity(service, "odd-1"));
    oddities.push((Oddity::other("a node below one"), below, sound.clone()));
    for (what, id, value) in [
        ("a load that is no number", "first-odd", &b"\xff"[..]),
        (
            "a load beyond all bounds",
            "odd-2",
            b"99999999999999999999999",
        ),
    ] {
        oddities.push((Oddity::other(what), load(service, id), value.to_vec()));
    }
    let misnamed = format!("/{ROOT}/services/%zz/a");
    let what = "a service whose name is escaped wrongly";
    oddities.push((Oddity::other(what), misnamed, sound));
    oddities
}
