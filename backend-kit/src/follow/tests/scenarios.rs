//! One story each.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{
    Error, ErrorKind, Freshness, Incarnation, Registry, Snapshot, Status, Watch,
};
use tokio::time::{Instant, sleep, timeout};

use super::source::{Scripted, entry, service};
use crate::{Backend, Change, Departure, Interest, Skipped};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) async fn watched(ids: &[&str]) -> (Scripted, Backend<Scripted>, Watch) {
    let script = Scripted::new();
    for id in ids {
        script.source().put(entry(id, 100));
    }
    let backend = Backend::new(script.clone());
    let mut watch = backend.watch(&service()).await.unwrap();
    watch.next().await.unwrap();
    (script, backend, watch)
}

pub(super) fn ids(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .members()
        .iter()
        .map(|member| member.id().as_str())
        .collect()
}

pub(super) async fn next(watch: &mut Watch) -> Arc<Snapshot> {
    timeout(60 * SECOND, watch.next())
        .await
        .expect("a change within the bound")
        .unwrap()
}

async fn stays_quiet(watch: &mut Watch) {
    assert!(
        timeout(5 * SECOND, watch.next()).await.is_err(),
        "woken for nothing"
    );
}

pub(super) fn lost() -> Error {
    Error::new(ErrorKind::Unavailable, "scripted: connection lost")
}

#[tokio::test(start_paused = true)]
async fn the_present_set_comes_first_then_each_change_at_once() {
    let (script, _backend, mut watch) = watched(&["b", "a"]).await;
    assert_eq!(ids(&watch.latest().unwrap()), ["a", "b"]);
    sleep(SECOND).await;
    let at = Instant::now();
    script.source().put(entry("c", 100));
    assert_eq!(ids(&*next(&mut watch).await), ["a", "b", "c"]);
    assert_eq!(
        at.elapsed(),
        Duration::ZERO,
        "the first change after a quiet time"
    );
    script.source().remove("a", Departure::Graceful);
    assert_eq!(ids(&*next(&mut watch).await), ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn changes_in_quick_succession_are_gathered() {
    let (script, _backend, mut watch) = watched(&["a"]).await;
    let mut seen = 0;
    for weight in 0..1_000 {
        script.source().put(entry("a", weight));
        sleep(Duration::from_millis(1)).await;
        while timeout(Duration::ZERO, watch.next()).await.is_ok() {
            seen += 1;
        }
    }
    let most = SECOND.as_millis() / script.timings.coalesce.as_millis() + 2;
    assert!(seen <= most, "{seen} snapshots in a second");
    sleep(SECOND).await;
    assert_eq!(
        watch
            .latest()
            .unwrap()
            .get("a")
            .unwrap()
            .instance()
            .weight()
            .get(),
        999
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_the_last_good_set_and_says_that_it_is_stale() {
    let (script, _backend, mut watch) = watched(&["a", "b"]).await;
    for cause in [None, Some(lost())] {
        script.source().down = true;
        script.source().cut(cause);
        let stale = next(&mut watch).await;
        assert!(matches!(stale.freshness(), Freshness::Stale { .. }));
        assert_eq!(ids(&stale), ["a", "b"]);
        script.source().mute = true;
        script.source().remove("a", Departure::Graceful);
        script.source().put(entry("c", 100));
        sleep(600 * SECOND).await;
        stays_quiet(&mut watch).await;
        script.source().mute = false;
        script.source().down = false;
        let live = next(&mut watch).await;
        assert!(live.freshness().is_live());
        let changed = watch.wait_for(|s| ids(s) == ["b", "c"]).await.unwrap();
        assert!(changed.freshness().is_live());
        script.source().put(entry("a", 100));
        script.source().remove("c", Departure::Graceful);
        sleep(SECOND).await;
        watch.next().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_takes_its_time_is_waited_for_and_one_that_never_ends_is_not() {
    let mut script = Scripted::new();
    script.timings.list_timeout = 20 * script.timings.call_timeout;
    script.source().put(entry("a", 100));
    script.source().slow = 10 * script.timings.call_timeout;
    let backend = Backend::new(script.clone());
    let mut watch = backend.watch(&service()).await.unwrap();
    assert_eq!(ids(&*next(&mut watch).await), ["a"]);
    script.source().slow = 30 * script.timings.call_timeout;
    script.source().cut(None);
    sleep(600 * SECOND).await;
    let latest = watch.latest().unwrap();
    assert!(!latest.freshness().is_live());
    script.source().slow = Duration::ZERO;
    watch.wait_for(|s| s.freshness().is_live()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_down_is_asked_at_the_pace_of_the_backoff() {
    let script = Scripted::new();
    script.source().down = true;
    let backend = Backend::new(script.clone());
    let mut watch = backend.watch(&service()).await.unwrap();
    assert!(timeout(600 * SECOND, watch.next()).await.is_err() && watch.latest().is_none());
    let asked = script.source().subscriptions.len();
    assert!(
        (60..=250).contains(&asked),
        "{asked} subscriptions in ten minutes"
    );
    script.source().down = false;
    assert!(next(&mut watch).await.members().is_empty());
}

#[tokio::test(start_paused = true)]
async fn bad_credentials_are_tried_at_most_once_a_second() {
    let script = Scripted::new();
    script.source().refuses = Some(ErrorKind::PermissionDenied);
    let backend = Backend::new(script.clone());
    let mut watch = backend.watch(&service()).await.unwrap();
    assert!(timeout(3 * SECOND, watch.next()).await.is_err());
    let asked = script.source().subscriptions.len();
    assert!((2..=4).contains(&asked), "{asked} subscriptions in 3 s");
    script.source().refuses = None;
    assert!(next(&mut watch).await.members().is_empty());
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_as_soon_as_they_begin_make_no_busy_loop() {
    let (script, _backend, _watch) = watched(&["a"]).await;
    for _ in 0..60_000 {
        sleep(Duration::from_millis(1)).await;
        script.source().cut(None);
    }
    let asked = script.source().subscriptions.len();
    assert!(asked <= 60, "{asked} subscriptions in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_missed_shows_with_the_next_one() {
    let (script, _backend, mut watch) = watched(&["a"]).await;
    script.source().mute = true;
    script.source().put(entry("b", 100));
    script.source().mute = false;
    script.source().tell(Change::Progress);
    watch
        .wait_for(|snapshot| ids(snapshot) == ["a", "b"])
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_is_made_anew() {
    let (script, _backend, mut watch) = watched(&["a"]).await;
    script.source().mute = true;
    let at = Instant::now();
    script.source().put(entry("b", 100));
    watch
        .wait_for(|snapshot| ids(snapshot) == ["a", "b"])
        .await
        .unwrap();
    assert!(at.elapsed() <= script.timings.idle.unwrap() + SECOND);
}

#[tokio::test(start_paused = true)]
async fn load_is_one_store_and_wakes_nobody() {
    let (script, _backend, mut watch) = watched(&["a", "b"]).await;
    let before = watch.latest().unwrap();
    let (id, life) = (
        before.members()[0].id().clone(),
        before.members()[0].incarnation(),
    );
    for load in 1..=100 {
        script.source().tell(Change::Load {
            id: id.clone(),
            incarnation: life,
            load,
        });
    }
    let foreign = Incarnation::from_bits(12_345);
    script.source().tell(Change::Load {
        id,
        incarnation: foreign,
        load: 7,
    });
    stays_quiet(&mut watch).await;
    assert_eq!(before.members()[0].load().get(), Some(100));
    script.source().put(entry("a", 50));
    let after = next(&mut watch).await;
    assert!(Arc::ptr_eq(
        before.members()[0].load(),
        after.members()[0].load()
    ));
    assert_eq!(after.members()[0].incarnation(), life);
}

#[tokio::test(start_paused = true)]
async fn a_broken_entry_is_skipped_and_counted_and_harms_no_other() {
    let (script, _backend, mut watch) = watched(&["a", "b"]).await;
    let broken = |key: &str| Skipped::new(key, Error::new(ErrorKind::Corrupt, "scripted"));
    script.source().tell(Change::Skipped(broken("x")));
    let snapshot = next(&mut watch).await;
    assert_eq!((ids(&snapshot), snapshot.skipped()), (vec!["a", "b"], 1));
    script.source().tell(Change::Removed {
        key: "x".to_owned(),
        departure: Departure::Unannounced,
    });
    assert_eq!(next(&mut watch).await.skipped(), 0);
    script.source().skipped.push(broken("y"));
    script.source().cut(None);
    watch
        .wait_for(|s| s.freshness().is_live() && s.skipped() == 1)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn suspects_that_do_not_return_are_dropped_after_the_grace() {
    let (script, _backend, mut watch) = watched(&["a", "b"]).await;
    let at = Instant::now();
    script.source().remove("a", Departure::Unannounced);
    script.source().remove("b", Departure::Unannounced);
    let gone = watch.wait_for(|s| s.members().is_empty()).await.unwrap();
    assert!(gone.freshness().is_live());
    assert!(at.elapsed() >= script.timings.hold_down.grace);
    assert!(at.elapsed() <= script.timings.hold_down.grace + SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_left_while_nobody_watched_is_gone_at_once_if_the_registry_remembers() {
    let (script, _backend, mut watch) = watched(&["a", "b", "c"]).await;
    let at = Instant::now();
    {
        let mut source = script.source();
        source.mute = true;
        source.departed = vec![
            entry("a", 1).incarnation,
            // An earlier life of one whose present life was lost.
            Incarnation::from_bits(7),
        ];
        source.entries.clear();
        source.mute = false;
        source.cut(None);
    }
    let left = watch.wait_for(|s| s.get("a").is_none()).await.unwrap();
    assert_eq!(ids(&left), ["b", "c"], "those are held down");
    assert!(at.elapsed() < script.timings.hold_down.grace);
}

#[tokio::test(start_paused = true)]
async fn whoever_says_that_it_goes_is_believed_at_once_even_the_last() {
    let (script, _backend, mut watch) = watched(&["a", "b"]).await;
    script.source().remove("a", Departure::Graceful);
    let mut leaving = entry("b", 100);
    leaving.instance = leaving.instance.with_status(Status::Draining);
    script.source().put(leaving);
    script.source().remove("b", Departure::Unannounced);
    let at = Instant::now();
    watch.wait_for(|s| s.members().is_empty()).await.unwrap();
    assert!(at.elapsed() <= script.timings.coalesce);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_deregistered_goes_at_once() {
    let (script, _backend, mut watch) = watched(&["a"]).await;
    script.source().remove("a", Departure::Unannounced);
    watch
        .wait_for(|s| s.members().iter().any(|m| !m.standing().is_registered()))
        .await
        .unwrap();
    let departure = Departure::Graceful;
    script.source().tell(Change::Removed {
        key: "a".to_owned(),
        departure,
    });
    let at = Instant::now();
    watch.wait_for(|s| s.members().is_empty()).await.unwrap();
    assert!(at.elapsed() <= script.timings.coalesce);
}

#[tokio::test(start_paused = true)]
async fn all_watchers_of_a_service_share_one_subscription_and_the_last_one_ends_it() {
    let (script, backend, watch) = watched(&["a"]).await;
    let mut watches = vec![watch];
    for _ in 0..100 {
        let mut watch = backend.watch(&service()).await.unwrap();
        assert_eq!(ids(&*next(&mut watch).await), ["a"]);
        watches.push(watch.clone());
        watches.push(watch);
    }
    assert_eq!(script.source().followers(), 1);
    drop(backend);
    script.source().put(entry("b", 100));
    watches[0]
        .wait_for(|s| s.members().len() == 2)
        .await
        .unwrap();
    drop(watches);
    tokio::task::yield_now().await;
    assert_eq!(script.source().followers(), 0);
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn loads_are_asked_for_once_somebody_wants_them_and_nobody_else_is_woken() {
    let script = Scripted::new();
    script.source().put(entry("a", 100));
    let backend = Backend::new(script.clone());
    let mut members = backend.watch_members(&service()).await.unwrap();
    next(&mut members).await;
    assert_eq!(script.source().subscriptions, [Interest::Members]);
    let mut loads = backend.watch(&service()).await.unwrap();
    assert_eq!(ids(&*next(&mut loads).await), ["a"]);
    stays_quiet(&mut members).await;
    script.source().tell(Change::Progress);
    let asked = [Interest::Members, Interest::Loads];
    assert_eq!(script.source().subscriptions, asked);
    assert_eq!(script.source().followers(), 1, "in place of the first");
    // Whoever comes later is served by the richer one.
    let mut later = backend.watch_members(&service()).await.unwrap();
    next(&mut later).await;
    stays_quiet(&mut later).await;
    assert_eq!(script.source().subscriptions, asked);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_subscriptions_come_and_go_without_a_trace() {
    let script = Scripted::new();
    let backend = Backend::new(script.clone());
    for round in 0..10_000 {
        let watch = backend.watch(&service()).await.unwrap();
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        drop(watch);
    }
    tokio::task::yield_now().await;
    assert_eq!(script.source().followers(), 0);
    assert_eq!(
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_being_gathered_when_loads_were_asked_for_is_shown_all_the_same() {
    let script = Scripted::new();
    script.source().put(entry("a", 100));
    let backend = Backend::new(script.clone());
    let mut members = backend.watch_members(&service()).await.unwrap();
    next(&mut members).await;
    // So soon after the first snapshot that it waits for others to come.
    script.source().put(entry("b", 100));
    sleep(script.timings.coalesce / 2).await;
    assert_eq!(ids(&members.latest().unwrap()), ["a"]);
    let at = Instant::now();
    let _loads = backend.watch(&service()).await.unwrap();
    assert_eq!(ids(&*next(&mut members).await), ["a", "b"]);
    assert!(at.elapsed() <= script.timings.coalesce);
}

#[test]
fn a_watch_ends_with_its_own_runtime_and_with_no_other() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let (one, other) = (runtime(), runtime());
    let (script, backend, mut ending) = one.block_on(watched(&["a"]));
    let mut staying = other.block_on(async { backend.watch(&service()).await.unwrap() });
    other.block_on(next(&mut staying));
    drop(one);
    let last = ending.latest().unwrap();
    assert!(!last.freshness().is_live() && last.cause().is_some());
    assert_eq!(ending.last_error().unwrap().kind(), ErrorKind::Closed);
    other.block_on(async {
        assert!(ending.next().await.is_some(), "the stale one");
        assert!(ending.next().await.is_none(), "the end");
        script.source().put(entry("b", 100));
        assert_eq!(ids(&*next(&mut staying).await), ["a", "b"]);
        assert!(staying.last_error().is_none());
    });
}
