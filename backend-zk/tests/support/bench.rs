//! A server with a provider, a consumer and an operator, and ways to wait for what must come.
#![allow(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]
#![allow(
    clippy::future_not_send,
    reason = "a test's own future stays on its thread"
)]

use std::collections::BTreeMap;

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::{Instance, Registration, ServiceName, Snapshot};
use plimsoll_test_servers::probe::{self};
use plimsoll_test_servers::zk::Server;
use plimsoll_test_servers::{Mode, Proxy};
use zookeeper_client::{Client, Stat};

use super::harness::{builder, identity, operator};

/// A server, a handle through a proxy, and a handle of somebody else's.
pub struct Bench {
    pub server: Server,
    pub proxy: Proxy,
    pub provider: ZkRegistry,
    pub consumer: ZkRegistry,
    pub operator: Client,
    pub service: ServiceName,
}

impl Bench {
    pub async fn set() -> Self {
        // Empty containers are looked for every second, not every minute.
        Self::on(Server::start_with(
            "",
            &["-Dznode.container.checkIntervalMs=1000"],
        ))
        .await
    }

    pub async fn on(server: Server) -> Self {
        let proxy = Proxy::start(server.address(), Mode::Pass);
        let provider = builder(proxy.address()).build().unwrap();
        let consumer = builder(server.address()).build().unwrap();
        let operator = operator(server.address()).await;
        let service = "orders".parse().unwrap();
        Self {
            server,
            proxy,
            provider,
            consumer,
            operator,
            service,
        }
    }

    pub fn instance(&self, id: &str) -> Instance {
        Instance::builder(&self.service, "10.0.0.7", 8080)
            .with_id(id)
            .build()
            .unwrap()
    }

    pub async fn live(&self, id: &str) -> Registration {
        probe::live(&self.provider, self.instance(id)).await
    }

    pub async fn stat(&self, id: &str) -> Option<Stat> {
        self.operator
            .check_stat(&identity(&self.service, id))
            .await
            .unwrap()
    }

    pub async fn listed(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        probe::listed(&self.consumer, &self.service, what, wanted).await
    }
}

/// A number of the server's monitor.
pub fn monitored(server: &Server, name: &str) -> i64 {
    let answer = server.ask("mntr").unwrap_or_default();
    let lines = answer.lines().filter_map(|line| line.split_once('\t'));
    let numbers: BTreeMap<_, _> = lines.collect();
    numbers
        .get(name)
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(-1)
}

/// How many sessions it holds, whether anybody is connected to them or not.
pub fn sessions(server: &Server) -> usize {
    let answer = server.ask("dump").unwrap_or_default();
    // After them come those of them that own nodes.
    let all = answer.split("ephemeral nodes dump:").next();
    let ids = all.unwrap_or_default().lines();
    ids.filter(|line| line.trim_start().starts_with("0x"))
        .count()
}

/// How many transactions there have been, with those that failed.
pub fn transactions(server: &Server) -> u64 {
    let answer = server.ask("srvr").unwrap_or_default();
    let last = answer
        .lines()
        .find_map(|line| line.strip_prefix("Zxid: 0x"));
    u64::from_str_radix(last.expect("the last transaction").trim(), 16).expect("a number")
}

/// One claim, tested on a bench of its own; without a server it says loudly that nothing was.
macro_rules! fault {
    ($(#[$attribute:meta])* async fn $name:ident($bench:ident: $mutable:ty) $body:block) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if plimsoll_test_servers::zk::available() {
                #[allow(unused_mut, reason = "some faults change the bench")]
                let mut $bench: $mutable = $crate::support::bench::Bench::set().await;
                $body
            }
        }
    };
}

pub(crate) use fault;
