//! Encrypted connections.

use std::fmt;
use std::path::Path;

use etcd_client::{Certificate, Identity, TlsOptions};
use plimsoll_discovery_api::{Error, ErrorKind, Result};

/// How to trust the servers, and how to be trusted by them.
///
/// Without [`with_ca_pem`](Self::with_ca_pem) the roots are those of the features
/// `tls-native-roots` and `tls-webpki-roots`, of which one must then be on.
#[derive(Clone, Default)]
#[must_use]
pub struct Tls {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    domain: Option<String>,
}

impl Tls {
    /// Trusts what the usual roots have signed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts what these certificates, in PEM, have signed, and nothing else.
    pub fn with_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Authenticates by a client certificate and its key, in PEM. The key is never shown.
    pub fn with_identity_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name that the servers' certificates are for. Default: the host that is connected to.
    pub fn with_domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Reads the files that a URL names.
    pub(crate) fn from_files(
        ca: Option<&str>,
        identity: Option<(&str, &str)>,
        domain: Option<String>,
    ) -> Result<Self> {
        let read = |option: &'static str, path: &str| {
            std::fs::read(Path::new(path)).map_err(|e| {
                Error::new(ErrorKind::InvalidConfig, format!("{option} cannot be read"))
                    .with_context(option, path)
                    .with_source(e)
            })
        };
        let mut tls = Self::new();
        if let Some(path) = ca {
            tls = tls.with_ca_pem(read("ca", path)?);
        }
        if let Some((certificate, key)) = identity {
            tls = tls.with_identity_pem(read("cert", certificate)?, read("key", key)?);
        }
        tls.domain = domain;
        Ok(tls)
    }

    pub(crate) fn options(self) -> Result<TlsOptions> {
        let has_roots = cfg!(feature = "tls-native-roots") || cfg!(feature = "tls-webpki-roots");
        let mut options = TlsOptions::new();
        match self.ca {
            Some(ca) => options = options.ca_certificate(Certificate::from_pem(ca)),
            None if has_roots => options = options.with_enabled_roots(),
            None => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "no certificate authority is given, and no feature with roots is on",
                ));
            }
        }
        if let Some((certificate, key)) = self.identity {
            options = options.identity(Identity::from_pem(certificate, key));
        }
        if let Some(domain) = self.domain {
            options = options.domain_name(domain);
        }
        Ok(options)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.as_ref().map(|_| "(hidden)"))
            .field("domain", &self.domain)
            .finish()
    }
}
