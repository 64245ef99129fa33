//! Conditions and writes of transactions.

use etcd_client::{Compare, CompareOp, PutOptions, TxnOp};

/// That `key` has not been written since `revision`; of revision 0, that it does not exist.
pub(crate) fn unchanged(key: &str, revision: i64) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, revision)
}

/// No key is ever without its lease: a write that did not name it would detach it.
pub(crate) fn put(key: &str, value: impl Into<Vec<u8>>, lease: i64) -> TxnOp {
    TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
}
