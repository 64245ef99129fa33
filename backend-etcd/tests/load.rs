//! Loads in great number.

mod support;

use std::time::{Duration, Instant};

use plimsoll_discovery_api::RegistrationState;
use plimsoll_test_servers::Mode;
use plimsoll_test_servers::probe::{eventually, life, load_of};
use tokio::task::JoinSet;
use tokio::time::sleep;

use support::harness::{TTL, builder};
use support::operator::load;
use support::stage::live_many;

fault! {
    /// Some thousand connections a second that come and go: no more writes than one in 50 ms, each
    /// of which is one request, and in the end the exact count.
    async fn a_storm_of_connections_is_one_request_per_interval_and_none_is_wasted(stage: Stage) {
        let registration = stage.live("a").await;
        // Which is opened with a request.
        eventually("the stream that watches own keys", || async {
            (stage.server.streams("Watch") == 1.0).then_some(())
        })
        .await;
        let key = load(&stage.service, "a");
        let version = || async { stage.operator.get(&key).await.unwrap().version() };
        let (before, asked, began) = (version().await, stage.server.calls("Txn"), Instant::now());
        let handle = registration.load();
        let (mut open, mut opened) = (Vec::new(), 0);
        while began.elapsed() < Duration::from_secs(8) {
            for _ in 0..20 {
                open.push(handle.acquire());
                opened += 1;
            }
            sleep(Duration::from_millis(5)).await;
            open.drain(..open.len() - 3);
        }
        stage.listed("the exact count", |s| load_of(s, "a") == Some(3)).await;
        let most = began.elapsed().as_millis() / 50 + 2;
        let writes = version().await - before;
        assert!(opened > 2_000, "{opened} connections make no storm");
        assert!(writes > 20 && u128::from(writes.unsigned_abs()) <= most, "{writes} writes, {most} allowed");
        let asked = stage.server.calls("Txn") - asked;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let wasted = asked - writes as f64;
        // One may be on its way between the two counts.
        assert!(wasted.abs() <= 1.0, "{asked} requests for {writes} writes");
    }
}

fault! {
    /// Many times as many as the way to the server takes, by the connection that keeps the lease too.
    async fn loads_beyond_what_the_server_takes_cost_no_life(stage: Stage) {
        let provider = builder(stage.proxy.address())
            // Longer than a busy machine takes for anything, and shorter than this lasts.
            .with_lease_ttl(TTL * 2)
            .with_timings(|timings| {
                timings.load.min_interval = Duration::ZERO;
                timings.load.settle = Duration::ZERO;
            })
            .build()
            .unwrap();
        let registrations = live_many(&provider, 300).await;
        let (lives, lease) = (registrations.iter().map(life).collect::<Vec<_>>(), provider.lease_id());
        // So that what keeps the lease must queue behind loads: some 300 kB a second.
        stage.proxy.set(Mode::Delay(Duration::from_millis(50)));
        let mut lost = JoinSet::new();
        for registration in &registrations {
            let mut states = registration.states();
            let is_lost = |s: &RegistrationState| matches!(s, RegistrationState::Lost { .. });
            lost.spawn(async move { states.wait_for(is_lost).await });
        }
        let (asked, began) = (stage.server.calls("Txn"), Instant::now());
        let mut value = 0;
        while began.elapsed() < TTL * 3 {
            value += 1;
            for registration in &registrations {
                registration.load().set(value);
            }
            sleep(Duration::from_millis(2)).await;
        }
        let written = stage.server.calls("Txn") - asked;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let wanted = (value * 300) as f64;
        eprintln!("{written} of {wanted} loads were written in {:?}", began.elapsed());
        assert!(wanted > written * 5.0, "{wanted} loads are no flood where {written} are written");
        // Nor was any of them unconfirmed for the time of a lease.
        assert!(lost.try_join_next().is_none());
        assert_eq!(registrations.iter().map(life).collect::<Vec<_>>(), lives);
        assert_eq!(provider.lease_id(), lease);
        stage.listed("the last load of all", |s| {
            s.members().len() == 300 && s.members().iter().all(|m| m.load().get() == Some(value))
        })
        .await;
    }
}
