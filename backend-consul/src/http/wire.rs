//! The parts of Consul's JSON that are used here.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};

/// `PUT /v1/agent/service/register`. The check has no `Status`: a new one is critical until its
/// first pass, and one that is replaced keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Registration {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) tags: Vec<String>,
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) weights: Weights,
    pub(crate) check: TtlCheck,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TtlCheck {
    #[serde(rename = "CheckID")]
    pub(crate) check_id: String,
    #[serde(rename = "TTL")]
    pub(crate) ttl: String,
    pub(crate) deregister_critical_service_after: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    pub(crate) passing: u32,
    pub(crate) warning: u32,
}

/// The same as they stand in the catalog, whatever was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SaidWeights {
    #[serde(default)]
    pub(crate) passing: i64,
}

/// `GET /v1/agent/service/:id`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentService {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) meta: BTreeMap<String, String>,
}

/// One of `GET /v1/health/service/:name`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HealthEntry {
    pub(crate) node: Node,
    pub(crate) service: Service,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) checks: Vec<Check>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Node {
    pub(crate) node: String,
    #[serde(default)]
    pub(crate) address: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) service: String,
    #[serde(default)]
    pub(crate) address: String,
    /// Whatever another program has said.
    #[serde(default)]
    pub(crate) port: i64,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) tags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) meta: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) weights: Option<SaidWeights>,
    #[serde(default)]
    pub(crate) create_index: u64,
    #[serde(default)]
    pub(crate) modify_index: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Check {
    #[serde(rename = "CheckID", default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) status: String,
    #[serde(default)]
    notes: String,
}

impl Check {
    pub(crate) fn is_critical(&self) -> bool {
        !matches!(self.status.as_str(), "passing" | "warning")
    }

    /// What an operator has said who took the node or the service out of service (`consul maint`):
    /// the reason, which may be empty.
    pub(crate) fn maintenance(&self) -> Option<&str> {
        let named = self.id == "_node_maintenance" || self.id.starts_with("_service_maintenance:");
        (named && self.is_critical()).then_some(&self.notes)
    }
}

/// `PUT /v1/session/create`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NewSession<'a> {
    pub(crate) name: &'a str,
    pub(crate) lock_delay: &'static str,
    pub(crate) behavior: &'static str,
    #[serde(rename = "TTL")]
    pub(crate) ttl: String,
    pub(crate) node_checks: Vec<&'static str>,
}

/// `PUT /v1/session/renew/:id`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RenewedSession {
    pub(crate) node: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreatedSession {
    #[serde(rename = "ID")]
    pub(crate) id: String,
}

/// One of `GET /v1/kv/:key`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Pair {
    pub(crate) key: String,
    /// Base64; `null` if it is empty.
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    pub(crate) session: Option<String>,
    #[serde(default)]
    pub(crate) modify_index: u64,
}

impl Pair {
    /// The value, if it is text.
    pub(crate) fn text(&self) -> Option<String> {
        let bytes = STANDARD.decode(self.value.as_deref().unwrap_or_default());
        String::from_utf8(bytes.ok()?).ok()
    }
}

/// One operation of `PUT /v1/txn`, which takes the namespace of each from its body and from nowhere
/// else.
#[derive(Debug, Serialize)]
pub(crate) struct Operation<'a> {
    #[serde(rename = "KV")]
    kv: KvOperation<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KvOperation<'a> {
    verb: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

impl<'a> Operation<'a> {
    const fn new(verb: &'static str, key: &'a str) -> Self {
        let kv = KvOperation {
            verb,
            key,
            index: None,
            value: None,
            session: None,
            namespace: None,
        };
        Self { kv }
    }

    /// The same, in `namespace`.
    pub(crate) const fn within(mut self, namespace: Option<&'a str>) -> Self {
        self.kv.namespace = namespace;
        self
    }

    pub(crate) const fn absent(key: &'a str) -> Self {
        Self::new("check-not-exists", key)
    }

    pub(crate) const fn at_index(key: &'a str, index: u64) -> Self {
        let mut operation = Self::new("check-index", key);
        operation.kv.index = Some(index);
        operation
    }

    pub(crate) fn lock(key: &'a str, session: &'a str, value: &str) -> Self {
        let mut operation = Self::new("lock", key);
        operation.kv.value = Some(STANDARD.encode(value));
        operation.kv.session = Some(session);
        operation
    }

    pub(crate) const fn delete(key: &'a str) -> Self {
        Self::new("delete", key)
    }

    pub(crate) const fn delete_at(key: &'a str, index: u64) -> Self {
        let mut operation = Self::new("delete-cas", key);
        operation.kv.index = Some(index);
        operation
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TxnReply {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) results: Vec<TxnResult>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TxnResult {
    #[serde(rename = "KV", default)]
    pub(crate) kv: Option<Pair>,
    #[serde(rename = "Check", default)]
    pub(crate) check: Option<Check>,
}

/// An operation of a transaction that reads one check of the catalog, which takes the servers no
/// more than a look, however many there are.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CheckRead<'a> {
    check: CheckOperation<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckOperation<'a> {
    verb: &'static str,
    check: CheckKey<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckKey<'a> {
    node: &'a str,
    #[serde(rename = "CheckID")]
    check_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

impl<'a> CheckRead<'a> {
    pub(crate) const fn new(node: &'a str, check_id: &'a str, namespace: Option<&'a str>) -> Self {
        let check = CheckKey {
            node,
            check_id,
            namespace,
        };
        let verb = "get";
        Self {
            check: CheckOperation { verb, check },
        }
    }
}

/// Go writes an empty list or map as `null`.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
