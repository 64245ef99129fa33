//! A registry from its URL.

use std::sync::Arc;

use plimsoll_backend_kit::RegistryUrl;
use plimsoll_discovery_api::{Error, ErrorKind, Registry, Result};

/// The schemes there are, each with the feature that compiles it in.
const SCHEMES: &[(&str, bool)] = &[
    ("consul", cfg!(feature = "consul")),
    ("memory", cfg!(feature = "memory")),
    ("zk", cfg!(feature = "zk")),
    ("etcd", cfg!(feature = "etcd")),
];

/// The registry at `url`; which backend it is, the scheme says.
///
/// It reads the URL, and the files that are named in it, and no more: the registry is connected to
/// when it is first used, which takes a tokio runtime.
///
/// | URL | Registry | Feature |
/// |---|---|---|
/// | `consul://host:8500/root` | the one that this Consul agent belongs to | `consul` |
/// | `memory://name` | the one of that name in this process; without a name, one of its own | `memory` |
/// | `zk://h1:2181,h2:2181/root` | the one below that path of the `ZooKeeper` ensemble | `zk` |
/// | `etcd://h1:2379,h2:2379/prefix` | the one under that prefix of the etcd cluster | `etcd` |
///
/// A registry that cannot be reached is no error: registrations are pending and watches wait until
/// it can be. [`first_answer`](crate::first_answer) waits for it.
///
/// ```
/// let registry = plimsoll::registry_from_url("memory://orders?load_interval=50ms")?;
/// assert_eq!(registry.capabilities().backend, "memory");
/// # Ok::<(), plimsoll::Error>(())
/// ```
///
/// # Errors
/// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the part of the URL at fault, or the schemes
/// there are; [`Unsupported`](ErrorKind::Unsupported) naming the feature to turn on, if the scheme
/// is known but not compiled in. Both before any connection.
#[doc(alias = "connect")]
#[doc(alias = "open")]
pub fn registry_from_url(url: &str) -> Result<Arc<dyn Registry>> {
    let url: RegistryUrl = url
        .parse()
        .map_err(|e: Error| e.with_operation("registry_from_url"))?;
    let registry: Result<Arc<dyn Registry>> = match url.scheme() {
        #[cfg(feature = "consul")]
        "consul" => crate::consul::ConsulRegistry::from_url(&url).map(|r| Arc::new(r) as _),
        #[cfg(feature = "memory")]
        "memory" => crate::memory::MemoryRegistry::from_url(&url).map(|r| Arc::new(r) as _),
        #[cfg(feature = "zk")]
        "zk" => crate::zk::ZkRegistry::from_url(&url).map(|r| Arc::new(r) as _),
        #[cfg(feature = "etcd")]
        "etcd" => crate::etcd::EtcdRegistry::from_url(&url).map(|r| Arc::new(r) as _),
        scheme => Err(no_backend(scheme)),
    };
    registry.map_err(|e| e.with_operation("registry_from_url"))
}

fn no_backend(scheme: &str) -> Error {
    let compiled: Vec<_> = SCHEMES
        .iter()
        .filter(|(_, compiled)| *compiled)
        .map(|(name, _)| *name)
        .collect();
    if SCHEMES.iter().any(|(name, _)| *name == scheme) {
        return Error::new(
            ErrorKind::Unsupported,
            format!("this build has no {scheme} backend; turn on the feature `{scheme}`"),
        )
        .with_context("scheme", scheme)
        .with_context("compiled", compiled.join(", "));
    }
    Error::new(
        ErrorKind::InvalidConfig,
        "registry URL: no backend has this scheme",
    )
    .with_context("scheme", scheme)
    .with_context("compiled", compiled.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scheme_is_told_the_compiled_ones() {
        let error = registry_from_url("redis://localhost").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let compiled = if cfg!(feature = "consul") {
            "compiled: consul"
        } else if cfg!(feature = "memory") {
            "compiled: memory"
        } else if cfg!(feature = "zk") {
            "compiled: zk"
        } else if cfg!(feature = "etcd") {
            "compiled: etcd"
        } else {
            "compiled: )"
        };
        assert!(error.to_string().contains(compiled), "{error}");
        assert!(error.to_string().contains("scheme: redis"), "{error}");
    }

    #[cfg(feature = "memory")]
    #[tokio::test]
    async fn a_name_is_one_registry_and_no_name_is_one_of_its_own() {
        let instance = || {
            crate::Instance::builder("s", "10.0.0.1", 80)
                .build()
                .unwrap()
        };
        let service = "s".parse().unwrap();
        for (a, b, shared) in [
            ("memory://url-test", "memory://url-test", 1),
            ("memory://url-test", "memory://url-other", 0),
            ("memory://", "memory://", 0),
        ] {
            let (a, b) = (registry_from_url(a).unwrap(), registry_from_url(b).unwrap());
            let registration = a.register(instance()).await.unwrap();
            registration.ready().await.unwrap();
            assert_eq!(b.list(&service).await.unwrap().members().len(), shared);
            registration.deregister().await.unwrap();
        }
    }

    #[cfg(feature = "memory")]
    #[test]
    fn what_a_memory_registry_does_not_have_is_refused() {
        for url in [
            "memory://user@a",
            "memory://a,b",
            "memory://a/path",
            "memory://a?lease=3s",
            "memory://a?load_interval=often",
        ] {
            assert_eq!(
                registry_from_url(url).unwrap_err().kind(),
                ErrorKind::InvalidConfig,
                "{url}"
            );
        }
    }

    #[cfg(feature = "consul")]
    #[test]
    fn a_consul_url_needs_no_agent_to_be_read() {
        let registry = registry_from_url("consul://h1:8500/root?ttl=20s").unwrap();
        assert_eq!(registry.capabilities().backend, "consul");
        let error = registry_from_url("consul://h1?tll=20s").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[cfg(not(feature = "consul"))]
    #[test]
    fn a_consul_url_without_the_feature_names_it() {
        let error = registry_from_url("consul://h").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("feature `consul`"), "{error}");
    }

    #[cfg(feature = "zk")]
    #[test]
    fn a_zk_url_needs_no_server_to_be_read() {
        let registry = registry_from_url("zk://h1:2181,h2/root?session_timeout=4s").unwrap();
        assert_eq!(registry.capabilities().backend, "zk");
        let error = registry_from_url("zk://h1?sesion_timeout=4s").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[cfg(not(feature = "zk"))]
    #[test]
    fn a_zk_url_without_the_feature_names_it() {
        let error = registry_from_url("zk://h").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("feature `zk`"), "{error}");
    }

    #[cfg(feature = "etcd")]
    #[test]
    fn an_etcd_url_needs_no_server_to_be_read() {
        let registry = registry_from_url("etcd://h1:2379,h2/prefix?lease_ttl=4s").unwrap();
        assert_eq!(registry.capabilities().backend, "etcd");
        let error = registry_from_url("etcd://h1?lease=4s").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[cfg(not(feature = "etcd"))]
    #[test]
    fn an_etcd_url_without_the_feature_names_it() {
        let error = registry_from_url("etcd://h").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("feature `etcd`"), "{error}");
    }

    #[cfg(not(feature = "memory"))]
    #[test]
    fn a_backend_that_is_not_compiled_in_names_its_feature() {
        let error = registry_from_url("memory://").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("feature `memory`"), "{error}");
    }
}
