//! How long until everybody knows: from a registration, and from a load, to a watcher at another
//! connection.
//!
//! `<what>/bare` are the same requests with the client library alone: the conditional transaction that
//! writes under a lease, and one stream with a watch on each branch. `<what>/put` is what they would be
//! without any condition, which is what no late or repeated write could be told from. What ends in
//! `_durably` is at a server that writes to disk before it answers, as etcd does by default.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use etcd_client::{Compare, CompareOp, EventType, PutOptions, Txn, TxnOp, WatchOptions};
use plimsoll_discovery_api::Registry;

use support::{Setting, record, shown};

const IDENTITIES: &str = "services";
const LOADS: &str = "load";

/// What one round leaves behind, the events of its deletions, is no part of the next.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

fn latency(c: &mut Criterion) {
    if let Some(setting) = Setting::new() {
        to_visible(c, "", &setting);
    }
    if let Some(setting) = Setting::durable() {
        to_visible(c, "_durably", &setting);
    }
}

fn to_visible(c: &mut Criterion, how: &str, setting: &Setting) {
    let mut group = c.benchmark_group(format!("register_to_visible{how}"));
    group.sample_size(20);
    for (name, write) in [("bare", Write::Identity), ("put", Write::Put(IDENTITIES))] {
        group.bench_function(name, |b| {
            b.iter_custom(|n| setting.runtime.block_on(bare(setting, write, n)));
        });
    }
    group.bench_function("plimsoll", |b| {
        b.iter_custom(|n| setting.runtime.block_on(register(setting, n)));
    });
    group.finish();
    let mut group = c.benchmark_group(format!("publish_to_visible{how}"));
    group.sample_size(20);
    for (name, write) in [("bare", Write::Load), ("put", Write::Put(LOADS))] {
        group.bench_function(name, |b| {
            b.iter_custom(|n| setting.runtime.block_on(bare(setting, write, n)));
        });
    }
    group.bench_function("plimsoll", |b| {
        b.iter_custom(|n| setting.runtime.block_on(publish(setting, n)));
    });
    group.finish();
}

/// What the bare client writes.
#[derive(Clone, Copy)]
enum Write {
    /// An instance, as a registration does.
    Identity,
    /// The load of one that is there, as a publication does.
    Load,
    /// One key without a condition.
    Put(&'static str),
}

impl Write {
    /// Where it is seen.
    fn branch(self) -> &'static str {
        match self {
            Self::Identity => IDENTITIES,
            Self::Load => LOADS,
            Self::Put(branch) => branch,
        }
    }

    /// The transaction for the round `number`, of which `revision` is what the one before has
    /// answered.
    fn txn(self, setting: &Setting, number: u64, lease: i64, revision: i64) -> Txn {
        let put = |key: &str, value: String| {
            TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
        };
        let is = |key: &str, revision| Compare::mod_revision(key, CompareOp::Equal, revision);
        let id = match self {
            Self::Load => "bare".to_owned(),
            _ => format!("bare{number}"),
        };
        let (identity, load) = (setting.key(IDENTITIES, &id), setting.key(LOADS, &id));
        match self {
            Self::Identity => Txn::new()
                .when([is(&identity, 0), is("fence", 0)])
                .and_then([put(&identity, record(&id, 0)), put(&load, "0".to_owned())])
                .or_else([TxnOp::get(identity, None), TxnOp::get(load, None)]),
            Self::Load => {
                let lease = Compare::lease(identity.as_str(), CompareOp::Equal, lease);
                let created = Compare::create_revision(identity.as_str(), CompareOp::Greater, 0);
                Txn::new()
                    .when([created, lease, is(&load, revision)])
                    .and_then([put(&load, number.to_string())])
                    .or_else([TxnOp::get(identity, None), TxnOp::get(load, None)])
            }
            Self::Put(branch) => {
                let value = if branch == LOADS {
                    number.to_string()
                } else {
                    record(&id, 0)
                };
                Txn::new().and_then([put(&setting.key(branch, &id), value)])
            }
        }
    }
}

/// Writes, and waits for the event on another connection.
async fn bare(setting: &Setting, write: Write, iterations: u64) -> Duration {
    let mut writer = setting.bare.clone();
    let address = setting.server.address().to_string();
    let mut reader = etcd_client::Client::connect([address], None)
        .await
        .expect("a client");
    let lease = writer.lease_grant(60, None).await.expect("a lease").id();
    let mut revision = 0;
    if matches!(write, Write::Load) {
        let options = || Some(PutOptions::new().with_lease(lease));
        for (branch, value) in [(IDENTITIES, record("bare", 0)), (LOADS, "0".to_owned())] {
            let put = writer.put(setting.key(branch, "bare"), value, options());
            let put = put.await.expect("to be written");
            revision = put.header().expect("a header").revision();
        }
    }
    let options = |number| WatchOptions::new().with_prefix().with_watch_id(number);
    let (identities, loads) = (setting.key(IDENTITIES, ""), setting.key(LOADS, ""));
    let stream = reader.watch(identities, Some(options(1))).await;
    let mut stream = stream.expect("a watch");
    stream
        .watch(loads, Some(options(2)))
        .await
        .expect("a second one");
    for _ in 0..2 {
        stream.message().await.expect("that it was created");
    }
    let seen_by = if write.branch() == IDENTITIES { 1 } else { 2 };
    let mut took = Duration::ZERO;
    for number in 0..iterations {
        settle().await;
        let started = Instant::now();
        let seen = async {
            loop {
                let message = stream.message().await.expect("an event");
                let message = message.expect("an event");
                if message.watch_id() == seen_by {
                    return message.events().len();
                }
            }
        };
        let txn = write.txn(setting, number, lease, revision);
        let (written, seen) = tokio::join!(writer.txn(txn), seen);
        took += started.elapsed();
        let written = written.expect("an answer");
        assert!(written.succeeded());
        assert_eq!(seen, 1);
        revision = written.header().expect("a header").revision();
        if matches!(write, Write::Identity) {
            // The event of the load, lest it be taken for one of the next round.
            let id = format!("bare{number}");
            for branch in [IDENTITIES, LOADS] {
                let gone = writer.delete(setting.key(branch, &id), None).await;
                gone.expect("to be deleted");
            }
            let mut left = 2;
            while left > 0 {
                let message = stream.message().await.expect("an event");
                let message = message.expect("an event");
                let deletions = message.events().iter();
                left -= deletions
                    .filter(|event| event.event_type() == EventType::Delete)
                    .count();
            }
        }
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
        settle().await;
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
        settle().await;
        let started = Instant::now();
        load.set(number);
        load.flush().await.expect("to be published");
        // Nobody is woken by a load; and a look without rest would take a processor from the others.
        while seen.get() != Some(number) {
            std::thread::sleep(Duration::from_micros(20));
        }
        took += started.elapsed();
    }
    registration.deregister().await.expect("to be gone");
    took
}

criterion_group!(benches, latency);
criterion_main!(benches);
