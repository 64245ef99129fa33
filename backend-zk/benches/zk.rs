//! This backend beside the bare client library, on one real server, in one run.
//!
//! `<what>/plimsoll` and `<what>/bare` take turns on the same server. What has no duration, the cost
//! of idling, is printed.

use std::cell::Cell;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::{Instance, Registration, Registry, ServiceName, Snapshot};
use plimsoll_test_servers::zk::{Server, available};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use zookeeper_client::{Acls, AddWatchMode, Client, CreateMode, CreateOptions};

/// Ceiling for whatever is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two changes of a service, so that neither is gathered with the other.
const APART: Duration = Duration::from_millis(60);

/// Between two looks at a load, which wakes nobody when it changes.
const POLL: Duration = Duration::from_micros(20);

/// What a record of this backend takes, about.
const IDENTITY: &[u8] = &[b'x'; 420];

/// One server, and clients of either kind.
struct Scene {
    runtime: Runtime,
    server: Server,
    provider: ZkRegistry,
    consumer: ZkRegistry,
    writer: Client,
    reader: Client,
}

fn open() -> CreateOptions<'static> {
    CreateMode::Persistent.with_acls(Acls::anyone_all())
}

fn ephemeral() -> CreateOptions<'static> {
    CreateMode::Ephemeral.with_acls(Acls::anyone_all())
}

impl Scene {
    fn set() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let server = Server::start();
        let handle = || {
            let handle =
                ZkRegistry::builder([server.address().to_string()]).with_timings(|timings| {
                    timings.call_timeout = PATIENCE;
                    timings.deregister_timeout = PATIENCE;
                });
            handle.build().expect("good settings")
        };
        let address = server.address().to_string();
        let client = || async {
            let client = Client::connect(&address).await.expect("a client");
            for parent in ["/bare/services", "/bare/load"] {
                client.mkdir(parent, &open()).await.expect("a parent");
            }
            client
        };
        let (writer, reader) = runtime.block_on(async { (client().await, client().await) });
        Self {
            provider: handle(),
            consumer: handle(),
            writer,
            reader,
            server,
            runtime,
        }
    }

    async fn register(&self, service: &ServiceName, id: usize) -> Registration {
        let instance = Instance::builder(service, "10.0.0.7", 8080).with_id(format!("i{id:05}"));
        let instance = instance.build().expect("an instance");
        self.provider
            .register(instance)
            .await
            .expect("a registration")
    }

    /// Registers so many, and waits until all are there.
    async fn fleet(&self, service: &ServiceName, size: usize) -> Vec<Registration> {
        let mut fleet = Vec::with_capacity(size);
        for id in 0..size {
            fleet.push(self.register(service, id).await);
        }
        for registration in &fleet {
            let ready = timeout(PATIENCE, registration.ready()).await;
            ready.expect("in time").expect("to be registered");
        }
        fleet
    }

    /// A number of the server's monitor.
    fn monitored(&self, name: &str) -> u64 {
        let answer = self.server.ask("mntr").expect("a server");
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|text| text.trim().parse().ok())
            .expect("a number")
    }

    fn transactions(&self) -> u64 {
        let answer = self.server.ask("srvr").expect("a server");
        let line = answer
            .lines()
            .find_map(|line| line.strip_prefix("Zxid: 0x"));
        line.and_then(|text| u64::from_str_radix(text, 16).ok())
            .expect("a number")
    }
}

/// Removes them all, and waits until that is so.
async fn disband(fleet: Vec<Registration>) {
    let removals = fleet
        .into_iter()
        .map(|registration| tokio::spawn(async move { registration.deregister().await }));
    for removal in removals.collect::<Vec<_>>() {
        removal.await.expect("no panic").expect("a removal");
    }
}

fn service(name: &str) -> ServiceName {
    name.parse().expect("a name")
}

/// A Java process that has just started is slower than one that serves.
fn warm_up(scene: &Scene) {
    let name = &service("warm");
    scene.runtime.block_on(async {
        let _watch = scene.consumer.watch(name).await.expect("a watch");
        for _ in 0..if is_measured() { 10 } else { 1 } {
            disband(scene.fleet(name, 500).await).await;
        }
    });
}

/// From the call to register until a watcher of another session has the instance.
fn register_to_visible(c: &mut Criterion, scene: &Scene) {
    let mut group = c.benchmark_group("register_to_visible");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let name = &service("visible");
    let _stays = scene.runtime.block_on(scene.fleet(name, 1));
    group.bench_function("plimsoll", |b| {
        b.to_async(&scene.runtime)
            .iter_custom(|iterations| async move {
                let mut watch = scene.consumer.watch(name).await.expect("a watch");
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    let there = |s: &Snapshot, n| s.members().len() == n;
                    watch.wait_for(|s| there(s, 1)).await.expect("a snapshot");
                    sleep(APART).await;
                    let start = Instant::now();
                    let registration = scene.register(name, 1).await;
                    watch.wait_for(|s| there(s, 2)).await.expect("a snapshot");
                    elapsed += start.elapsed();
                    registration.deregister().await.expect("a removal");
                }
                elapsed
            });
    });
    group.bench_function("bare", |b| {
        b.to_async(&scene.runtime)
            .iter_custom(|iterations| async move {
                let mode = AddWatchMode::PersistentRecursive;
                let mut watch = scene
                    .reader
                    .watch("/bare/services", mode)
                    .await
                    .expect("a watch");
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    sleep(APART).await;
                    let start = Instant::now();
                    let mut writer = scene.writer.new_multi_writer();
                    let (identity, load) = ("/bare/services/one", "/bare/load/one");
                    writer
                        .add_create(identity, IDENTITY, &ephemeral())
                        .expect("a path");
                    writer.add_create(load, b"0", &ephemeral()).expect("a path");
                    let (created, event) = tokio::join!(writer.commit(), watch.changed());
                    created.expect("to be created");
                    let (of_identity, of_load) = (
                        scene.reader.get_data(&event.path),
                        scene.reader.get_data(load),
                    );
                    black_box((
                        of_identity.await.expect("data"),
                        of_load.await.expect("data"),
                    ));
                    elapsed += start.elapsed();
                    for path in [identity, load] {
                        scene.writer.delete(path, None).await.expect("a removal");
                    }
                    watch.changed().await;
                }
                elapsed
            });
    });
    group.finish();
}

/// From the call to publish a load until a watcher of another session has it.
fn publish_to_visible(c: &mut Criterion, scene: &Scene) {
    let mut group = c.benchmark_group("publish_to_visible");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let name = &service("loaded");
    let fleet = &scene.runtime.block_on(scene.fleet(name, 1));
    let published = &Cell::new(0);
    group.bench_function("plimsoll", |b| {
        b.to_async(&scene.runtime)
            .iter_custom(|iterations| async move {
                let mut watch = scene.consumer.watch(name).await.expect("a watch");
                let snapshot = watch.wait_for(|s| s.members().len() == 1).await;
                let seen = Arc::clone(snapshot.expect("a snapshot").members()[0].load());
                let (handle, mut elapsed) = (fleet[0].load(), Duration::ZERO);
                for _ in 0..iterations {
                    let load = published.get() + 1;
                    published.set(load);
                    sleep(APART).await;
                    let start = Instant::now();
                    handle.set(load);
                    handle.flush().await.expect("a publication");
                    // A task that polls without rest would take a processor from those it waits for.
                    while seen.get() != Some(load) {
                        thread::sleep(POLL);
                    }
                    elapsed += start.elapsed();
                }
                elapsed
            });
    });
    group.bench_function("bare", |b| {
        b.to_async(&scene.runtime)
            .iter_custom(|iterations| async move {
                let (identity, load) = ("/bare/services/loaded", "/bare/load/loaded");
                for path in [identity, load] {
                    let made = scene.writer.create(path, b"0", &ephemeral()).await;
                    made.expect("to be created");
                }
                let mode = AddWatchMode::PersistentRecursive;
                let mut watch = scene
                    .reader
                    .watch("/bare/load", mode)
                    .await
                    .expect("a watch");
                let mut elapsed = Duration::ZERO;
                for value in 1..=iterations {
                    sleep(APART).await;
                    let start = Instant::now();
                    let mut writer = scene.writer.new_multi_writer();
                    let (text, version) =
                        (value.to_string(), i32::try_from(value - 1).expect("few"));
                    writer.add_check_version(identity, 0).expect("a path");
                    writer
                        .add_set_data(load, text.as_bytes(), Some(version))
                        .expect("a path");
                    let (written, event) = tokio::join!(writer.commit(), watch.changed());
                    written.expect("to be written");
                    let (data, _) = scene.reader.get_data(&event.path).await.expect("data");
                    elapsed += start.elapsed();
                    assert_eq!(data, text.as_bytes());
                }
                for path in [identity, load] {
                    scene.writer.delete(path, None).await.expect("a removal");
                }
                elapsed
            });
    });
    group.finish();
}

/// Everybody, with their loads.
fn list(c: &mut Criterion, scene: &Scene) {
    let mut group = c.benchmark_group("list");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for size in if is_measured() {
        &[100, 1_000, 10_000][..]
    } else {
        &[100]
    } {
        let size = *size;
        let name = service(&format!("list-{size}"));
        let fleet = scene.runtime.block_on(scene.fleet(&name, size));
        group.bench_function(BenchmarkId::new("plimsoll", size), |b| {
            b.to_async(&scene.runtime).iter(|| async {
                let listed = scene.consumer.list(&name).await.expect("a list");
                assert_eq!((listed.members().len(), listed.skipped()), (size, 0));
            });
        });
        let parents = [
            format!("/plimsoll/services/{name}"),
            format!("/plimsoll/load/{name}"),
        ];
        group.bench_function(BenchmarkId::new("bare", size), |b| {
            b.to_async(&scene.runtime).iter(|| async {
                let (client, [services, load]) = (&scene.reader, &parents);
                let keys = client.list_children(services).await.expect("children");
                let paths = |parent: &String| {
                    let paths = keys.iter().map(|key| format!("{parent}/{key}"));
                    paths.collect::<Vec<_>>()
                };
                let paths = [paths(services), paths(load)].concat();
                let reads: Vec<_> = paths.iter().map(|path| client.get_data(path)).collect();
                let mut bytes = 0;
                for read in reads {
                    bytes += read.await.expect("data").0.len();
                }
                assert!(bytes > 100 * size);
            });
        });
        scene.runtime.block_on(disband(fleet));
    }
    group.finish();
}

/// Many registrations from one process, until the last of them is there.
fn register_many(c: &mut Criterion, scene: &Scene) {
    let many = if is_measured() { 10_000 } else { 100 };
    let mut group = c.benchmark_group("register_10000");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("plimsoll", |b| {
        b.to_async(&scene.runtime)
            .iter_custom(|iterations| async move {
                let mut elapsed = Duration::ZERO;
                for round in 0..iterations {
                    let name = service(&format!("many-{round}"));
                    let start = Instant::now();
                    let fleet = scene.fleet(&name, many).await;
                    elapsed += start.elapsed();
                    disband(fleet).await;
                }
                elapsed
            });
    });
    group.bench_function("bare", |b| {
        b.to_async(&scene.runtime)
            .iter_custom(|iterations| async move {
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    let path = |branch: &str, id| format!("/bare/{branch}/i{id:05}");
                    let start = Instant::now();
                    let mut creations = Vec::with_capacity(many);
                    for id in 0..many {
                        let mut writer = scene.writer.new_multi_writer();
                        let (identity, load) = (path("services", id), path("load", id));
                        writer
                            .add_create(&identity, IDENTITY, &ephemeral())
                            .expect("a path");
                        writer
                            .add_create(&load, b"0", &ephemeral())
                            .expect("a path");
                        creations.push(writer.commit());
                    }
                    for creation in creations {
                        creation.await.expect("to be created");
                    }
                    elapsed += start.elapsed();
                    let paths: Vec<_> = (0..many)
                        .flat_map(|id| [path("services", id), path("load", id)])
                        .collect();
                    let removals: Vec<_> = paths
                        .iter()
                        .map(|path| scene.writer.delete(path, None))
                        .collect();
                    for removal in removals {
                        removal.await.expect("a removal");
                    }
                }
                elapsed
            });
    });
    group.finish();
}

/// What a fleet costs that does nothing: processor time here, requests and writes there.
#[expect(clippy::print_stdout, reason = "a measurement that has no duration")]
fn idle(scene: &Scene, span: Duration) {
    let size: u32 = if is_measured() { 1_000 } else { 100 };
    let name = service("idle");
    let fleet = scene.runtime.block_on(scene.fleet(&name, size as usize));
    scene
        .runtime
        .block_on(async { sleep(Duration::from_secs(1)).await });
    let (cpu, start) = (cpu_time(), Instant::now());
    let (packets, written) = (scene.monitored("zk_packets_received"), scene.transactions());
    scene.runtime.block_on(async { sleep(span).await });
    let written = scene.transactions() - written;
    let packets = scene.monitored("zk_packets_received") - packets;
    let (cpu, seconds) = (cpu_time() - cpu, start.elapsed().as_secs_f64());
    println!(
        "idle/{size}: {:.1} requests/s, {:.1} writes/s, {:.2} % of one processor, over {seconds:.0} s",
        packets as f64 / seconds,
        written as f64 / seconds,
        cpu.as_secs_f64() * 100.0 / seconds,
    );
    // Each publishes its load again when it is a minute old, and nothing besides.
    let refreshed = f64::from(size) * seconds / 60.0;
    assert!(written as f64 <= refreshed * 1.2 + 5.0, "{written} writes");
    scene.runtime.block_on(disband(fleet));
}

/// What this process has used so far, by `proc(5)`: fields 14 and 15, in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Otherwise each runs once, and small.
fn is_measured() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

fn zk(c: &mut Criterion) {
    if !available() {
        return;
    }
    let scene = Scene::set();
    warm_up(&scene);
    register_to_visible(c, &scene);
    publish_to_visible(c, &scene);
    list(c, &scene);
    register_many(c, &scene);
    idle(
        &scene,
        Duration::from_secs(if is_measured() { 70 } else { 1 }),
    );
}

criterion_group!(benches, zk);
criterion_main!(benches);
