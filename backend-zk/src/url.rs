//! Settings from a URL.

#[cfg(any(feature = "sasl", feature = "tls"))]
use plimsoll_backend_kit::Credential;
use plimsoll_backend_kit::{Options, RegistryUrl, invalid_setting};
use plimsoll_discovery_api::{Error, ErrorKind, Result};

use crate::builder::ZkBuilder;
use crate::registry::ZkRegistry;

impl ZkRegistry {
    /// The registry of a URL such as `zk://user:password@h1:2181,h2:2181/root?session_timeout=10s`.
    /// Options: `session_timeout`, `connect_timeout`, `load_interval` and `acl`, as on [`ZkBuilder`];
    /// `sasl=digest-md5` logs in by SASL instead of the scheme `digest`; `password_file` holds the
    /// password; `tls_ca`, `tls_cert` and `tls_key` are files in PEM. Files are read here and now, and
    /// again when they have changed, see [`Credential`](crate::Credential).
    ///
    /// # Errors
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming the part at fault.
    pub fn from_url(url: &RegistryUrl) -> Result<Self> {
        builder(url)?.build()
    }
}

/// Reads `zk://user:password@host1:2181,host2/root?session_timeout=10s`.
fn builder(url: &RegistryUrl) -> Result<ZkBuilder> {
    if url.scheme() != "zk" {
        return Err(Error::new(ErrorKind::InvalidConfig, "not a zk:// URL")
            .with_context("scheme", url.scheme()));
    }
    let mut builder = ZkBuilder::new(url.hosts());
    if !url.path().is_empty() {
        builder = builder.with_root(url.path());
    }
    let mut options = url.options();
    if let Some(timeout) = options.take_duration("session_timeout")? {
        builder = builder.with_session_timeout(timeout);
    }
    if let Some(timeout) = options.take_duration("connect_timeout")? {
        builder = builder.with_connect_timeout(timeout);
    }
    if let Some(interval) = options.take_duration("load_interval")? {
        builder = builder.with_load_interval(interval);
    }
    if let Some(acl) = options.take::<String>("acl")? {
        builder = builder.with_acl(acl.parse()?);
    }
    builder = login(builder, url, &mut options)?;
    builder = tls(builder, &mut options)?;
    options.finish()?;
    Ok(builder)
}

/// The user and password of the URL, by the scheme `digest` unless `sasl=digest-md5` is given.
fn login(builder: ZkBuilder, url: &RegistryUrl, options: &mut Options) -> Result<ZkBuilder> {
    let file = options.take::<String>("password_file")?;
    let password = url.password_or_file(file)?;
    match options.take::<String>("sasl")?.as_deref() {
        None => Ok(match (url.user(), password) {
            (Some(user), Some(password)) => builder.with_digest(user, password),
            _ => builder,
        }),
        #[cfg(feature = "sasl")]
        Some("digest-md5") => {
            let (user, password) = (url.user().unwrap_or_default(), password);
            Ok(builder.with_sasl(user, password.unwrap_or_else(|| Credential::from(""))))
        }
        #[cfg(not(feature = "sasl"))]
        Some("digest-md5") => Err(not_compiled("sasl", "zk-sasl")),
        Some(other) => Err(invalid_setting("sasl", other, "is not digest-md5")),
    }
}

/// Files with certificates in PEM.
#[cfg(feature = "tls")]
fn tls(mut builder: ZkBuilder, options: &mut Options) -> Result<ZkBuilder> {
    if let Some(path) = options.take::<String>("tls_ca")? {
        builder = builder.with_tls(Credential::file("tls_ca", path)?);
    }
    let certificate = options.take::<String>("tls_cert")?;
    let key = options.take::<String>("tls_key")?;
    match (certificate, key) {
        (None, None) => Ok(builder),
        (Some(certificate), Some(key)) => {
            let certificate = Credential::file("tls_cert", certificate)?;
            Ok(builder.with_tls_identity(certificate, Credential::file("tls_key", key)?))
        }
        (Some(_), None) => Err(invalid_setting("tls_key", "", "is needed with tls_cert")),
        (None, Some(_)) => Err(invalid_setting("tls_cert", "", "is needed with tls_key")),
    }
}

#[cfg(not(feature = "tls"))]
fn tls(builder: ZkBuilder, options: &mut Options) -> Result<ZkBuilder> {
    for field in ["tls_ca", "tls_cert", "tls_key"] {
        if options.take::<String>(field)?.is_some() {
            return Err(not_compiled("tls", "zk-tls"));
        }
    }
    Ok(builder)
}

#[cfg(any(not(feature = "tls"), not(feature = "sasl")))]
fn not_compiled(feature: &str, of_facade: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "this build cannot; turn on the feature `{feature}` of plimsoll-backend-zk, which is \
             `{of_facade}` of plimsoll"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(url: &str) -> Result<ZkRegistry> {
        builder(&url.parse()?)?.build()
    }

    #[test]
    fn mistakes_are_named_before_any_connection() {
        for (url, part) in [
            ("zk://", "hosts"),
            ("zk://h:0", "host: h:0"),
            ("zk://h:x", "host: h:x"),
            ("zk://::1", "host: ::1"),
            ("zk://h/a//b", "root"),
            ("zk://h/a/../b", "root"),
            ("zk://h/zookeeper", "reserved"),
            ("zk://h?session_timeout=1ms", "session_timeout"),
            ("zk://h?session_timeout=soon", "session_timeout"),
            ("zk://h?lease=1s", "lease"),
            ("zk://h?acl=closed", "acl"),
            ("zk://h?acl=creator_all", "acl"),
            ("zk://h?acl=auth::r", "acl"),
            ("zk://h?sasl=gssapi", "sasl"),
            ("zk://a%3Ab:p@h", "user"),
            ("memory://h", "scheme: memory"),
        ] {
            let error = built(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
        for good in [
            "zk://h",
            "zk://h1:1,h2/root?session_timeout=4s&connect_timeout=1s&load_interval=1s",
            "zk://[::1]:2181",
            "zk://h1.,h2.:2181",
            "zk://u:p@h?acl=auth::cdrwa,world:anyone:r",
        ] {
            assert!(built(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let url: RegistryUrl = "zk://root:hunter2@h".parse().unwrap();
        let builder = builder(&url).unwrap();
        let shown = format!("{builder:?}");
        let shown = format!("{shown} {:?}", builder.build().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        let error = built("zk://:hunter2@h").unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn encryption_that_is_not_compiled_in_names_its_feature() {
        let error = built("zk://h?tls_ca=/etc/ca.pem").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("`tls`"), "{error}");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn certificates_are_read_when_the_handle_is_built_and_named_when_they_cannot_be() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("garbage.pem");
        std::fs::write(&file, "hunter2").unwrap();
        let file = file.display();
        for (options, part) in [
            ("tls_ca=/no/such/file".to_owned(), "tls_ca: /no/such/file"),
            (format!("tls_ca={file}"), "tls_ca is not"),
            (format!("tls_ca={file}&tls_cert={file}"), "tls_key"),
            (format!("tls_cert={file}&tls_key={file}"), "tls_ca"),
        ] {
            let error = built(&format!("zk://h?{options}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{options}");
            let shown = format!("{error} {error:?}");
            assert!(
                shown.contains(part) && !shown.contains("hunter2"),
                "{shown}"
            );
        }
    }

    #[cfg(not(feature = "sasl"))]
    #[test]
    fn a_login_that_is_not_compiled_in_names_its_feature() {
        let error = built("zk://u:p@h?sasl=digest-md5").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("`sasl`"), "{error}");
    }

    #[cfg(feature = "sasl")]
    #[test]
    fn sasl_needs_a_user() {
        let error = built("zk://h?sasl=digest-md5").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(built("zk://u:p@h?sasl=digest-md5").is_ok());
    }
}
