//! A server, handles on it, and the bare client beside them.

#![allow(dead_code, reason = "each bench uses a part")]

use std::time::Duration;

use etcd_client::{Client, PutOptions, Txn, TxnOp};
use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{Instance, ServiceName, Snapshot, Watch};
use plimsoll_test_servers::etcd::{Server, available};
use tokio::runtime::Runtime;

pub(crate) const PREFIX: &str = "bench";

pub(crate) struct Setting {
    pub(crate) runtime: Runtime,
    pub(crate) server: Server,
    pub(crate) bare: Client,
    pub(crate) service: ServiceName,
}

impl Setting {
    /// Nothing, said loudly, if there is no server.
    pub(crate) fn new() -> Option<Self> {
        Self::on(&[])
    }

    /// The same, of a server that writes to disk before it answers, as it does by default.
    pub(crate) fn durable() -> Option<Self> {
        Self::on(&["--unsafe-no-fsync=false"])
    }

    fn on(options: &[&str]) -> Option<Self> {
        if !available() {
            return None;
        }
        let server = Server::start_with(options);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let address = server.address().to_string();
        let bare = runtime.block_on(Client::connect([address], None));
        Some(Self {
            runtime,
            server,
            bare: bare.expect("the server is up"),
            service: "orders".parse().expect("a name"),
        })
    }

    /// Tells of each change at once, as the bare client does: by default those that follow within
    /// 50 ms are gathered.
    pub(crate) fn registry(&self) -> EtcdRegistry {
        EtcdRegistry::builder([self.server.address().to_string()])
            .with_prefix(PREFIX)
            .with_timings(|timings| timings.coalesce = Duration::ZERO)
            .build()
            .expect("good settings")
    }

    pub(crate) fn instance(&self, id: &str) -> Instance {
        let builder = Instance::builder(&self.service, "10.0.0.7", 8080).with_id(id);
        builder.build().expect("an instance")
    }

    pub(crate) fn key(&self, branch: &str, id: &str) -> String {
        format!("{PREFIX}/{branch}/{}/{id}", self.service)
    }

    /// `count` records of 400 bytes with their loads.
    pub(crate) async fn fill(&self, count: usize) {
        let mut client = self.bare.clone();
        let lease = client.lease_grant(3_600, None).await.expect("a lease").id();
        let put = |key, value| TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
        let numbers: Vec<_> = (0..count).collect();
        for chunk in numbers.chunks(50) {
            let ops = chunk.iter().flat_map(|number| {
                let id = format!("m{number:05}");
                [
                    put(self.key("services", &id), record(&id, *number)),
                    put(self.key("load", &id), number.to_string()),
                ]
            });
            let txn = Txn::new().and_then(ops.collect::<Vec<_>>());
            client.txn(txn).await.expect("to be written");
        }
    }
}

pub(crate) fn record(id: &str, number: usize) -> String {
    let fill = "x".repeat(200);
    format!(
        r#"{{"Op":0,"Addr":"10.0.0.1:80","Metadata":{{"schema":1,"id":"{id}","host":"10.0.0.1","port":80,"metadata":{{"fill":"{fill}"}},"incarnation":"{number:032x}","registered_unix_ms":1700000000000}}}}"#
    )
}

pub(crate) async fn shown(watch: &mut Watch, wanted: impl Fn(&Snapshot) -> bool) {
    while let Some(snapshot) = watch.next().await {
        if wanted(&snapshot) {
            return;
        }
    }
    panic!("the watch ended");
}
