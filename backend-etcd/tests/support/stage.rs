//! What the tests of faults play on: a server, a handle through a proxy, and one past it.

use std::path::{Path, PathBuf};

use etcd_client::KeyValue;
use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{Instance, Registration, Registry, ServiceName, Snapshot, Watch};
use plimsoll_test_servers::etcd::Server;
use plimsoll_test_servers::probe::{self, ready};
use plimsoll_test_servers::{Mode, Proxy};

use super::harness::builder;
use super::operator::{Operator, identity};

pub struct Stage {
    pub server: Server,
    pub proxy: Proxy,
    /// Through the proxy.
    pub provider: EtcdRegistry,
    /// Not through it.
    pub consumer: EtcdRegistry,
    pub operator: Operator,
    pub service: ServiceName,
}

impl Stage {
    pub async fn set() -> Self {
        Self::set_with(&[]).await
    }

    /// With more arguments for the server.
    pub async fn set_with(options: &[&str]) -> Self {
        let server = tokio::task::block_in_place(|| Server::start_with(options));
        let proxy = Proxy::start(server.address(), Mode::Pass);
        let provider = builder(proxy.address()).build().expect("good settings");
        let consumer = builder(server.address()).build().expect("good settings");
        let operator = Operator::new(server.address()).await;
        Self {
            server,
            proxy,
            provider,
            consumer,
            operator,
            service: service(),
        }
    }

    /// Registers with the provider, and waits until that is live.
    pub async fn live(&self, id: &str) -> Registration {
        live(&self.provider, id).await
    }

    pub async fn live_many(&self, count: usize) -> Vec<Registration> {
        live_many(&self.provider, count).await
    }

    pub async fn key(&self, id: &str) -> Option<KeyValue> {
        self.operator.get(&identity(&self.service, id)).await
    }

    pub async fn watch(&self) -> Watch {
        self.consumer.watch(&self.service).await.expect("a watch")
    }

    /// What the consumer lists, once it is as wanted.
    pub async fn listed(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        listed(&self.consumer, what, wanted).await
    }

    /// Does to the server what blocks.
    pub fn blocking<T>(&mut self, change: impl FnOnce(&mut Server) -> T) -> T {
        tokio::task::block_in_place(|| change(&mut self.server))
    }
}

pub fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

pub fn instance(id: &str) -> Instance {
    let builder = Instance::builder(service(), "10.0.0.7", 8080).with_id(id);
    builder.build().expect("an instance")
}

pub async fn register(registry: &EtcdRegistry, id: &str) -> Registration {
    let registered = registry.register(instance(id)).await;
    registered.expect("to be taken")
}

pub async fn live(registry: &EtcdRegistry, id: &str) -> Registration {
    probe::live(registry, instance(id)).await
}

/// `m0`, `m1` and so on.
pub async fn live_many(registry: &EtcdRegistry, count: usize) -> Vec<Registration> {
    let mut registrations = Vec::new();
    for number in 0..count {
        registrations.push(register(registry, &format!("m{number}")).await);
    }
    for registration in &registrations {
        ready(registration).await;
    }
    registrations
}

pub async fn listed(
    registry: &EtcdRegistry,
    what: &str,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Snapshot {
    probe::listed(registry, &service(), what, wanted).await
}

/// The example `provider`, beside the directory of this test's own program.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let target = own.parent().and_then(Path::parent).expect("a directory");
    let program = target.join("examples/provider");
    assert!(
        program.exists(),
        "{} is missing: cargo build -p plimsoll-backend-etcd --examples",
        program.display()
    );
    program
}

/// One test, with a stage set for it; without a server it says loudly that nothing was tested.
#[macro_export]
macro_rules! fault {
    ($(#[$attribute:meta])* async fn $name:ident($stage:ident: Stage $(, $option:literal)*) $body:block) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if plimsoll_test_servers::etcd::available() {
                #[allow(unused_mut, reason = "some faults change the stage")]
                let mut $stage = $crate::support::stage::Stage::set_with(&[$($option),*]).await;
                $body
            }
        }
    };
}
