//! Thousands of registrations at once.

mod support;

use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_test_servers::Burst;
use plimsoll_test_servers::probe::PATIENCE;

use support::operator::{PREFIX, identity, load, record};
use support::stage::{Stage, instance, service};

/// A handle as users have it.
fn handle(stage: &Stage) -> EtcdRegistry {
    let hosts = [stage.server.address().to_string()];
    let builder = EtcdRegistry::builder(hosts).with_prefix(PREFIX);
    builder.build().expect("good settings")
}

/// What the bare client takes for as many records under one lease, all asked for at once.
async fn bare(stage: &Stage, count: usize) -> Duration {
    let mut client = etcd_client::Client::connect([stage.server.address().to_string()], None)
        .await
        .expect("the server is up");
    let lease = client.lease_grant(600, None).await.expect("a lease").id();
    let began = Instant::now();
    let writes = (0..count).map(|number| {
        let id = format!("b{number}");
        let (key, load) = (identity(&service(), &id), load(&service(), &id));
        let put = || Some(PutOptions::new().with_lease(lease));
        let txn = Txn::new()
            .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([
                TxnOp::put(key, record(&id, number), put()),
                TxnOp::put(load, "0", put()),
            ]);
        let mut kv = client.kv_client();
        tokio::spawn(async move { kv.txn(txn).await.expect("an answer").succeeded() })
    });
    for write in writes.collect::<Vec<_>>() {
        assert!(write.await.expect("a task"));
    }
    let took = began.elapsed();
    client.lease_revoke(lease).await.expect("to revoke");
    took
}

fault! {
    /// The lease is the usual one, of 10 s, and the server writes to disk before it answers.
    async fn two_thousand_registrations_at_once_are_live_within_a_lease_and_none_is_lost(stage: Stage, "--unsafe-no-fsync=false") {
        let registry = handle(&stage);
        let instances = (0..2_000).map(|n| instance(&format!("m{n}")));
        let mut burst = Burst::of(&registry, instances).await;
        let live = burst.until_live(Duration::from_secs(10)).await;
        burst.during(Duration::from_secs(4)).await;
        eprintln!("{burst}");
        assert!(live.is_some() && burst.losses() == 0, "{burst}");
    }
}

fault! {
    async fn a_server_slowed_to_a_twentieth_takes_one_after_the_other_and_loses_none(stage: Stage, "--unsafe-no-fsync=false") {
        let registry = handle(&stage);
        let slowed = stage.server.slowed();
        let instances = (0..300).map(|n| instance(&format!("m{n}")));
        let mut burst = Burst::of(&registry, instances).await;
        let live = burst.until_live(PATIENCE * 2).await;
        burst.during(Duration::from_secs(4)).await;
        drop(slowed);
        eprintln!("{burst}");
        assert!(live.is_some() && burst.losses() == 0, "{burst}");
        assert!(burst.longest_pause() < Duration::from_secs(10), "{burst}");
    }
}

fault! {
    #[ignore = "measures, for minutes; see benches/README.md"]
    async fn measure_bursts_beside_the_bare_client(stage: Stage, "--unsafe-no-fsync=false") {
        for count in counts(&[1_000, 2_000, 5_000, 10_000]) {
            for _ in 0..3 {
                let bare = bare(&stage, count).await;
                let registry = handle(&stage);
                let ids = (0..count).map(|n| instance(&format!("m{n}")));
                let mut burst = Burst::of(&registry, ids).await;
                let took = burst.until_live(Duration::from_secs(60)).await;
                let ratio = took.map(|took| took.div_duration_f64(bare));
                eprintln!("{count}: bare {bare:.2?}; ratio {ratio:.2?}; {burst}");
                drop((burst, registry));
                eventually_empty(&stage).await;
            }
        }
    }
}

fault! {
    #[ignore = "measures, for minutes; see benches/README.md"]
    async fn measure_bursts_at_a_slowed_server(stage: Stage, "--unsafe-no-fsync=false") {
        for count in counts(&[2_000, 5_000]) {
            for _ in 0..2 {
                let registry = handle(&stage);
                let slowed = stage.server.slowed();
                let ids = (0..count).map(|n| instance(&format!("m{n}")));
                let mut burst = Burst::of(&registry, ids).await;
                burst.until_live(Duration::from_secs(90)).await;
                eprintln!("{count}, slowed: {burst}");
                drop(slowed);
                burst.until_live(Duration::from_secs(150)).await;
                eprintln!("{count}, and afterwards: {burst}");
                drop((burst, registry));
                eventually_empty(&stage).await;
            }
        }
    }
}

fault! {
    #[ignore = "measures, for minutes; see benches/README.md"]
    async fn measure_two_hundred_handles_after_a_wiped_restart(stage: Stage, "--unsafe-no-fsync=false") {
        let handles: Vec<_> = (0..200).map(|_| handle(&stage)).collect();
        let mut bursts = Vec::new();
        for (number, registry) in handles.iter().enumerate() {
            let ids = (0..20).map(|n| instance(&format!("h{number}-{n}")));
            bursts.push(Burst::of(registry, ids).await);
        }
        for burst in &mut bursts {
            burst.until_live(Duration::from_secs(60)).await.expect("all of them live");
        }
        stage.blocking(|server| server.restart_empty());
        let back = Instant::now();
        let mut live = 0;
        while live < 4_000 && back.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            live = bursts.iter_mut().map(Burst::look).sum();
            let standing = stage.operator.records().await.len();
            if standing < 8_000 {
                live = 0;
            }
        }
        eprintln!("200 handles of 20: {live} live after {:.2?}", back.elapsed());
    }
}

fn counts(usual: &[usize]) -> Vec<usize> {
    let chosen = std::env::var("PLIMSOLL_MEASURE_COUNTS").unwrap_or_default();
    let chosen: Vec<_> = chosen.split(',').filter_map(|n| n.parse().ok()).collect();
    if chosen.is_empty() {
        usual.to_vec()
    } else {
        chosen
    }
}

/// What a handle leaves is gone when its lease is revoked.
async fn eventually_empty(stage: &Stage) {
    let began = Instant::now();
    while !stage.operator.records().await.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "records stay");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
