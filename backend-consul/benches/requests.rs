//! What plimsoll adds to the requests that it makes: each of them by itself, in the same order, to
//! the same agent, beside plimsoll.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to measure"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use plimsoll_backend_consul::ConsulRegistry;
use plimsoll_discovery_api::{Instance, Registration, Registry, Watch};
use plimsoll_test_servers::consul::{Data, Server, available};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::timeout;

const ROOT: &str = "bench";
/// Ceiling for what an agent does in milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    runtime: Runtime,
    server: Server,
}

impl Bench {
    fn start() -> Option<Self> {
        available().then(|| Self {
            runtime: Runtime::new().unwrap(),
            server: Server::start(Data::Disk),
        })
    }

    fn registry(&self) -> ConsulRegistry {
        let builder = ConsulRegistry::builder(self.server.address().to_string());
        // A bench takes all of the machine; no check shall lapse for that.
        let builder = builder.with_root(ROOT).with_ttl(Duration::from_secs(120));
        // Each change is told at once, as the bare requests tell of it.
        let builder = builder.with_timings(|timings| timings.coalesce = Duration::ZERO);
        builder.build().unwrap()
    }

    fn bare(&self) -> Bare {
        Bare {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            base: format!("http://{}/v1", self.server.address()),
            node: self.get("/v1/agent/self")["Config"]["NodeName"]
                .as_str()
                .unwrap()
                .to_owned(),
        }
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.server.call("GET", path, "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn instance(service: &str, id: usize) -> Instance {
    let builder = Instance::builder(service, "10.0.0.7", 8080).with_id(format!("i{id}"));
    builder
        .with_zone("a")
        .with_version("1.2.3")
        .build()
        .unwrap()
}

/// The requests alone, by the same HTTP client.
struct Bare {
    client: reqwest::Client,
    base: String,
    node: String,
}

impl Bare {
    async fn put(&self, path: &str, body: &Value) -> Vec<u8> {
        let request = self
            .client
            .put(format!("{}/{path}", self.base))
            .body(body.to_string());
        let answer = request.send().await.unwrap().error_for_status().unwrap();
        answer.bytes().await.unwrap().to_vec()
    }

    async fn get(&self, path: &str) -> (u64, Vec<u8>) {
        let answer = self
            .client
            .get(format!("{}/{path}", self.base))
            .send()
            .await
            .unwrap();
        let index = answer.headers()["X-Consul-Index"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        (index, answer.bytes().await.unwrap().to_vec())
    }

    async fn session(&self) -> String {
        let body = json!({"Behavior": "delete", "TTL": "60s", "NodeChecks": [], "LockDelay": "0s"});
        let created: Value =
            serde_json::from_slice(&self.put("session/create", &body).await).unwrap();
        created["ID"].as_str().unwrap().to_owned()
    }

    /// What a registration asks for, and how its body looks.
    async fn register(&self, service: &str, id: &str, session: &str) {
        let key = format!("{ROOT}/load/{service}/{id}");
        let value = "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDcgMCAw";
        let fence = json!([
            {"KV": {"Verb": "check-not-exists", "Key": key}},
            {"KV": {"Verb": "lock", "Key": key, "Value": value, "Session": session}}
        ]);
        self.put("txn", &fence).await;
        let check = format!("service:{id}");
        let body = json!({
            "ID": id, "Name": service, "Address": "10.0.0.7", "Port": 8080, "Tags": ["plimsoll"],
            "Meta": {
                "plimsoll-schema": "1", "plimsoll-id": id, "plimsoll-status": "up",
                "plimsoll-incarnation": "00000000000000000000000000000007", "plimsoll-weight": "100",
                "plimsoll-registered-ms": "1700000000000", "plimsoll-zone": "a", "plimsoll-version": "1.2.3"
            },
            "Weights": {"Passing": 1, "Warning": 1},
            "Check": {"CheckID": check, "TTL": "60s", "DeregisterCriticalServiceAfter": "1m"}
        });
        self.put("agent/service/register", &body).await;
        self.put(&format!("agent/check/pass/{check}"), &Value::Null)
            .await;
        let read =
            json!([{"Check": {"Verb": "get", "Check": {"Node": self.node, "CheckID": check}}}]);
        let passing = async {
            while !String::from_utf8_lossy(&self.put("txn", &read).await).contains("passing") {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, passing).await.unwrap();
        self.get(&format!(
            "health/service/{service}?filter=Service.ID==%22{id}%22"
        ))
        .await;
    }

    async fn deregister(&self, service: &str, id: &str) {
        let key = format!("{ROOT}/load/{service}/{id}");
        self.put("txn", &json!([{"KV": {"Verb": "delete", "Key": key}}]))
            .await;
        self.put(&format!("agent/service/deregister/{id}"), &Value::Null)
            .await;
    }

    /// Returns when a blocking query has an answer with `id`, usable.
    async fn seen(&self, service: &str, id: &str, mut index: u64) {
        let there = async {
            loop {
                let path = format!(
                    "health/service/{service}?index={}&wait=10s&passing=true",
                    index.max(1)
                );
                let (next, body) = self.get(&path).await;
                index = next;
                if String::from_utf8_lossy(&body).contains(id) {
                    return;
                }
            }
        };
        timeout(PATIENCE, there).await.unwrap();
    }
}

/// From the order to register until a watcher elsewhere has the instance; 20 others stand beside it.
fn register_to_visible(criterion: &mut Criterion) {
    let Some(bench) = Bench::start() else { return };
    let mut group = criterion.benchmark_group("consul/register_to_visible");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(8));
    let (provider, consumer) = (bench.registry(), bench.registry());
    let (_others, mut watch) = bench
        .runtime
        .block_on(fleet(&provider, &consumer, "visible", 20));
    group.bench_function("plimsoll", |bencher| {
        bencher.iter_custom(|rounds| {
            bench.runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    let started = Instant::now();
                    let registration = provider.register(instance("visible", 999)).await.unwrap();
                    let seen = watch.wait_for(|s| s.get("i999").is_some());
                    timeout(PATIENCE, seen).await.unwrap().unwrap();
                    took += started.elapsed();
                    timeout(PATIENCE, registration.ready())
                        .await
                        .unwrap()
                        .unwrap();
                    registration.deregister().await.unwrap();
                    let gone = watch.wait_for(|s| s.get("i999").is_none());
                    timeout(PATIENCE, gone).await.unwrap().unwrap();
                    // A watcher is paced; what it may do at once it has earned back by then.
                    tokio::time::sleep(Duration::from_millis(800)).await;
                }
                took
            })
        });
    });
    let bare = bench.bare();
    let session = bench.runtime.block_on(async {
        let session = bare.session().await;
        for id in 0..20 {
            bare.register("bare", &format!("b{id}"), &session).await;
        }
        session
    });
    group.bench_function("bare", |bencher| {
        bencher.iter_custom(|rounds| {
            bench.runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    let (index, _) = bare.get("health/service/bare").await;
                    let started = Instant::now();
                    let (seen, registered) = (bare.seen("bare", "b999", index), bare.register("bare", "b999", &session));
                    tokio::pin!(registered);
                    tokio::select! {
                        () = seen => took += started.elapsed(),
                        () = async { registered.as_mut().await; std::future::pending::<()>().await } => {}
                    }
                    bare.deregister("bare", "b999").await;
                    tokio::time::sleep(Duration::from_millis(800)).await;
                }
                took
            })
        });
    });
    group.finish();
}

async fn fleet(
    provider: &ConsulRegistry,
    consumer: &ConsulRegistry,
    service: &str,
    members: usize,
) -> (Vec<Registration>, Watch) {
    let mut fleet = Vec::new();
    for id in 0..members {
        fleet.push(provider.register(instance(service, id)).await.unwrap());
    }
    for registration in &fleet {
        timeout(PATIENCE, registration.ready())
            .await
            .unwrap()
            .unwrap();
    }
    let mut watch = consumer
        .watch_members(&service.parse().unwrap())
        .await
        .unwrap();
    let all = watch.wait_for(|s| s.members().len() == members);
    timeout(PATIENCE, all).await.unwrap().unwrap();
    (fleet, watch)
}

/// A list with its loads: what the leader says of a service, and of the keys below its name.
fn list(criterion: &mut Criterion) {
    let Some(bench) = Bench::start() else { return };
    let mut group = criterion.benchmark_group("consul/list");
    group.sample_size(50);
    for members in [100_usize, 500] {
        let service = format!("list{members}");
        let provider = bench.registry();
        let (_fleet, watch) = bench
            .runtime
            .block_on(fleet(&provider, &provider, &service, members));
        drop(watch);
        let (registry, name) = (bench.registry(), service.parse().unwrap());
        group.bench_function(BenchmarkId::new("plimsoll", members), |bencher| {
            bencher.to_async(&bench.runtime).iter(async || {
                let listed = registry.list(&name).await.unwrap();
                assert_eq!(listed.members().len(), members);
            });
        });
        let bare = bench.bare();
        let both = async || {
            let (health, loads) = (
                format!("health/service/{service}"),
                format!("kv/{ROOT}/load/{service}/?recurse"),
            );
            tokio::join!(bare.get(&health), bare.get(&loads))
        };
        group.bench_function(BenchmarkId::new("bare", members), |bencher| {
            bencher
                .to_async(&bench.runtime)
                .iter(async || black_box(both().await));
        });
        group.bench_function(BenchmarkId::new("bare+json", members), |bencher| {
            bencher.to_async(&bench.runtime).iter(async || {
                let ((_, health), (_, loads)) = both().await;
                let health: Value = serde_json::from_slice(&health).unwrap();
                let loads: Value = serde_json::from_slice(&loads).unwrap();
                assert_eq!(health.as_array().map(Vec::len), Some(members));
                assert_eq!(loads.as_array().map(Vec::len), Some(members));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, register_to_visible, list);
criterion_main!(benches);
