//! Where things stand among the keys.

use plimsoll_backend_kit::escape;
use plimsoll_discovery_api::{InstanceId, ServiceName};

/// Everything of one registry, below one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    prefix: String,
}

/// The keys of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) identity: String,
    pub(crate) load: String,
}

impl Tree {
    /// `prefix` without a slash at its end; may be empty.
    pub(crate) fn new(prefix: &str) -> Self {
        let mut prefix = prefix.to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        Self { prefix }
    }

    /// What the identities of all services begin with.
    pub(crate) fn services(&self) -> String {
        format!("{}services/", self.prefix)
    }

    /// What the identities of `service` begin with, and of no other: it ends in a separator.
    pub(crate) fn identities(&self, service: &ServiceName) -> String {
        format!("{}services/{}/", self.prefix, escape(service.as_str()))
    }

    /// What the loads of `service` begin with.
    pub(crate) fn loads(&self, service: &ServiceName) -> String {
        format!("{}load/{}/", self.prefix, escape(service.as_str()))
    }

    /// What whoever registers an instance of `service` needs to be allowed.
    pub(crate) fn needs_to_register(&self, service: &ServiceName) -> String {
        let (identities, loads) = (self.identities(service), self.loads(service));
        let barriers = format!("{}fence/", self.prefix);
        format!("readwrite of the prefixes {identities}, {loads} and {barriers}")
    }

    /// What whoever follows `service` needs to be allowed, with its loads or without.
    pub(crate) fn needs_to_follow(&self, service: &ServiceName, loads: bool) -> String {
        let identities = self.identities(service);
        if loads {
            format!(
                "read of the prefixes {identities} and {}",
                self.loads(service)
            )
        } else {
            format!("read of the prefix {identities}")
        }
    }

    /// What whoever lists the services needs to be allowed.
    pub(crate) fn needs_to_list(&self) -> String {
        format!("read of the prefix {}", self.services())
    }

    /// Whether `key` is one of an instance. The lease may be known to others, who may have keys of
    /// their own under it.
    pub(crate) fn is_of_instance(&self, key: &[u8]) -> bool {
        let rest = key.strip_prefix(self.prefix.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"services/") || rest.starts_with(b"load/"))
    }

    pub(crate) fn keys(&self, service: &ServiceName, id: &InstanceId) -> Keys {
        let key = escape(id.as_str());
        Keys {
            identity: format!("{}{key}", self.identities(service)),
            load: format!("{}{key}", self.loads(service)),
        }
    }

    /// The one key by which a process makes earlier requests of its own void, see `Barrier`.
    pub(crate) fn barrier(&self, lease: i64) -> String {
        format!("{}fence/{lease:x}", self.prefix)
    }
}

/// The first key after all that begin with `prefix`.
pub(crate) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // A prefix ends in a slash, never in the last of all bytes.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_service_is_below_another() {
        let tree = Tree::new("r");
        let service = |name: &str| name.parse::<ServiceName>().unwrap();
        assert_eq!(tree.identities(&service("foo")), "r/services/foo/");
        let keys = tree.keys(&service("a/b"), &"c/d".parse().unwrap());
        assert_eq!(keys.identity, "r/services/a%2Fb/c%2Fd");
        assert_eq!(keys.load, "r/load/a%2Fb/c%2Fd");
        let foobar = tree.keys(&service("foobar"), &"x".parse().unwrap());
        assert!(
            !foobar
                .identity
                .starts_with(&tree.identities(&service("foo")))
        );
        for (key, is_one) in [
            (&keys.identity, true),
            (&keys.load, true),
            (&tree.barrier(7), false),
        ] {
            assert_eq!(tree.is_of_instance(key.as_bytes()), is_one, "{key}");
        }
        assert!(!tree.is_of_instance(b"r2/services/foo/a") && !tree.is_of_instance(b"own"));
        assert_eq!(Tree::new("").services(), "services/");
        assert_eq!(end_of("services/"), b"services0");
    }
}
