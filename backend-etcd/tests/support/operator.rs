//! What an operator does to the registry, past the backend.

use std::net::SocketAddr;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, KeyValue, PutOptions, Txn, TxnOp,
};
use plimsoll_backend_kit::escape;
use plimsoll_discovery_api::ServiceName;

pub const PREFIX: &str = "plimsoll-test";

pub fn identity(service: &ServiceName, id: &str) -> String {
    format!(
        "{PREFIX}/services/{}/{}",
        escape(service.as_str()),
        escape(id)
    )
}

pub fn load(service: &ServiceName, id: &str) -> String {
    format!("{PREFIX}/load/{}/{}", escape(service.as_str()), escape(id))
}

pub fn fence(lease: i64) -> String {
    format!("{PREFIX}/fence/{lease:x}")
}

/// A record of some 400 bytes, as a process of its own would have written it.
pub fn record(id: &str, number: usize) -> String {
    let fill = "x".repeat(200);
    format!(
        r#"{{"Op":0,"Addr":"10.0.0.1:80","Metadata":{{"schema":1,"id":"{id}","host":"10.0.0.1","port":80,"metadata":{{"fill":"{fill}"}},"incarnation":"{number:032x}","registered_unix_ms":1700000000000}}}}"#
    )
}

#[derive(Clone)]
pub struct Operator(pub Client);

impl Operator {
    pub async fn new(address: SocketAddr) -> Self {
        let options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(20));
        let client = Client::connect([address.to_string()], Some(options)).await;
        Self(client.expect("the server is up"))
    }

    pub async fn get(&self, key: &str) -> Option<KeyValue> {
        let answer = self.0.kv_client().get(key, None).await;
        answer.expect("the server is up").take_kvs().pop()
    }

    /// Everything below the prefix.
    pub async fn records(&self) -> Vec<KeyValue> {
        let options = GetOptions::new().with_prefix();
        let answer = self.0.kv_client().get(PREFIX, Some(options)).await;
        answer.expect("the server is up").take_kvs()
    }

    pub async fn put(&self, key: &str, value: &[u8]) {
        self.put_bytes(key.as_bytes(), value).await;
    }

    pub async fn put_bytes(&self, key: &[u8], value: &[u8]) {
        let put = self.0.kv_client().put(key, value, None).await;
        put.expect("the server is up");
    }

    /// With the lease that the key is under.
    pub async fn overwrite(&self, key: &str, value: &[u8]) {
        let options = PutOptions::new().with_ignore_lease();
        let put = self.0.kv_client().put(key, value, Some(options)).await;
        put.expect("the key is there");
    }

    pub async fn delete(&self, key: &str) {
        let deleted = self.0.kv_client().delete(key, None).await;
        deleted.expect("the server is up");
    }

    /// As if it had run out. None is no error: it may have been faster.
    pub async fn revoke(&self, lease: i64) {
        let _gone_already = self.0.lease_client().revoke(lease).await;
    }

    pub async fn leases(&self) -> Vec<i64> {
        let answer = self.0.lease_client().leases().await;
        let answer = answer.expect("the server is up");
        answer
            .leases()
            .iter()
            .map(etcd_client::LeaseStatus::id)
            .collect()
    }

    /// Forgets all history.
    pub async fn compact(&self) {
        let mut kv = self.0.kv_client();
        let now = kv.get("x", None).await.expect("the server is up");
        let revision = now.header().expect("a header").revision();
        let physically = etcd_client::CompactionOptions::new().with_physical();
        let compacted = kv.compact(revision, Some(physically)).await;
        compacted.expect("to compact");
    }

    /// Claims `identity` as a process with this lease would that knows of no fence; `false` if that
    /// was refused.
    pub async fn claim(&self, identity: &str, lease: i64) -> bool {
        let put = PutOptions::new().with_lease(lease);
        let unwritten = |key: &str| Compare::mod_revision(key, CompareOp::Equal, 0);
        let txn = Txn::new()
            .when([unwritten(identity), unwritten(&fence(lease))])
            .and_then([TxnOp::put(identity, "late", Some(put))]);
        let answer = self.0.kv_client().txn(txn).await;
        answer.expect("the server is up").succeeded()
    }

    pub async fn raise_fence(&self, lease: i64) {
        let options = PutOptions::new().with_lease(lease);
        let put = self
            .0
            .kv_client()
            .put(fence(lease), "", Some(options))
            .await;
        put.expect("the lease is there");
    }

    /// Writes a load as the owner of the life under `identity` would; `false` if it was refused.
    pub async fn write_load(&self, identity: &KeyValue, load: &str, value: u64) -> bool {
        let key = identity.key();
        let put = PutOptions::new().with_lease(identity.lease());
        let txn = Txn::new()
            .when([
                Compare::create_revision(key, CompareOp::Equal, identity.create_revision()),
                Compare::lease(key, CompareOp::Equal, identity.lease()),
            ])
            .and_then([TxnOp::put(load, value.to_string(), Some(put))]);
        let answer = self.0.kv_client().txn(txn).await;
        answer.is_ok_and(|answer| answer.succeeded())
    }
}
