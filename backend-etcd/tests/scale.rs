//! What many cost.

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{Registry, Snapshot};
use plimsoll_test_servers::etcd::Server;
use plimsoll_test_servers::probe::{eventually, life, ready};
use tokio::time::sleep;

use support::harness::{TTL, builder, timed};
use support::stage::{live_many, service};

const MANY: usize = 1_000;

fault! {
    /// The keepalive of one lease, at most two a second however many ask for it; a question now and
    /// then whether the stream that watches the own keys still lives; and no request besides.
    async fn a_thousand_idle_registrations_cost_one_lease_two_streams_and_three_messages_a_second(stage: Stage) {
        let mut costs = Vec::new();
        for count in [1, MANY] {
            let provider = builder(stage.server.address())
                // A claim that a busy machine makes late is in doubt, and looked after for a while.
                .with_connect_timeout(Duration::from_secs(10))
                .with_request_timeout(Duration::from_secs(10))
                .with_timings(|timings| timings.load.max_age = Duration::from_secs(3_600))
                .build()
                .unwrap();
            let registrations = live_many(&provider, count).await;
            let lives: Vec<_> = registrations.iter().map(life).collect();
            eventually("the two streams", || async {
                let streams = (stage.server.streams("LeaseKeepAlive"), stage.server.streams("Watch"));
                (streams == (1.0, 1.0)).then_some(())
            })
            .await;
            // What registering has left to do, such as what was in doubt, comes to its end.
            let cost = eventually("a quiet time", || async {
                let (requests, messages) = (unary(&stage.server), messages(&stage.server));
                sleep(TTL).await;
                (unary(&stage.server) == requests).then(|| self::messages(&stage.server) - messages)
            })
            .await;
            assert!(registrations.iter().map(life).eq(lives));
            eprintln!("{count} idle: {cost} messages in {TTL:?}");
            costs.push(cost);
            for registration in &registrations {
                registration.deregister().await.unwrap();
            }
            drop((provider, registrations));
            eventually("no stream", || async {
                (stage.server.streams("LeaseKeepAlive") == 0.0).then_some(())
            })
            .await;
        }
        // In the time of a lease it is renewed three times by one, and eight times by many.
        let [one, many] = costs[..] else { unreachable!() };
        assert!((3.0..=8.0).contains(&one) && (3.0..=13.0).contains(&many), "{costs:?}");
    }
}

/// Requests that are no streams; the operator's own are none, as it asks nothing meanwhile.
fn unary(server: &Server) -> f64 {
    [
        "Range",
        "Txn",
        "Put",
        "LeaseGrant",
        "LeaseTimeToLive",
        "Status",
    ]
    .map(|method| server.calls(method))
    .iter()
    .sum()
}

fn messages(server: &Server) -> f64 {
    server.metric("grpc_server_msg_received_total")
}

fault! {
    /// A thousand processes, as far as the server can tell: each has a connection of its own.
    async fn a_thousand_handles_list_once_each_when_a_server_is_back(stage: Stage) {
        // Who starves beside a thousand others in one process may not renew a short lease.
        let provider = builder(stage.proxy.address()).with_lease_ttl(Duration::from_secs(60));
        let provider = provider.build().unwrap();
        let registrations = live_many(&provider, 20).await;
        let lives: Vec<_> = registrations.iter().map(life).collect();
        let whole = |s: &Snapshot| {
            s.freshness().is_live() && s.members().len() == 20
                && s.members().iter().all(|m| m.standing().is_registered())
        };
        let mut watches = Vec::new();
        for _ in 0..MANY {
            let hosts = [stage.server.address().to_string()];
            // Short waits are for tests of one; here each takes its turn.
            let registry = timed(EtcdRegistry::builder(hosts))
                .with_connect_timeout(Duration::from_secs(5))
                .with_request_timeout(Duration::from_secs(5))
                .with_watch_timeout(Duration::from_secs(10))
                .build()
                .unwrap();
            watches.push(registry.watch(&service()).await.unwrap());
        }
        for watch in &watches {
            eventually("everybody", || async { watch.latest().filter(|s| whole(s)).map(drop) }).await;
        }
        let before = stage.server.calls("Range");
        assert!(before >= MANY as f64 * 2.0, "{before} reads of {MANY} handles");
        stage.blocking(|server| server.restart());
        // It has counted from nothing since it started.
        let (back, mut peak, mut last) = (Instant::now(), 0.0_f64, stage.server.calls("Range"));
        let step = Duration::from_millis(500);
        let mut missing = watches.iter().collect::<Vec<_>>();
        while !missing.is_empty() {
            assert!(back.elapsed() < Duration::from_secs(60), "{} are not back", missing.len());
            sleep(step).await;
            missing.retain(|watch| !watch.latest().is_some_and(|s| whole(&s)));
            let now = stage.server.calls("Range");
            peak = peak.max((now - last) / step.as_secs_f64());
            last = now;
        }
        let (took, reads) = (back.elapsed(), stage.server.calls("Range"));
        eprintln!("{MANY} handles were back after {took:?}, by {reads} reads, {peak} a second at most");
        // Each list is two reads, of identities and of loads; some are interrupted on a busy machine.
        assert!(reads <= MANY as f64 * 3.0, "{reads} reads of {MANY} handles");
        for registration in &registrations {
            ready(registration).await;
        }
        assert!(registrations.iter().map(life).eq(lives), "none had to begin anew");
    }
}
