//! Settings from a URL.

use std::time::Duration;

use plimsoll_backend_kit::{Credential, Options, RegistryUrl};
use plimsoll_discovery_api::{Error, ErrorKind, Result};

use crate::builder::ConsulBuilder;
use crate::config::Consistency;
use crate::registry::ConsulRegistry;

type SetSpan = fn(ConsulBuilder, Duration) -> ConsulBuilder;

impl ConsulRegistry {
    /// The registry of a URL such as `consul://127.0.0.1:8500/root?ttl=15s`. Its user is left empty;
    /// its password, if it has one, is the token.
    ///
    /// Options, as on [`ConsulBuilder`]: `ttl`, `session_ttl`, `deregister_after`,
    /// `request_timeout`, `wait`, `load_interval`, `load_poll`, `consistency` (`default`,
    /// `consistent` or `stale`), `dc`, `ns`, `name`, `node_health` (`true` or `false`), `tls` (the same),
    /// and with TLS the paths of PEM files `tls_ca`, `tls_cert` and `tls_key`.
    ///
    /// # Errors
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming the part at fault;
    /// [`Unsupported`](plimsoll_discovery_api::ErrorKind::Unsupported) for TLS without the feature.
    pub fn from_url(url: &RegistryUrl) -> Result<Self> {
        read(url)?.build()
    }
}

/// Reads `consul://:token@host:8500/root?ttl=15s`.
fn read(url: &RegistryUrl) -> Result<ConsulBuilder> {
    if url.scheme() != "consul" {
        return Err(invalid("not a consul:// URL").with_context("scheme", url.scheme()));
    }
    let [host] = url.hosts() else {
        return Err(invalid("one agent is needed, and no more than one")
            .with_context("hosts", url.hosts().join(",")));
    };
    let mut builder = ConsulBuilder::new(host);
    if !url.path().is_empty() {
        builder = builder.with_root(url.path());
    }
    let mut options = url.options();
    let token_file = options.take::<String>("token_file")?;
    match (url.user(), url.password()) {
        (None, _) => {
            if let Some(path) = token_file {
                builder = builder.with_token(Credential::file("token_file", path)?);
            }
        }
        (Some(_), _) if token_file.is_some() => {
            return Err(invalid("token_file is of use without a token in the URL"));
        }
        (Some(""), Some(token)) => builder = builder.with_token(token),
        // What was meant for a token is not shown, wherever it stands.
        _ => return Err(invalid("credentials are `:token@`, without a user")),
    }
    let durations: [(&'static str, SetSpan); 7] = [
        ("ttl", ConsulBuilder::with_ttl),
        ("session_ttl", ConsulBuilder::with_session_ttl),
        ("deregister_after", ConsulBuilder::with_deregister_after),
        ("request_timeout", ConsulBuilder::with_request_timeout),
        ("wait", ConsulBuilder::with_wait),
        ("load_interval", ConsulBuilder::with_load_interval),
        ("load_poll", ConsulBuilder::with_load_poll),
    ];
    for (name, set) in durations {
        if let Some(span) = options.take_duration(name)? {
            builder = set(builder, span);
        }
    }
    if let Some(datacenter) = options.take::<String>("dc")? {
        builder = builder.with_datacenter(datacenter);
    }
    if let Some(namespace) = options.take::<String>("ns")? {
        builder = builder.with_namespace(namespace);
    }
    if let Some(name) = options.take::<String>("name")? {
        builder = builder.with_name(name);
    }
    if let Some(node_health) = options.take::<bool>("node_health")? {
        builder = builder.with_node_health(node_health);
    }
    if let Some(word) = options.take::<String>("consistency")? {
        builder = builder.with_consistency(match word.as_str() {
            "default" => Consistency::Default,
            "consistent" => Consistency::Consistent,
            "stale" => Consistency::Stale,
            _ => {
                return Err(
                    invalid("consistency is not one of `default`, `consistent`, `stale`")
                        .with_context("consistency", word),
                );
            }
        });
    }
    builder = read_tls(builder, &mut options)?;
    options.finish()?;
    Ok(builder)
}

#[cfg(feature = "tls")]
fn read_tls(mut builder: ConsulBuilder, options: &mut Options) -> Result<ConsulBuilder> {
    let on = options.take::<bool>("tls")?;
    let authorities = options.take::<String>("tls_ca")?;
    let certificate = options.take::<String>("tls_cert")?;
    let key = options.take::<String>("tls_key")?;
    if on == Some(false) && (authorities.is_some() || certificate.is_some() || key.is_some()) {
        return Err(invalid("certificates without TLS").with_context("tls", "false"));
    }
    if on == Some(true) {
        builder = builder.with_tls();
    }
    if let Some(path) = authorities {
        builder = builder.with_tls_authorities(Credential::file("tls_ca", path)?);
    }
    match (certificate, key) {
        (None, None) => Ok(builder),
        (Some(certificate), Some(key)) => {
            let certificate = Credential::file("tls_cert", certificate)?;
            Ok(builder.with_tls_identity(certificate, Credential::file("tls_key", key)?))
        }
        _ => Err(invalid("tls_cert and tls_key are of use together only")),
    }
}

#[cfg(not(feature = "tls"))]
fn read_tls(builder: ConsulBuilder, options: &mut Options) -> Result<ConsulBuilder> {
    let on = options.take::<bool>("tls")?;
    let mut files = false;
    for name in ["tls_ca", "tls_cert", "tls_key"] {
        files |= options.take::<String>(name)?.is_some();
    }
    if files || on == Some(true) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this build speaks no TLS to Consul; turn on the feature `tls` of the backend",
        ));
    }
    Ok(builder)
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("registry URL: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(url: &str) -> Result<ConsulRegistry> {
        ConsulRegistry::from_url(&url.parse()?)
    }

    #[test]
    fn every_option_is_read() {
        let all = "consul://:t@h:8500/a/b?dc=dc2&ns=team&ttl=20s&session_ttl=10s&deregister_after=2min\
            &request_timeout=2s&wait=1min&load_interval=5s&load_poll=1s&consistency=stale&node_health=true&name=n&tls=false";
        let shown = format!("{:?}", built(all).unwrap());
        for part in ["h:8500", "dc2", "team", "a/b", "20s", "Stale"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        for good in [
            "consul://h",
            "consul://[::1]:8500",
            "consul://h.:8500",
            "consul://h?consistency=consistent",
        ] {
            assert!(built(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (url, part) in [
            ("zk://h", "scheme"),
            ("consul://", "one agent"),
            ("consul://h1,h2", "one agent"),
            ("consul://h:0", "address"),
            ("consul://h?ttl=soon", "option: ttl"),
            ("consul://h?deregister_after=10s", "deregister_after"),
            ("consul://h?consistency=maybe", "consistency: maybe"),
            ("consul://h?node_health=perhaps", "node_health"),
            ("consul://h?typo=1", "option: typo"),
        ] {
            let error = built(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let url: RegistryUrl = "consul://:hunter2@h".parse().unwrap();
        let builder = read(&url).unwrap();
        let shown = format!("{url:?} {builder:?}");
        let shown = format!("{shown} {:?}", builder.build().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        for misplaced in [
            "consul://hunter2@h",
            "consul://user:hunter2@h",
            "consul://:hunter2%0A@h",
        ] {
            let error = built(misplaced).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn what_is_wrong_with_certificates_is_named() {
        for (url, part) in [
            (
                "consul://h?tls_ca=/nowhere/ca.pem",
                "tls_ca: /nowhere/ca.pem",
            ),
            ("consul://h?tls_cert=/nowhere/cert.pem", "together"),
            ("consul://h?tls=false&tls_ca=/nowhere/ca.pem", "without TLS"),
        ] {
            let error = built(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
        let garbage = ConsulBuilder::new("h")
            .with_tls_authorities("garbage")
            .build();
        assert!(garbage.unwrap_err().to_string().contains("authorities"));
        let garbage = ConsulBuilder::new("h")
            .with_tls_identity("hunter2", "hunter2")
            .build();
        let error = garbage.unwrap_err();
        assert!(error.to_string().contains("identity"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(built("consul://h?tls=true").is_ok());
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_without_the_feature_is_unsupported_and_names_it() {
        for url in ["consul://h?tls=true", "consul://h?tls_ca=x"] {
            let error = built(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{url}");
            assert!(error.to_string().contains("feature `tls`"), "{error}");
        }
    }
}
