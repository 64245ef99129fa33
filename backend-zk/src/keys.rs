//! Where things stand in the tree.

use plimsoll_backend_kit::{check_root, escape, invalid_setting};
use plimsoll_discovery_api::{Incarnation, InstanceId, Result, ServiceName};

/// The three branches below one root: who is there, how loaded, and who has just left.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// Empty, or with a leading and no trailing slash.
    pub(crate) root: String,
}

/// The branches of one service.
#[derive(Clone, Debug)]
pub(crate) struct Branches {
    pub(crate) services: String,
    pub(crate) load: String,
    pub(crate) departed: String,
}

/// The nodes of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    pub(crate) branches: Branches,
    pub(crate) identity: String,
    pub(crate) load: String,
}

impl Tree {
    /// The parent of all services.
    pub(crate) fn services(&self) -> String {
        format!("{}/services", self.root)
    }

    pub(crate) fn branches(&self, service: &ServiceName) -> Branches {
        let (root, service) = (&self.root, escape(service.as_str()));
        Branches {
            services: format!("{root}/services/{service}"),
            load: format!("{root}/load/{service}"),
            departed: format!("{root}/departed/{service}"),
        }
    }

    pub(crate) fn nodes(&self, service: &ServiceName, id: &InstanceId) -> Nodes {
        let branches = self.branches(service);
        let key = escape(id.as_str());
        Nodes {
            identity: format!("{}/{key}", branches.services),
            load: format!("{}/{key}", branches.load),
            branches,
        }
    }
}

impl Nodes {
    /// What a registration needs to be allowed.
    pub(crate) fn needs(&self) -> String {
        let Branches { services, load, .. } = &self.branches;
        format!("to create and delete (cd) in {services} and {load}")
    }

    /// What a removal needs to be allowed.
    pub(crate) fn needs_to_depart(&self) -> String {
        format!("{}, and in {}", self.needs(), self.branches.departed)
    }
}

impl Branches {
    /// The parent of all services.
    pub(crate) fn root(&self) -> &str {
        self.services
            .rsplit_once('/')
            .map_or("", |(above, _)| above)
    }

    /// What is created and deleted again in the transaction that removes `incarnation`, so that
    /// watchers get an event by this name and nobody has anything to tidy up.
    pub(crate) fn departure(&self, incarnation: Incarnation) -> String {
        format!("{}/{incarnation}", self.departed)
    }
}

/// The last segment of `path`, if it stands directly below `parent`.
pub(crate) fn key_below<'p>(path: &'p str, parent: &str) -> Option<&'p str> {
    let key = path.strip_prefix(parent)?.strip_prefix('/')?;
    (!key.is_empty() && !key.contains('/')).then_some(key)
}

/// Reads a path without its outer slashes; returns it with a leading one, or empty.
pub(crate) fn read_root(root: &str) -> Result<String> {
    if root.is_empty() {
        return Ok(String::new());
    }
    check_root(root)?;
    if root == "zookeeper" || root.starts_with("zookeeper/") {
        return Err(invalid_setting("root", root, "is reserved by ZooKeeper"));
    }
    Ok(format!("/{root}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_service_is_below_another() {
        let tree = Tree { root: "/r".into() };
        let branches = tree.branches(&"foo".parse().unwrap());
        assert_eq!(
            key_below("/r/services/foo/a", &branches.services),
            Some("a")
        );
        for path in [
            "/r/services/foobar/a",
            "/r/services/foo",
            "/r/services/foo/",
            "/r/load/foo/a",
        ] {
            assert_eq!(key_below(path, &branches.services), None, "{path}");
        }
        let nodes = tree.nodes(&"a/b".parse().unwrap(), &"c/d".parse().unwrap());
        assert_eq!(nodes.identity, "/r/services/a%2Fb/c%2Fd");
    }
}
