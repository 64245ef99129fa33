//! What the conformance suite asks of a backend's tests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_consul::{ConsulBuilder, ConsulRegistry};
use plimsoll_backend_kit::escape;
use plimsoll_discovery_api::conformance::{Faults, Harness, Oddity, Timing};
use plimsoll_discovery_api::{
    Error, ErrorKind, Incarnation, InstanceId, Registry, Result, ServiceName,
};
use plimsoll_test_servers::Mode;
use plimsoll_test_servers::consul::{Data, Server};
use plimsoll_test_servers::harness::{self, Gates};
use plimsoll_test_servers::probe::eventually;

use super::operator::{base64, get, key, key_path, owned, put, service_id, session_name};

pub const ROOT: &str = "plimsoll-test";
pub const TTL: Duration = Duration::from_secs(6);

/// One agent, and a proxy before it for each handle.
pub struct ConsulHarness {
    server: Mutex<Server>,
    gates: Gates,
    nested: bool,
}

impl ConsulHarness {
    pub fn start(outage: Mode, nested: bool) -> Self {
        Self {
            server: Mutex::new(Server::start(Data::Memory)),
            gates: Gates::new(outage),
            nested,
        }
    }

    /// Does what takes its time off the runtime's threads.
    fn with<T>(&self, work: impl FnOnce(&mut Server) -> T) -> T {
        tokio::task::block_in_place(|| {
            work(&mut self.server.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

/// A handle timed for tests: a short TTL, loads that age fast, a grace that can be waited out. Its
/// session bears the agent's address, as seen by the handle, for its name.
pub fn builder(address: SocketAddr) -> ConsulBuilder {
    ConsulRegistry::builder(address.to_string())
        .with_root(ROOT)
        .with_name(address.to_string())
        .with_ttl(TTL)
        .with_session_ttl(TTL)
        .with_request_timeout(Duration::from_secs(2))
        .with_wait(Duration::from_secs(3))
        .with_load_poll(Duration::from_millis(100))
        .with_timings(|timings| harness::hasten(timings, timing().grace))
}

pub fn timing() -> Timing {
    harness::timing(TTL + Duration::from_secs(3))
}

#[async_trait]
impl Harness for ConsulHarness {
    async fn registry(&self) -> Arc<dyn Registry> {
        let proxy = self.gates.open(self.with(|server| server.address()));
        let registry = builder(proxy.address()).build().expect("good settings");
        if !self.gates.are_down() {
            // Once; a busy machine may leave an agent without an answer for longer than a request.
            eventually("an answer", || async { registry.services().await.ok() }).await;
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
impl Faults for ConsulHarness {
    /// As after a silence of the owner: the check is critical and the session is gone.
    async fn expire(&self, service: &ServiceName, id: &InstanceId) {
        self.with(|server| {
            let Some(owned) = owned(server, &key(service, id.as_str())) else {
                return;
            };
            if let Some(life) = owned.life() {
                let check = format!("service:{}", service_id(service, id.as_str(), life));
                let _unknown = server.call(
                    "PUT",
                    &format!("/v1/agent/check/fail/{}", escape(&check)),
                    "",
                );
            }
            put(
                server,
                &format!("/v1/session/destroy/{}", owned.session),
                "",
            );
        });
    }

    async fn crash(&self, service: &ServiceName, ids: &[InstanceId]) {
        let owners: Vec<_> = self.with(|server| {
            let owner = |id: &InstanceId| {
                let owned = owned(server, &key(service, id.as_str()))?;
                session_name(server, &owned.session)
            };
            ids.iter().filter_map(owner).collect()
        });
        for proxy in self.gates.all() {
            if owners.contains(&proxy.address().to_string()) {
                proxy.set(Mode::End);
            }
        }
    }

    async fn outage(&self) {
        self.gates.outage();
    }

    async fn restore(&self) {
        self.gates.restore();
    }

    async fn wipe(&self) {
        self.with(Server::restart_empty);
    }

    async fn poison(&self, service: &ServiceName) {
        let name = escape(service.as_str());
        let body = format!(
            r#"{{"ID":"broken","Name":"{name}","Address":"10.0.0.9","Port":1,
                "Meta":{{"plimsoll-schema":"1","plimsoll-id":"broken","plimsoll-incarnation":"none"}}}}"#
        );
        self.with(|server| put(server, "/v1/agent/service/register", &body));
    }

    async fn oddity(&self, service: &ServiceName, number: usize) -> Option<Oddity> {
        let (oddity, path, body) = oddities(service).into_iter().nth(number)?;
        self.with(|server| put(server, &path, &body));
        Some(oddity)
    }

    /// As a tool does that registers anew what it finds in a catalog, and `consul kv export | import`.
    async fn copy(&self, service: &ServiceName, id: &InstanceId, other: &ServiceName) -> bool {
        self.with(|server| {
            let owned = owned(server, &key(service, id.as_str())).expect("a record");
            let life = owned.life().expect("a life");
            let found = service_id(service, id.as_str(), life);
            let mut copy = get(server, &format!("/v1/agent/service/{}", escape(&found)));
            copy["Name"] = escape(other.as_str()).into();
            copy["ID"] = service_id(other, id.as_str(), life).into();
            let fields = ["ID", "Name", "Address", "Port", "Tags", "Meta"];
            let body: serde_json::Map<_, _> = fields
                .iter()
                .map(|field| ((*field).to_owned(), copy[*field].clone()))
                .collect();
            let body = serde_json::Value::from(body).to_string();
            put(server, "/v1/agent/service/register", &body);
            put(server, &key_path(&key(other, id.as_str())), &owned.value);
        });
        true
    }

    async fn write_load(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        incarnation: Incarnation,
        value: u64,
    ) -> Result<()> {
        let refused = |why: &str| Error::new(ErrorKind::LeaseExpired, why);
        self.with(|server| {
            let key = key(service, id.as_str());
            let owned = owned(server, &key).ok_or_else(|| refused("nothing stands there"))?;
            // The value says whose it is, and the write holds only for this version of it.
            if owned.life() != Some(incarnation) {
                return Err(refused("another life stands there"));
            }
            let (session, index) = (owned.session, owned.index);
            let text = base64(&format!("{incarnation} 1000000 {value}"));
            let operations = format!(
                r#"[{{"KV":{{"Verb":"check-index","Key":"{key}","Index":{index}}}}},
                    {{"KV":{{"Verb":"lock","Key":"{key}","Value":"{text}","Session":"{session}"}}}}]"#
            );
            let (status, answer) = server.call("PUT", "/v1/txn", &operations);
            if status == 200 { Ok(()) } else { Err(refused(&answer)) }
        })
    }
}

/// What a stranger may write, where, and how.
fn oddities(service: &ServiceName) -> Vec<(Oddity, String, String)> {
    let name = escape(service.as_str());
    let mut oddities = Vec::new();
    let long = "x".repeat(4_096);
    let tags = vec![format!("\"{}\"", "t".repeat(1_000)); 300].join(",");
    let fields = [
        (
            "a port below all",
            r#""Address":"10.9.9.1","Port":-1"#.to_owned(),
        ),
        (
            "a port beyond all",
            r#""Address":"10.9.9.2","Port":5000000000"#.to_owned(),
        ),
        (
            "the largest port",
            r#""Address":"10.9.9.3","Port":9223372036854775807"#.to_owned(),
        ),
        ("no port", r#""Address":"10.9.9.4","Port":0"#.to_owned()),
        (
            "an address that is none",
            r#""Address":"not a host","Port":1"#.to_owned(),
        ),
        (
            "an address with control characters",
            r#""Address":"h\u0001\n","Port":1"#.to_owned(),
        ),
        (
            "half a character",
            r#""Address":"10.9.9.5","Port":1,"Tags":["\ud800"]"#.to_owned(),
        ),
        (
            "many long tags",
            format!(r#""Address":"10.9.9.6","Port":1,"Tags":[{tags}]"#),
        ),
        (
            "a mark of ours",
            r#""Address":"10.9.9.7","Port":1,"Meta":{"plimsoll-schema":"none"}"#.to_owned(),
        ),
        (
            "meta of ours that is nonsense",
            r#""Address":"10.9.9.8","Port":1,
            "Meta":{"plimsoll-schema":"1","plimsoll-id":"odd","plimsoll-incarnation":"-1"}"#
                .to_owned(),
        ),
    ];
    for (number, (what, fields)) in fields.into_iter().enumerate() {
        let body = format!(r#"{{"ID":"odd-{number}","Name":"{name}",{fields}}}"#);
        let path = "/v1/agent/service/register".to_owned();
        oddities.push((Oddity::entry(what), path, body));
    }
    let ids = [
        ("an id that is too long", long.as_str()),
        ("an id with control characters", "odd\\u0001\\n"),
        ("an id that is half a character", "odd\\ud800"),
        ("an id of nothing but spaces", "  "),
    ];
    // Past every agent, which would look at more of it.
    let path = "/v1/catalog/register";
    for (what, id) in ids {
        let body = format!(
            r#"{{"Node":"elsewhere","Address":"10.9.9.10","SkipNodeUpdate":false,
                "Service":{{"ID":"{id}","Service":"{name}","Address":"10.9.9.10","Port":1,
                    "Weights":{{"Passing":-5000000000,"Warning":5000000000}}}}}}"#
        );
        oddities.push((Oddity::entry(what), path.to_owned(), body));
    }
    let body = format!(
        r#"{{"Node":"no\u0001name","Address":" ","Service":{{"ID":"odd","Service":"{name}","Port":-7}},
            "Check":{{"Name":"odd","CheckID":"odd","ServiceID":"odd","Status":"no word"}}}}"#
    );
    oddities.push((
        Oddity::entry("a node with an address that is none"),
        path.to_owned(),
        body,
    ));
    let branch = key(service, "");
    for (what, key, value) in [
        ("a load that is no load", "odd", "\u{fffd}\u{1}"),
        ("a load under a key that is escaped wrongly", "%zz", "7"),
        ("a load under a key of several parts", "a/b/c", "7"),
        ("a large load", "large", &"7".repeat(400_000)),
    ] {
        let path = key_path(&format!("{branch}{key}"));
        oddities.push((
            Oddity::other(what),
            format!("{path}?flags=18446744073709551615"),
            value.to_owned(),
        ));
    }
    for (what, name) in [
        ("a service whose name is escaped wrongly", "%zz"),
        ("a service whose name is half a character", "odd\\ud800"),
        ("a service whose name differs by case", &name.to_uppercase()),
    ] {
        let body = format!(r#"{{"ID":"{name}-named","Name":"{name}","Port":-1}}"#);
        oddities.push((
            Oddity::other(what),
            "/v1/agent/service/register".to_owned(),
            body,
        ));
    }
    oddities
}
