//! An agent, handles on it, and patience.

use plimsoll_backend_consul::ConsulRegistry;
use plimsoll_discovery_api::{Instance, Registration, Registry, ServiceName, Snapshot};
use plimsoll_test_servers::consul::{Data, Server};
use plimsoll_test_servers::probe::{self, eventually, ids};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::task::block_in_place;

use super::harness::builder;
use super::operator::{Owned, agent_services, key, owned};

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
        probe::live(&self.provider, self.instance(id)).await
    }

    pub async fn listed(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        probe::listed(&self.consumer, &self.service, what, wanted).await
    }

    /// What the list shows; asked for again where a busy machine leaves it without an answer.
    pub async fn look(&self) -> Snapshot {
        self.listed("an answer", |_| true).await
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

/// A test of what goes wrong, on a bench of its own; without an agent it says loudly that nothing was
/// tested.
#[macro_export]
macro_rules! fault {
    ($(#[$attribute:meta])* async fn $name:ident($bench:ident: $data:ident) $body:block) => {
        $(#[$attribute])*
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
