//! How long until everybody knows: from a registration, and from a load, to a watcher at another
//! connection.
//!
//! `<what>/bare` is one write and its event with the client library alone.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use etcd_client::{PutOptions, WatchOptions};
use plimsoll_discovery_api::{LoadUpdater, Registry};

use support::{Setting, record, shown};

fn latency(c: &mut Criterion) {
    let Some(setting) = Setting::new() else {
        return;
    };
    let mut group = c.benchmark_group("register_to_visible");
    group.sample_size(20);
    group.bench_function("bare", |b| {
        b.iter_custom(|iterations| {
            setting
                .runtime
                .block_on(bare(&setting, "services", iterations))
        });
    });
    group.bench_function("plimsoll", |b| {
        b.iter_custom(|iterations| setting.runtime.block_on(register(&setting, iterations)));
    });
    group.finish();
    let mut group = c.benchmark_group("publish_to_visible");
    group.sample_size(20);
    group.bench_function("bare", |b| {
        b.iter_custom(|iterations| setting.runtime.block_on(bare(&setting, "load", iterations)));
    });
    group.bench_function("plimsoll", |b| {
        b.iter_custom(|iterations| setting.runtime.block_on(publish(&setting, iterations)));
    });
    group.finish();
}

/// Puts under a lease, and waits for the event on another connection.
async fn bare(setting: &Setting, branch: &str, iterations: u64) -> Duration {
    let mut writer = setting.bare.clone();
    let address = setting.server.address().to_string();
    let mut reader = etcd_client::Client::connect([address], None)
        .await
        .expect("a client");
    let lease = writer.lease_grant(60, None).await.expect("a lease").id();
    let prefix = setting.key(branch, "");
    let options = WatchOptions::new().with_prefix();
    let mut stream = reader.watch(prefix, Some(options)).await.expect("a watch");
    stream.message().await.expect("that it was created");
    let mut took = Duration::ZERO;
    for number in 0..iterations {
        let id = format!("bare{number}");
        let key = setting.key(branch, &id);
        let value = if branch == "load" {
            number.to_string()
        } else {
            record(&id, 0)
        };
        let started = Instant::now();
        let options = PutOptions::new().with_lease(lease);
        let (written, event) =
            tokio::join!(writer.put(key, value, Some(options)), stream.message(),);
        written.expect("to be written");
        assert_eq!(
            event.expect("an event").expect("an event").events().len(),
            1
        );
        took += started.elapsed();
    }
    writer.lease_revoke(lease).await.expect("to revoke");
    took
}

async fn register(setting: &Setting, iterations: u64) -> Duration {
    let (provider, consumer) = (setting.registry(), setting.registry());
    let first = provider
        .register(setting.instance("first"))
        .await
        .expect("to be taken");
    first.ready().await.expect("to be live");
    let mut watch = consumer.watch(&setting.service).await.expect("a watch");
    shown(&mut watch, |s| s.get("first").is_some()).await;
    let mut took = Duration::ZERO;
    for number in 0..iterations {
        let id = format!("m{number}");
        let instance = setting.instance(&id);
        let started = Instant::now();
        let registration = provider.register(instance).await.expect("to be taken");
        shown(&mut watch, |s| s.get(&id).is_some()).await;
        took += started.elapsed();
        registration.deregister().await.expect("to be gone");
        shown(&mut watch, |s| s.get(&id).is_none()).await;
    }
    first.deregister().await.expect("to be gone");
    took
}

async fn publish(setting: &Setting, iterations: u64) -> Duration {
    let (provider, consumer) = (setting.registry(), setting.registry());
    let registration = provider
        .register(setting.instance("first"))
        .await
        .expect("to be taken");
    registration.ready().await.expect("to be live");
    let mut watch = consumer.watch(&setting.service).await.expect("a watch");
    shown(&mut watch, |s| s.get("first").is_some()).await;
    let snapshot = watch.latest().expect("a snapshot");
    let seen = Arc::clone(snapshot.get("first").expect("the member").load());
    let load = registration.load();
    let mut took = Duration::ZERO;
    for number in 1..=iterations {
        let started = Instant::now();
        load.set(number);
        // Nobody is woken by a load: so it is looked for, by a thread that leaves the cores alone.
        let seen = Arc::clone(&seen);
        let visible = tokio::task::spawn_blocking(move || {
            while seen.get() != Some(number) {
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        let (flushed, visible) = tokio::join!(load.flush(), visible);
        flushed.expect("to be published");
        visible.expect("a thread");
        took += started.elapsed();
    }
    registration.deregister().await.expect("to be gone");
    took
}

criterion_group!(benches, latency);
criterion_main!(benches);
