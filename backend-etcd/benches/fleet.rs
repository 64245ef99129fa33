//! A thousand registrations of one process: how long until all are live, and what they cost while
//! nothing happens, which is printed.
//!
//! `register_1000/bare` is as many transactions of the same two keys, under one lease, as many at a
//! time as there are.

#![expect(clippy::print_stdout, reason = "what is not a time is printed")]

mod support;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use plimsoll_discovery_api::{Registration, Registry};

use support::{Setting, record};

const COUNT: usize = 1_000;

fn fleet(c: &mut Criterion) {
    let Some(setting) = Setting::new() else {
        return;
    };
    let mut group = c.benchmark_group("register_1000");
    group.sample_size(10);
    group.bench_function("bare", |b| {
        b.iter_custom(|iterations| {
            let run = || setting.runtime.block_on(bare(&setting));
            (0..iterations).map(|_| run()).sum()
        });
    });
    group.bench_function("plimsoll", |b| {
        b.iter_custom(|iterations| {
            let run = || setting.runtime.block_on(register(&setting)).0;
            (0..iterations).map(|_| run()).sum()
        });
    });
    group.finish();
    // Once is enough where nothing is measured.
    let span = if std::env::args().any(|argument| argument == "--bench") {
        Duration::from_secs(20)
    } else {
        Duration::from_secs(1)
    };
    setting.runtime.block_on(idle(&setting, span));
}

async fn bare(setting: &Setting) -> Duration {
    let mut client = setting.bare.clone();
    let started = Instant::now();
    let lease = client.lease_grant(60, None).await.expect("a lease").id();
    let writes = (0..COUNT).map(|number| {
        let id = format!("m{number}");
        let (key, load) = (setting.key("services", &id), setting.key("load", &id));
        let put = || Some(PutOptions::new().with_lease(lease));
        let txn = Txn::new()
            .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([
                TxnOp::put(key, record(&id, number), put()),
                TxnOp::put(load, "0", put()),
            ]);
        let mut kv = setting.bare.kv_client();
        tokio::spawn(async move { kv.txn(txn).await.expect("an answer").succeeded() })
    });
    for write in writes.collect::<Vec<_>>() {
        assert!(write.await.expect("a task"));
    }
    let took = started.elapsed();
    client.lease_revoke(lease).await.expect("to revoke");
    took
}

async fn register(setting: &Setting) -> (Duration, Vec<Registration>) {
    let registry = setting.registry();
    let started = Instant::now();
    let mut registrations = Vec::new();
    for number in 0..COUNT {
        let instance = setting.instance(&format!("p{number}"));
        registrations.push(registry.register(instance).await.expect("to be taken"));
    }
    for registration in &registrations {
        registration.ready().await.expect("to be live");
    }
    let took = started.elapsed();
    for registration in &registrations {
        registration.deregister().await.expect("to be gone");
    }
    (took, registrations)
}

async fn idle(setting: &Setting, span: Duration) {
    let registry = setting.registry();
    let mut registrations = Vec::new();
    for number in 0..COUNT {
        let instance = setting.instance(&format!("i{number}"));
        registrations.push(registry.register(instance).await.expect("to be taken"));
    }
    for registration in &registrations {
        registration.ready().await.expect("to be live");
    }
    let received = || setting.server.metric("grpc_server_msg_received_total");
    let (messages, cpu, started) = (received(), cpu_seconds(), Instant::now());
    tokio::time::sleep(span).await;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{COUNT} idle registrations: {:.1} messages a second to the server, {:.2} % of a core, \
         {} lease keepalive stream(s), {} watch stream(s)",
        (received() - messages) / seconds,
        100.0 * (cpu_seconds() - cpu) / seconds,
        setting.server.streams("LeaseKeepAlive"),
        setting.server.streams("Watch"),
    );
    for registration in registrations {
        assert!(registration.state().is_live());
    }
}

/// What this process has used, by `/proc`, whose ticks are hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

criterion_group!(benches, fleet);
criterion_main!(benches);
