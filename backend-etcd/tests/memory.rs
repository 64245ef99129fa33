//! What a process holds: in a test binary of its own, as memory is counted by process.

mod support;

use etcd_client::{PutOptions, Txn, TxnOp};
use plimsoll_test_servers::probe::{ids, load_of, shown};
use plimsoll_test_servers::resident_bytes;

use support::operator::{identity, load, record};

fault! {
    /// A watch whose user does nothing holds the latest state and not its history.
    async fn a_slow_consumer_costs_bounded_memory_and_sees_the_last_state(stage: Stage) {
        let _registration = stage.live("a").await;
        let mut watch = stage.watch().await;
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        let before = resident_bytes();
        let kv = stage.key("a").await.unwrap();
        let mut client = stage.operator.0.clone();
        let key = load(&stage.service, "b");
        let value = identity(&stage.service, "b");
        // 400 bytes each, and each another life: every one is a change of the members.
        for round in 0..100 {
            for number in 0..100 {
                let put = || Some(PutOptions::new().with_lease(kv.lease()));
                let number = round * 100 + number;
                let txn = Txn::new().and_then([
                    TxnOp::put(value.as_str(), record("b", number), put()),
                    TxnOp::put(key.as_str(), number.to_string(), put()),
                ]);
                client.txn(txn).await.unwrap();
            }
        }
        shown(&mut watch, "the last state", |s| load_of(s, "b") == Some(9_999)).await;
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 50 << 20, "{grown} bytes more after 10,000 changes nobody looked at");
    }
}
