//! A registry from its URL.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use plimsoll_backend_kit::RegistryUrl;
use plimsoll_discovery_api::{Error, ErrorKind, Registry, Result};

type Open = Box<dyn Fn(&RegistryUrl) -> Result<Arc<dyn Registry>> + Send + Sync>;

/// The backends of this project, each with the feature of its scheme's name that compiles it in.
const BUILT_IN: &[&str] = &["consul", "dir", "etcd", "memory", "zk"];

/// The schemes of registry URLs, each with what opens a registry by such a URL: a table to which
/// anybody's backend can be added, and which is passed along as a value.
///
/// ```
/// use plimsoll::Schemes;
/// use plimsoll::memory::MemoryRegistry;
///
/// let schemes = Schemes::built_in().with("test", |url| {
///     assert_eq!(url.hosts(), ["orders"]);
///     Ok(MemoryRegistry::new())
/// });
/// let registry = schemes.registry("test://orders")?;
/// assert_eq!(registry.capabilities().backend, "memory");
/// # Ok::<(), plimsoll::Error>(())
/// ```
#[must_use]
pub struct Schemes(BTreeMap<String, Open>);

impl Schemes {
    /// Those of [`registry_from_url`].
    pub fn built_in() -> Self {
        let schemes = Self(BTreeMap::new());
        #[cfg(feature = "consul")]
        let schemes = schemes.with("consul", crate::consul::ConsulRegistry::from_url);
        #[cfg(feature = "dir")]
        let schemes = schemes.with("dir", crate::dir::DirRegistry::from_url);
        #[cfg(feature = "etcd")]
        let schemes = schemes.with("etcd", crate::etcd::EtcdRegistry::from_url);
        #[cfg(feature = "memory")]
        let schemes = schemes.with("memory", crate::memory::MemoryRegistry::from_url);
        #[cfg(feature = "zk")]
        let schemes = schemes.with("zk", crate::zk::ZkRegistry::from_url);
        schemes
    }

    /// The same, with `open` for the URLs of `scheme`, in whatever case that is written; it replaces
    /// what stands for the scheme. It is to read the URL and to connect to nothing, and its errors
    /// are to name the part of the URL at fault.
    pub fn with<R: Registry>(
        mut self,
        scheme: &str,
        open: impl Fn(&RegistryUrl) -> Result<R> + Send + Sync + 'static,
    ) -> Self {
        let open: Open = Box::new(move |url| open(url).map(|registry| Arc::new(registry) as _));
        self.0.insert(scheme.to_ascii_lowercase(), open);
        self
    }

    /// The registry at `url`, as of [`registry_from_url`].
    ///
    /// # Errors
    /// As of [`registry_from_url`], and what the scheme's own backend says.
    pub fn registry(&self, url: &str) -> Result<Arc<dyn Registry>> {
        let open = || {
            let url: RegistryUrl = url.parse()?;
            let open = self.0.get(url.scheme());
            open.ok_or_else(|| self.no_backend(url.scheme()))?(&url)
        };
        open().map_err(|e: Error| e.with_operation("registry_from_url"))
    }

    fn no_backend(&self, scheme: &str) -> Error {
        let known: Vec<_> = self.0.keys().map(String::as_str).collect();
        let error = if BUILT_IN.contains(&scheme) {
            let why = format!("this build has no {scheme} backend; turn on the feature `{scheme}`");
            Error::new(ErrorKind::Unsupported, why)
        } else {
            let why = "registry URL: no backend has this scheme";
            Error::new(ErrorKind::InvalidConfig, why)
        };
        error
            .with_context("scheme", scheme)
            .with_context("known", known.join(", "))
    }
}

impl fmt::Debug for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The registry at `url`; which backend it is, the scheme says.
///
/// It reads the URL, and the files that are named in it, and no more: the registry is connected to
/// when it is first used, which takes a tokio runtime.
///
/// | URL | Registry | Feature |
/// |---|---|---|
/// | `consul://host:8500/root` | the one that this Consul agent belongs to | `consul` |
/// | `dir:///run/plimsoll` | the one in that directory of this machine | `dir` |
/// | `memory://name` | the one of that name in this process; without a name, one of its own | `memory` |
/// | `zk://h1:2181,h2:2181/root` | the one below that path of the `ZooKeeper` ensemble | `zk` |
/// | `etcd://h1:2379,h2:2379/prefix` | the one under that prefix of the etcd cluster | `etcd` |
///
/// A registry that cannot be reached is no error: registrations are pending and watches wait until
/// it can be. [`first_answer`](crate::first_answer) waits for it. Schemes of other backends are added to
/// [`Schemes`].
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
    Schemes::built_in().registry(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scheme_is_told_the_known_ones() {
        let error = registry_from_url("redis://localhost").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let first = BUILT_IN
            .iter()
            .find(|scheme| Schemes::built_in().0.contains_key(**scheme));
        let known = format!("known: {}", first.unwrap_or(&")"));
        assert!(error.to_string().contains(&known), "{error}");
        assert!(error.to_string().contains("scheme: redis"), "{error}");
    }

    #[cfg(feature = "memory")]
    #[test]
    fn a_scheme_of_ones_own_stands_beside_the_others_and_may_replace_one() {
        let fails = |_: &RegistryUrl| -> Result<crate::memory::MemoryRegistry> {
            Err(Error::new(ErrorKind::InvalidConfig, "not today"))
        };
        let schemes =
            Schemes::built_in().with("Mine", |_| Ok(crate::memory::MemoryRegistry::new()));
        for url in ["mine://h", "MINE://h", "memory://"] {
            assert!(schemes.registry(url).is_ok(), "{url}");
        }
        let error = schemes.registry("other://h").unwrap_err();
        assert!(error.to_string().contains("mine"), "{error}");
        let schemes = schemes.with("memory", fails);
        let error = schemes.registry("memory://").unwrap_err();
        assert!(error.to_string().contains("not today"), "{error}");
        assert!(
            registry_from_url("memory://").is_ok(),
            "a table is nobody else's"
        );
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

    #[cfg(feature = "dir")]
    #[test]
    fn a_dir_url_is_a_path_and_no_file_is_touched_to_read_it() {
        let registry = registry_from_url("dir:///not/there?load_interval=50ms").unwrap();
        assert_eq!(registry.capabilities().backend, "dir");
        assert_eq!(registry.capabilities().load_interval.as_millis(), 50);
        for url in [
            "dir://run/plimsoll",
            "dir://user@/run",
            "dir:///",
            "dir:///run?x=1",
            "dir:///run?load_interval=48h",
        ] {
            let error = registry_from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
        }
    }

    #[cfg(not(feature = "dir"))]
    #[test]
    fn a_dir_url_without_the_feature_names_it() {
        let error = registry_from_url("dir:///run/plimsoll").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("feature `dir`"), "{error}");
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
