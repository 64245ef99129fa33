//! A provider in a process of its own: this very program, which runs one of its tests.

use std::env;

use plimsoll_discovery_api::{Registry, ServiceName};
use plimsoll_test_servers::Process;
use plimsoll_test_servers::consul::Server;

use super::harness::builder;

const AGENT: &str = "PLIMSOLL_TEST_PROVIDER_AGENT";
const ID: &str = "PLIMSOLL_TEST_PROVIDER_ID";

/// Is a provider, if this process was started as one: registers one instance, and never returns.
pub async fn be_a_provider() {
    let Ok(address) = env::var(AGENT) else {
        return;
    };
    let registry = builder(address.parse().expect("an address"))
        .build()
        .expect("good settings");
    let service: ServiceName = "orders".parse().expect("a name");
    let id = env::var(ID).expect("an id");
    let instance =
        plimsoll_discovery_api::Instance::builder(&service, "10.0.0.7", 8080).with_id(id);
    let registration = registry
        .register(instance.build().expect("an instance"))
        .await;
    let registration = registration.expect("a registration");
    registration.load().set(u64::from(std::process::id()));
    std::future::pending::<()>().await;
}

/// A process of its own that runs the test `name` of this very program as a provider.
pub fn provider(server: &Server, name: &str, id: &str) -> Process {
    let mut command = std::process::Command::new(env::current_exe().expect("this program"));
    command
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(AGENT, server.address().to_string())
        .env(ID, id);
    Process::spawn(&mut command, &server.dir().join(format!("provider-{id}")))
}

/// As `fault!`; a process that was started as a provider is one, before it has a bench of its own.
#[macro_export]
macro_rules! with_provider {
    ($(#[doc = $doc:literal])* async fn $name:ident($bench:ident: $data:ident) $body:block) => {
        $(#[doc = $doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::support::provider::be_a_provider().await;
            if plimsoll_test_servers::consul::available() {
                let $bench = $crate::support::bench::Bench::set(plimsoll_test_servers::consul::Data::$data);
                $body
            }
        }
    };
}
