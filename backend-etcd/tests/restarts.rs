//! Servers that are killed, stopped, paused, or come back with nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{RegistrationState, Snapshot, Standing};
use plimsoll_test_servers::probe::{
    PATIENCE, eventually, ids, life, load_of, new_life, ready, shown, state,
};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use support::harness::{TTL, builder};
use support::operator::Operator;
use support::stage::{Stage, live};

fault! {
    /// etcd gives every lease its full time again when it starts: there is nothing to register.
    async fn a_killed_server_that_returns_with_its_data_finds_everybody_as_they_were(stage: Stage) {
        let registration = stage.live("a").await;
        let (before, life_before) = (stage.key("a").await.unwrap(), life(&registration));
        let lease = stage.provider.lease_id();
        stage.blocking(|server| server.restart());
        stage.operator = Operator::new(stage.server.address()).await;
        // Past the time at which a lease that nobody kept would be gone.
        let until = Instant::now() + TTL + TTL;
        while Instant::now() < until {
            let kv = stage.key("a").await.expect("the key never goes");
            assert_eq!((kv.create_revision(), kv.lease()), (before.create_revision(), before.lease()));
            sleep(Duration::from_millis(100)).await;
        }
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!((life(&registration), stage.provider.lease_id()), (life_before, lease));
        assert_eq!(stage.operator.leases().await, [before.lease()]);
    }
}

fault! {
    /// The owner has given its record up for lost; the server, which did not run, has not.
    async fn a_server_down_for_longer_than_the_lease_finds_everybody_as_they_were(stage: Stage) {
        let registration = stage.live("a").await;
        let (before, life_before) = (stage.key("a").await.unwrap(), life(&registration));
        stage.blocking(|server| server.kill());
        state(&registration, "Lost", |s| matches!(s, RegistrationState::Lost { .. })).await;
        sleep(TTL).await;
        stage.blocking(|server| server.restart());
        stage.operator = Operator::new(stage.server.address()).await;
        state(&registration, "Live", RegistrationState::is_live).await;
        assert_eq!(life(&registration), life_before);
        let kv = stage.key("a").await.expect("the key never went");
        assert_eq!((kv.create_revision(), kv.lease()), (before.create_revision(), before.lease()));
    }
}

fault! {
    async fn a_wiped_server_is_filled_again_and_nobody_sees_an_empty_list(stage: Stage) {
        let registrations = stage.live_many(8).await;
        let mut watch = stage.watch().await;
        shown(&mut watch, "all", |s| s.members().len() == 8).await;
        let (epoch, lives) = (watch.latest().unwrap().revision().epoch(), registrations.iter().map(life).collect::<Vec<_>>());
        let empty = NeverEmpty::watch(&stage).await;
        stage.blocking(|server| server.restart_empty());
        for (registration, before) in registrations.iter().zip(lives) {
            state(registration, "Live anew", |s| s.is_live() && s.incarnation() != Some(before)).await;
        }
        shown(&mut watch, "all registered again, in another history", |s| {
            s.members().len() == 8 && s.revision().epoch() != epoch && s.freshness().is_live()
                && s.members().iter().all(|m| m.standing().is_registered())
        })
        .await;
        empty.assert();
    }
}

/// So many processes, as far as the server can tell: each has a connection and a lease of its own.
const HANDLES: usize = 40;
/// The window over which leases that ended together come back, where nothing else is shorter.
const WINDOW: Duration = Duration::from_millis(1_333);

fault! {
    /// Every lease ends at one moment, as the server runs again, and clients must not notice.
    async fn a_pause_longer_than_the_lease_brings_all_back_spread_over_a_window_and_nobody_sees_an_empty_list(stage: Stage) {
        let (mut handles, mut registrations) = (Vec::new(), Vec::new());
        for number in 0..HANDLES {
            let handle = builder(stage.server.address())
                .with_connect_timeout(TTL)
                .with_request_timeout(TTL)
                .with_timings(|timings| timings.backoff.cap = TTL)
                .build()
                .unwrap();
            for part in ["a", "b"] {
                registrations.push(live(&handle, &format!("{part}{number}")).await);
            }
            handles.push(handle);
        }
        let leases = |handles: &[EtcdRegistry]| {
            let leases = handles.iter().filter_map(EtcdRegistry::lease_id);
            leases.collect::<BTreeSet<_>>()
        };
        let (before, lives) = (leases(&handles), registrations.iter().map(life).collect::<Vec<_>>());
        let mut watch = stage.watch().await;
        shown(&mut watch, "all", |s| s.members().len() == 2 * HANDLES).await;
        let empty = NeverEmpty::watch(&stage).await;
        stage.server.pause();
        sleep(TTL + TTL / 2).await;
        let mut back = JoinSet::new();
        for (registration, former) in registrations.into_iter().zip(lives) {
            back.spawn(async move {
                new_life(&registration, &[former]).await;
                (Instant::now(), registration)
            });
        }
        stage.server.resume();
        let resumed = Instant::now();
        let (mut times, mut registrations) = (Vec::new(), Vec::new());
        for (time, registration) in back.join_all().await {
            times.push(time - resumed);
            registration.load().set(7);
            registrations.push(registration);
        }
        times.sort();
        eprintln!("back {:?} to {:?} after the end of the pause", times[0], times[2 * HANDLES - 1]);
        // Of 40 moments that are drawn from the whole window, all are within one half of it once in 10^10.
        assert!(times[2 * HANDLES - 1] - times[0] > WINDOW / 2, "{times:?}");
        shown(&mut watch, "all", |s| {
            s.freshness().is_live() && s.members().len() == 2 * HANDLES
                && s.members().iter().all(|m| m.standing() == Standing::Registered && m.load().get() == Some(7))
        })
        .await;
        empty.assert();
        let present = leases(&handles);
        assert!(present.len() == HANDLES && present.is_disjoint(&before), "{before:?} {present:?}");
        eventually("no lease but theirs", || async {
            let leases = stage.operator.leases().await;
            (leases.into_iter().collect::<BTreeSet<_>>() == present).then_some(())
        })
        .await;
    }
}

fault! {
    async fn a_server_that_stops_cleanly_is_waited_for(stage: Stage) {
        let registration = stage.live("a").await;
        let mut watch = stage.watch().await;
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        stage.blocking(|server| server.stop());
        registration.load().set(5);
        shown(&mut watch, "the member, stale", |s| ids(s) == ["a"] && !s.freshness().is_live()).await;
        stage.blocking(|server| server.restart());
        let live = |s: &Snapshot| s.freshness().is_live() && load_of(s, "a") == Some(5);
        shown(&mut watch, "the member, live, with its load", live).await;
        ready(&registration).await;
    }
}

/// A watcher that counts how often it is shown nobody.
struct NeverEmpty {
    empty: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl NeverEmpty {
    async fn watch(stage: &Stage) -> Self {
        let mut watch = stage.watch().await;
        let first = timeout(PATIENCE, watch.next()).await;
        assert!(!first.unwrap().unwrap().members().is_empty());
        let empty = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&empty);
        let task = tokio::spawn(async move {
            while let Some(snapshot) = watch.next().await {
                if snapshot.members().is_empty() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { empty, task }
    }

    fn assert(self) {
        self.task.abort();
        assert_eq!(
            self.empty.load(Ordering::Relaxed),
            0,
            "an empty list was shown"
        );
    }
}
