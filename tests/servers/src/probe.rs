//! Waiting for what must come to pass, and reading what has.

use std::time::{Duration, Instant};

use plimsoll_discovery_api::{
    Incarnation, Instance, Registration, RegistrationState, Registry, ServiceName, Snapshot, Watch,
};
use tokio::time::{sleep, timeout};

/// Ceiling for whatever must come to pass on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Probes until there is something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(Some(found)) = timeout(PATIENCE, probe()).await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "expected {what} within {PATIENCE:?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// Registers an instance, and waits until it is live.
pub async fn live(registry: &dyn Registry, instance: Instance) -> Registration {
    let registration = registry.register(instance).await;
    let registration = registration.expect("an instance to be taken");
    ready(&registration).await;
    registration
}

/// Waits until it is live for the first time.
pub async fn ready(registration: &Registration) {
    let ready = timeout(PATIENCE, registration.ready()).await;
    assert!(
        matches!(ready, Ok(Ok(()))),
        "not live: {ready:?}, {:?}",
        registration.state()
    );
}

/// Waits for a state.
pub async fn state(
    registration: &Registration,
    what: &str,
    wanted: impl FnMut(&RegistrationState) -> bool + Send,
) {
    let mut states = registration.states();
    let reached = timeout(PATIENCE, states.wait_for(wanted)).await;
    assert!(
        matches!(reached, Ok(Some(_))),
        "expected {what}, found {:?}",
        registration.state()
    );
}

/// Waits for a life that is none of `former`.
pub async fn new_life(registration: &Registration, former: &[Incarnation]) -> Incarnation {
    let is_new = |state: &RegistrationState| {
        let life = state.incarnation();
        state.is_live() && life.is_some_and(|life| !former.contains(&life))
    };
    state(registration, "Live anew", is_new).await;
    life(registration)
}

/// The life it is in.
#[must_use]
pub fn life(registration: &Registration) -> Incarnation {
    let state = registration.state();
    let life = state.incarnation();
    life.unwrap_or_else(|| panic!("a life, not {state:?}"))
}

/// What the registry lists, once it is as wanted; a list that fails is asked for again.
pub async fn listed(
    registry: &dyn Registry,
    service: &ServiceName,
    what: &str,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Snapshot {
    eventually(what, || async {
        registry.list(service).await.ok().filter(&wanted)
    })
    .await
}

/// Waits until the watch shows what is wanted.
pub async fn shown(watch: &mut Watch, what: &str, wanted: impl Fn(&Snapshot) -> bool) {
    eventually(what, || async {
        watch.latest().filter(|snapshot| wanted(snapshot)).map(drop)
    })
    .await;
}

/// Who is in it, in its order.
#[must_use]
pub fn ids(snapshot: &Snapshot) -> Vec<&str> {
    let members = snapshot.members().iter();
    members.map(|member| member.id().as_str()).collect()
}

/// The load that one of them has published.
#[must_use]
pub fn load_of(snapshot: &Snapshot, id: &str) -> Option<u64> {
    snapshot.get(id)?.load().get()
}
