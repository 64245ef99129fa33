//! What holds with many, and with much at once.

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::Registry;
use plimsoll_test_servers::probe::{PATIENCE, eventually, life, ready};
use tokio::time::{sleep, timeout};
use zookeeper_client::{Acls, CreateMode};

use support::bench::{Bench, fault, monitored, transactions};
use support::harness::{ROOT, SESSION, builder, identity, load, tickets};

fault! {
    /// 10,000 connections a second that come and go: no more writes than the interval of 50 ms
    /// allows, and in the end the exact count.
    async fn a_storm_of_connections_writes_no_more_than_the_interval_allows(bench: Bench) {
        let registration = bench.live("a").await;
        let path = load(&bench.service, "a");
        let version = || async { bench.operator.check_stat(&path).await.unwrap().unwrap().version };
        let (before, started) = (version().await, Instant::now());
        let handle = registration.load();
        let mut open = Vec::new();
        while started.elapsed() < Duration::from_secs(10) {
            for _ in 0..100 {
                open.push(handle.acquire());
            }
            sleep(Duration::from_millis(10)).await;
            open.drain(..open.len().saturating_sub(3));
        }
        bench.listed("the exact count", |s| s.get("a").and_then(|m| m.load().get()) == Some(3)).await;
        let writes = u128::try_from(version().await - before).unwrap();
        let most = started.elapsed().as_millis() / 50 + 2;
        // Some were, however busy the machine is.
        assert!(writes > 10 && writes <= most, "{writes} writes, {most} allowed");
    }
}

fault! {
    async fn an_idle_fleet_writes_nothing(bench: Bench) {
        const FLEET: usize = 1_000;
        let provider = ZkRegistry::builder([bench.server.address().to_string()])
            .with_root(ROOT)
            .with_session_timeout(SESSION)
            .build()
            .unwrap();
        let mut fleet = Vec::new();
        for index in 0..FLEET {
            fleet.push(provider.register(bench.instance(&format!("i{index:03}"))).await.unwrap());
        }
        for registration in &fleet {
            ready(registration).await;
        }
        // A registration that was in doubt, as on a busy machine, is written again for half a minute.
        let seconds = 5;
        let deadline = Instant::now() + Duration::from_secs(50);
        let packets = loop {
            let (before, packets) = (transactions(&bench.server), monitored(&bench.server, "zk_packets_received"));
            sleep(Duration::from_secs(seconds)).await;
            let after = transactions(&bench.server);
            if before == after {
                break packets;
            }
            assert!(Instant::now() < deadline, "an idle fleet writes: {before}, {after}");
        };
        // Each is confirmed once in a third of the session's timeout, which is one read.
        let packets = monitored(&bench.server, "zk_packets_received") - packets;
        let most = i64::try_from(FLEET as u64 * seconds * 4 / SESSION.as_secs()).unwrap();
        assert!(packets > 0 && packets < most, "{packets} packets, {most} allowed");
    }
}

fault! {
    async fn ten_thousand_instances_are_listed_and_watched(bench: Bench) {
        const MANY: usize = 10_000;
        let _first = bench.live("first").await;
        let consumer = builder(bench.server.address())
            .with_timings(|timings| (timings.call_timeout, timings.list_timeout) = (PATIENCE, PATIENCE))
            .build()
            .unwrap();
        let watch = consumer.watch(&bench.service).await.unwrap();
        let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        let node = |id: &str| format!(r#"{{"name":"orders","id":"{id}","address":"10.0.0.1","port":80}}"#);
        for batch in 0..MANY / 500 {
            let mut writer = bench.operator.new_multi_writer();
            for index in 0..500 {
                let id = format!("i{:05}", batch * 500 + index);
                writer.add_create(&identity(&bench.service, &id), node(&id).as_bytes(), &options).unwrap();
            }
            writer.commit().await.unwrap();
        }
        let started = Instant::now();
        let all = timeout(PATIENCE, consumer.list(&bench.service)).await.unwrap().unwrap();
        println!("listed {MANY} in {:?}", started.elapsed());
        assert_eq!((all.members().len(), all.skipped()), (MANY + 1, 0));
        eventually("all of them in the watch", || async {
            watch.latest().filter(|snapshot| snapshot.members().len() == MANY + 1).map(drop)
        })
        .await;
        // One of many is followed as if it were alone.
        bench.operator.delete(&identity(&bench.service, "i00042"), None).await.unwrap();
        eventually("one less", || async {
            watch.latest().filter(|snapshot| snapshot.members().len() == MANY).map(drop)
        })
        .await;
    }
}

fault! {
    /// Nobody writes a load but its owner, who knows what it wrote last: no write is made twice. Of
    /// those that fail a server keeps count as of those that succeed.
    async fn sixteen_writers_side_by_side_never_conflict(bench: Bench) {
        const WRITERS: u64 = 16;
        const WRITES: i32 = 50;
        let mut handles = Vec::new();
        for index in 0..WRITERS {
            // A load is written when the test says so, and at no other time; and no delay of a busy
            // machine is taken for the end of a connection.
            let registry = ZkRegistry::builder([bench.server.address().to_string()])
                .with_root(ROOT)
                .with_session_timeout(Duration::from_secs(50))
                .with_timings(|timings| {
                    timings.load.min_interval = Duration::from_secs(600);
                    timings.load.max_age = Duration::from_secs(600);
                })
                .build()
                .unwrap();
            let registration = registry.register(bench.instance(&format!("i{index:02}"))).await.unwrap();
            ready(&registration).await;
            handles.push((registration, registry));
        }
        let before = transactions(&bench.server);
        let writers: Vec<_> = handles.iter().map(|(registration, _)| {
            let load = registration.load();
            tokio::spawn(async move {
                for value in 1..=WRITES.unsigned_abs() {
                    load.set(value.into());
                    load.flush().await.unwrap();
                }
            })
        }).collect();
        for writer in writers {
            timeout(PATIENCE, writer).await.unwrap().unwrap();
        }
        assert_eq!(transactions(&bench.server) - before, WRITERS * u64::from(WRITES.unsigned_abs()));
        for index in 0..WRITERS {
            let path = load(&bench.service, &format!("i{index:02}"));
            let (value, stat) = bench.operator.get_data(&path).await.unwrap();
            assert_eq!((value, stat.version), (WRITES.to_string().into_bytes(), WRITES));
        }
    }
}

fault! {
    /// As many as the server takes, by the connection that keeps the session too.
    async fn loads_beyond_what_the_server_takes_cost_no_life(bench: Bench) {
        const MANY: usize = 300;
        let provider = builder(bench.proxy.address())
            .with_timings(|timings| {
                timings.load.min_interval = Duration::from_millis(1);
                timings.load.settle = Duration::from_millis(1);
            })
            .build()
            .unwrap();
        let mut fleet = Vec::new();
        for index in 0..MANY {
            fleet.push(provider.register(bench.instance(&format!("i{index:03}"))).await.unwrap());
        }
        for registration in &fleet {
            ready(registration).await;
        }
        let lives: Vec<_> = fleet.iter().map(life).collect();
        let session = tickets(&bench.proxy).len();
        let (before, began, mut value) = (transactions(&bench.server), Instant::now(), 0);
        while began.elapsed() < 3 * SESSION {
            value += 1;
            for registration in &fleet {
                registration.load().set(value);
            }
            sleep(Duration::from_millis(2)).await;
        }
        let written = transactions(&bench.server) - before;
        let rate = Duration::from_secs(written).div_duration_f64(began.elapsed());
        println!("{rate:.0} loads a second were written");
        assert!(rate > 500.0, "{rate:.0} a second is no flood");
        assert_eq!(fleet.iter().map(life).collect::<Vec<_>>(), lives);
        assert_eq!(tickets(&bench.proxy).len(), session, "no connection was given up");
        bench.listed("the last load of all", |s| {
            s.members().len() == MANY && s.members().iter().all(|m| m.load().get() == Some(value))
        })
        .await;
    }
}
