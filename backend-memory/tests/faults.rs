//! Each fault that can be injected does what it says, and is survived.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use plimsoll_backend_memory::MemoryRegistry;
use plimsoll_discovery_api::{
    ErrorKind, Instance, Registration, RegistrationState, Registry, ServiceName, Watch,
};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn service() -> ServiceName {
    ServiceName::new("s").unwrap()
}

fn instance(id: &str) -> Instance {
    Instance::builder("s", "10.0.0.1", 80)
        .with_id(id)
        .build()
        .unwrap()
}

async fn registered(registry: &MemoryRegistry, id: &str) -> Registration {
    let registration = registry.register(instance(id)).await.unwrap();
    registration.ready().await.unwrap();
    registration
}

async fn watching(registry: &MemoryRegistry) -> Watch {
    let mut watch = registry.watch(&service()).await.unwrap();
    watch.next().await.unwrap();
    watch
}

async fn sees(watch: &mut Watch, ids: &[&str]) -> Duration {
    let start = Instant::now();
    let shown = watch.wait_for(|snapshot| {
        snapshot
            .members()
            .iter()
            .map(|member| member.id().as_str())
            .eq(ids.iter().copied())
    });
    timeout(60 * SECOND, shown)
        .await
        .expect("seen within a minute")
        .unwrap();
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn dropped_events_are_noticed_by_the_next_word_of_progress() {
    let registry = MemoryRegistry::new();
    let mut watch = watching(&registry).await;
    registry.faults().drop_events(1);
    let _a = registered(&registry, "a").await;
    assert!(sees(&mut watch, &["a"]).await <= 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn delayed_events_arrive_late_and_in_order() {
    let registry = MemoryRegistry::new();
    let mut watch = watching(&registry).await;
    registry.faults().delay_events(5 * SECOND);
    let a = registered(&registry, "a").await;
    let _b = registered(&registry, "b").await;
    a.deregister().await.unwrap();
    assert!(timeout(4 * SECOND, watch.next()).await.is_err());
    sees(&mut watch, &["b"]).await;
    registry.faults().delay_events(Duration::ZERO);
    drop(a);
}

#[tokio::test(start_paused = true)]
async fn broken_streams_are_read_again() {
    let registry = MemoryRegistry::new();
    let mut watch = watching(&registry).await;
    for id in ["a", "b", "c"] {
        registry.faults().break_streams();
        std::mem::forget(registered(&registry, id).await);
    }
    assert!(sees(&mut watch, &["a", "b", "c"]).await <= 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_neither_duplicates_nor_loses() {
    let registry = MemoryRegistry::new();
    let mut watch = watching(&registry).await;
    registry.faults().lose_replies(1);
    let registration = registry.register(instance("a")).await.unwrap();
    sees(&mut watch, &["a"]).await;
    let applied = watch.latest().unwrap().members()[0].incarnation();
    assert!(!registration.state().is_live(), "the owner cannot know yet");
    registration.ready().await.unwrap();
    assert_eq!(registration.state().incarnation(), Some(applied));
    sleep(SECOND).await;
    assert_eq!(watch.latest().unwrap().members()[0].incarnation(), applied);
}

#[tokio::test(start_paused = true)]
async fn failing_calls_fail_as_ordered_and_so_many_only() {
    let registry = MemoryRegistry::new();
    registry.faults().fail_calls(2, ErrorKind::PermissionDenied);
    for _ in 0..2 {
        let error = registry.list(&service()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
    registry.list(&service()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_times_out_and_nothing_is_lost_over_it() {
    let registry = MemoryRegistry::new();
    let mut watch = watching(&registry).await;
    let a = registered(&registry, "a").await;
    sees(&mut watch, &["a"]).await;
    registry.faults().hang();
    assert_eq!(
        registry.list(&service()).await.unwrap_err().kind(),
        ErrorKind::TimedOut
    );
    let _b = registry.register(instance("b")).await.unwrap();
    a.load().set(3);
    sleep(60 * SECOND).await;
    registry.faults().restore();
    assert!(sees(&mut watch, &["a", "b"]).await <= 5 * SECOND);
    a.ready().await.unwrap();
    a.load().flush().await.unwrap();
    assert_eq!(
        registry.faults().stored_load(&service(), a.instance().id()),
        Some(3)
    );
}

#[tokio::test(start_paused = true)]
async fn an_injected_conflict_stands_until_it_is_removed() {
    let registry = MemoryRegistry::new();
    let foreign = registry.faults().conflict(&instance("a")).unwrap();
    let registration = registry.register(instance("a")).await.unwrap();
    let error = registration.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&foreign.to_string()), "{error}");
    assert!(registry.faults().remove(&service(), "a"));
    let live = registration
        .states()
        .wait_for(RegistrationState::is_live)
        .await
        .is_some();
    assert!(live);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_owner_stays_away_until_it_is_revived() {
    let registry = MemoryRegistry::new();
    let (a, _b) = (
        registered(&registry, "a").await,
        registered(&registry, "b").await,
    );
    let mut watch = watching(&registry).await;
    assert!(registry.faults().crash(&service(), a.instance().id()));
    assert!(sees(&mut watch, &["b"]).await < SECOND);
    sleep(60 * SECOND).await;
    sees(&mut watch, &["b"]).await;
    registry.faults().revive(&service(), a.instance().id());
    assert!(sees(&mut watch, &["a", "b"]).await <= 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_id_of_a_crashed_owner_is_free_for_another() {
    let registry = MemoryRegistry::new();
    let first = registered(&registry, "a").await;
    let faults = registry.faults();
    assert!(faults.crash(&service(), first.instance().id()));
    let second = registered(&registry.sibling(), "a").await;
    sleep(60 * SECOND).await;
    assert!(second.state().is_live() && !first.state().is_live());
    assert!(faults.crash(&service(), second.instance().id()));
    let third = registered(&registry.sibling(), "a").await;
    faults.revive(&service(), first.instance().id());
    for former in [&first, &second] {
        let mut states = former.states();
        let refused = states.wait_for(|s| matches!(s, RegistrationState::Conflict { .. }));
        let refused = timeout(5 * SECOND, refused).await;
        assert!(refused.expect("back within seconds").is_some());
    }
    assert!(third.state().is_live());
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_removes_a_living_entry_sees_it_return() {
    let registry = MemoryRegistry::new();
    let (a, _b) = (
        registered(&registry, "a").await,
        registered(&registry, "b").await,
    );
    let before = a.state().incarnation();
    assert!(registry.faults().remove(&service(), "a"));
    a.states()
        .wait_for(|s| s.is_live() && s.incarnation() != before)
        .await
        .unwrap();
    assert_eq!(registry.list(&service()).await.unwrap().members().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn names_share_and_siblings_share_and_the_rest_is_apart() {
    let one = MemoryRegistry::named("faults-test");
    let _a = registered(&one, "a").await;
    for (other, members) in [
        (MemoryRegistry::named("faults-test"), 1),
        (one.sibling(), 1),
        (MemoryRegistry::named("another"), 0),
        (MemoryRegistry::new(), 0),
    ] {
        assert_eq!(
            other.list(&service()).await.unwrap().members().len(),
            members
        );
    }
}

#[test]
fn a_runtime_that_ends_takes_its_registrations_with_it() {
    let registry = MemoryRegistry::new();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let first = runtime();
    let registration = first.block_on(registered(&registry, "a"));
    drop(first);
    let left = runtime().block_on(registry.list(&service())).unwrap();
    assert_eq!(left.members().len(), 0);
    drop(registration);
}
