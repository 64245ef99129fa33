//! An agent, handles on it, and patience.

use std::time::{Duration, Instant};

use plimsoll_backend_consul::ConsulRegistry;
use plimsoll_discovery_api::{
    Incarnation, Instance, Registration, RegistrationState, Registry, ServiceName, Snapshot,
};
use plimsoll_test_servers::consul::{Data, Server};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use super::harness::builder;
use super::operator::{Owned, agent_services, key, owned};

/// Ceiling for whatever must come to pass on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An agent, a handle through a proxy, and a handle of somebody else's.
pub struct Bench {
    pub server: Server,
    pub proxy: Proxy,
    pub provider: ConsulRegistry,
    pub consumer: ConsulRegistry,
    pub service: ServiceName,
}

impl Bench {
    pub fn set(data: Data) -> Self {
        let server = block_in_place(|| Server::start(data));
        let proxy = Proxy::start(server.address(), Mode::Pass);
        Self {
            provider: builder(proxy.address()).build().expect("good settings"),
            consumer: builder(server.address()).build().expect("good settings"),
            service: "orders".parse().expect("a name"),
            server,
            proxy,
        }
    }

    pub fn instance(&self, id: &str) -> Instance {
        let builder = Instance::builder(&self.service, "10.0.0.7", 8080).with_id(id);
        builder.build().expect("an instance")
    }

    pub async fn live(&self, id: &str) -> Registration {
        live(&self.provider, self.instance(id)).await
    }

    pub async fn listed(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        eventually(what, || async {
            self.consumer.list(&self.service).await.ok().filter(&wanted)
        })
        .await
    }

    pub fn owned(&self, id: &str) -> Option<Owned> {
        block_in_place(|| owned(&self.server, &key(&self.service, id)))
    }

    /// How many services plimsoll has left on the agent.
    pub fn services(&self) -> usize {
        block_in_place(|| agent_services(&self.server)).len()
    }

    /// Waits until the list shows `registration` in its present life, and nothing else.
    pub async fn alone(&self, registration: &Registration) {
        let id = registration.instance().id().to_string();
        let what = format!("{id} alone, in its present life");
        eventually(&what, || async {
            let life = registration.state().incarnation()?;
            let listed = self.consumer.list(&self.service).await.ok()?;
            let there = ids(&listed) == [id.as_str()] && listed.get(&id)?.incarnation() == life;
            there.then_some(())
        })
        .await;
    }
}

pub async fn live(registry: &ConsulRegistry, instance: Instance) -> Registration {
    let registration = registry.register(instance).await.expect("good instance");
    ready(&registration).await;
    registration
}

pub async fn ready(registration: &Registration) {
    let ready = timeout(PATIENCE, registration.ready()).await;
    assert!(
        matches!(ready, Ok(Ok(()))),
        "{ready:?}, {:?}",
        registration.state()
    );
}

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

pub async fn state(
    registration: &Registration,
    what: &str,
    wanted: impl Fn(&RegistrationState) -> bool + Send,
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
    let is_new = |state: &RegistrationState| matches!(state, RegistrationState::Live { incarnation } if !former.contains(incarnation));
    state(registration, "Live anew", is_new).await;
    life(registration)
}

pub fn life(registration: &Registration) -> Incarnation {
    let state = registration.state();
    state
        .incarnation()
        .unwrap_or_else(|| panic!("a life, not {state:?}"))
}

pub fn load(snapshot: &Snapshot, id: &str) -> Option<u64> {
    snapshot.get(id)?.load().get()
}

pub fn ids(snapshot: &Snapshot) -> Vec<&str> {
    let members = snapshot.members().iter();
    members.map(|member| member.id().as_str()).collect()
}

/// A test of what goes wrong, on a bench of its own; without an agent it says loudly that nothing was
/// tested.
#[macro_export]
macro_rules! fault {
    ($(#[doc = $doc:literal])* async fn $name:ident($bench:ident: $data:ident) $body:block) => {
        $(#[doc = $doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if plimsoll_test_servers::consul::available() {
                #[allow(unused_mut, reason = "some faults change the bench")]
                let mut $bench = $crate::support::bench::Bench::set(plimsoll_test_servers::consul::Data::$data);
                $body
            }
        }
    };
}
