//! What a list costs: of instances of 400 bytes and their loads, beside the same pages of keys and
//! values read with the client library alone, and not understood.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use etcd_client::{Client, GetOptions};
use plimsoll_discovery_api::Registry;
use std::time::Instant;

use support::{PREFIX, Setting};

const PAGE: i64 = 1_000;

fn list(c: &mut Criterion) {
    let mut group = c.benchmark_group("list");
    group.sample_size(10);
    for count in [100, 1_000, 10_000] {
        let Some(setting) = Setting::new() else {
            return;
        };
        setting.runtime.block_on(setting.fill(count));
        group.bench_function(format!("{count}/bare"), |b| {
            b.iter_custom(|iterations| {
                setting.runtime.block_on(async {
                    let started = Instant::now();
                    for _ in 0..iterations {
                        let mut client = setting.bare.clone();
                        let (identities, revision) = pages(&mut client, "services", 0).await;
                        let (loads, _) = pages(&mut client, "load", revision).await;
                        assert_eq!((identities, loads), (count, count));
                    }
                    started.elapsed()
                })
            });
        });
        let registry = setting.registry();
        group.bench_function(format!("{count}/plimsoll"), |b| {
            b.iter_custom(|iterations| {
                setting.runtime.block_on(async {
                    let started = Instant::now();
                    for _ in 0..iterations {
                        let listed = registry.list(&setting.service).await.expect("a list");
                        assert_eq!(listed.members().len(), count);
                    }
                    started.elapsed()
                })
            });
        });
    }
}

/// How many keys there are, and the revision they were read at.
async fn pages(client: &mut Client, branch: &str, revision: i64) -> (usize, i64) {
    let prefix = format!("{PREFIX}/{branch}/orders/");
    let end = format!("{PREFIX}/{branch}/orders0");
    let (mut from, mut revision, mut count) = (prefix.into_bytes(), revision, 0);
    loop {
        let mut options = GetOptions::new().with_range(end.as_str()).with_limit(PAGE);
        if revision != 0 {
            options = options.with_revision(revision);
        }
        let answer = client.get(from, Some(options)).await.expect("a page");
        revision = answer.header().expect("a header").revision();
        count += answer.kvs().len();
        match answer.kvs().last() {
            Some(last) if answer.more() => {
                from = last.key().to_vec();
                from.push(0);
            }
            _ => return (count, revision),
        }
    }
}

criterion_group!(benches, list);
criterion_main!(benches);
