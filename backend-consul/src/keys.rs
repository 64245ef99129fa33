//! What things are called in Consul.

use plimsoll_backend_kit::escape;
use plimsoll_discovery_api::{Incarnation, InstanceId, ServiceName};

/// The names of one life of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The agent's id of the service: of this very life, so that nothing that comes late from
    /// another life, or from another instance on the same agent, ever touches it. Catalogs compare
    /// ids without regard to case; the life makes them differ in more than that.
    pub(crate) service_id: String,
    /// The key of the owner lock, which all lives of the instance share.
    pub(crate) key: String,
}

impl Names {
    pub(crate) fn new(
        root: &str,
        service: &ServiceName,
        id: &InstanceId,
        life: Incarnation,
    ) -> Self {
        let (name, key) = (escape(service.as_str()), escape(id.as_str()));
        Self {
            service_id: format!("{name}:{key}:{life}"),
            key: format!("{}{key}", branch(root, service)),
        }
    }

    pub(crate) fn check_id(&self) -> String {
        check_id(&self.service_id)
    }
}

pub(crate) fn check_id(service_id: &str) -> String {
    format!("service:{service_id}")
}

/// The name of `service` in Consul. Its catalog takes any text, but a path may lose a slash or a
/// dot on the way.
pub(crate) fn service_name(service: &ServiceName) -> String {
    escape(service.as_str())
}

/// The prefix of all keys of `service`; ends in a slash, so that no service is below another.
pub(crate) fn branch(root: &str, service: &ServiceName) -> String {
    let service = escape(service.as_str());
    if root.is_empty() {
        format!("load/{service}/")
    } else {
        format!("{root}/load/{service}/")
    }
}

/// A path of the API: each segment percent-encoded.
pub(crate) fn path(segments: &[&str]) -> String {
    let encoded: Vec<_> = segments.iter().map(|segment| escape(segment)).collect();
    encoded.join("/")
}

/// The path of a key, whose slashes remain.
pub(crate) fn key_path(key: &str) -> String {
    let segments: Vec<_> = key.split('/').map(escape).collect();
    format!("kv/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_of_every_instance_has_an_id_of_its_own_and_lives_share_the_key() {
        let names = |service: &str, id: &str, life| {
            let life = Incarnation::from_bits(life);
            Names::new("r", &service.parse().unwrap(), &id.parse().unwrap(), life)
        };
        let one = names("a/b", "c:d", 1);
        assert_eq!(
            one.service_id,
            "a%2Fb:c%3Ad:00000000000000000000000000000001"
        );
        assert_eq!(one.key, "r/load/a%2Fb/c%3Ad");
        assert_eq!(one.check_id(), format!("service:{}", one.service_id));
        let later = names("a/b", "c:d", 2);
        assert_eq!(later.key, one.key);
        assert_ne!(later.service_id, one.service_id);
        assert_ne!(names("a", "b:c:d", 1).service_id, one.service_id);
    }

    #[test]
    fn paths_keep_names_whole() {
        assert_eq!(
            path(&["health", "service", "a%2Fb"]),
            "health/service/a%252Fb"
        );
        assert_eq!(key_path("r/load/a%2Fb/"), "kv/r/load/a%252Fb/");
        let foo = branch("", &"foo".parse().unwrap());
        assert!(!branch("", &"foobar".parse().unwrap()).starts_with(&foo));
    }
}
