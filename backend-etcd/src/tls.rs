//! Encrypted connections.

use std::fmt;

use etcd_client::{Certificate, Identity, TlsOptions};
use plimsoll_backend_kit::{Credential, Derived, is_pem};
use plimsoll_discovery_api::{Error, ErrorKind, Result};

/// How to trust the servers, and how to be trusted by them.
///
/// Without [`with_ca_pem`](Self::with_ca_pem) the roots are those of the features
/// `tls-native-roots` and `tls-webpki-roots`, of which one must then be on. Certificates and keys may
/// be values, or a [`Credential`] that is read from a file or replaced while the handle is in use: each
/// new connection uses what they are then.
#[derive(Clone, Default)]
#[must_use]
pub struct Tls {
    ca: Option<Credential>,
    identity: Option<(Credential, Credential)>,
    domain: Option<String>,
}

impl Tls {
    /// Trusts what the usual roots have signed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts what these certificates, in PEM, have signed, and nothing else.
    pub fn with_ca_pem(mut self, pem: impl Into<Credential>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Authenticates by a client certificate and its key, in PEM. The key is never shown.
    pub fn with_identity_pem(
        mut self,
        certificate: impl Into<Credential>,
        key: impl Into<Credential>,
    ) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name that the servers' certificates are for. Default: the host that is connected to.
    pub fn with_domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Of the files that a URL names.
    pub(crate) fn from_files(
        ca: Option<&str>,
        identity: Option<(&str, &str)>,
        domain: Option<String>,
    ) -> Result<Self> {
        let mut tls = Self::new();
        if let Some(path) = ca {
            tls = tls.with_ca_pem(Credential::file("ca", path)?);
        }
        if let Some((certificate, key)) = identity {
            tls = tls.with_identity_pem(
                Credential::file("cert", certificate)?,
                Credential::file("key", key)?,
            );
        }
        tls.domain = domain;
        Ok(tls)
    }

    /// What the client library makes of them, as they are whenever it is asked for.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming what is missing, no PEM, or of no use.
    pub(crate) fn options(self) -> Result<Derived<TlsOptions>> {
        let has_roots = cfg!(feature = "tls-native-roots") || cfg!(feature = "tls-webpki-roots");
        if self.ca.is_none() && !has_roots {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "no certificate authority is given, and no feature with roots is on",
            ));
        }
        let identity = self.identity.iter().flat_map(|(one, other)| [one, other]);
        let credentials = self.ca.iter().chain(identity).cloned().collect();
        let (has_ca, domain) = (self.ca.is_some(), self.domain);
        Derived::new(credentials, move |values| {
            let mut values = values.iter();
            let mut options = TlsOptions::new();
            if has_ca && let Some(ca) = values.next() {
                let ca = pem("ca", ca, "CERTIFICATE")?;
                options = options.ca_certificate(Certificate::from_pem(ca));
            } else {
                options = options.with_enabled_roots();
            }
            if let (Some(certificate), Some(key)) = (values.next(), values.next()) {
                let certificate = pem("cert", certificate, "CERTIFICATE")?;
                let key = pem("key", key, "PRIVATE KEY")?;
                options = options.identity(Identity::from_pem(certificate, key));
            }
            if let Some(domain) = &domain {
                options = options.domain_name(domain);
            }
            check(options)
        })
    }
}

/// Tries `options`, without connecting: a certificate and a key that are not each other's would be
/// found out with every connection anew.
fn check(options: TlsOptions) -> Result<TlsOptions> {
    let tried = tonic::transport::Endpoint::from_static("https://etcd").tls_config(options.clone());
    let unusable = |e| {
        let why = "ca, or cert with key, cannot be used";
        Error::new(ErrorKind::InvalidConfig, why).with_source(e)
    };
    tried.map(|_| options).map_err(unusable)
}

fn pem<'a>(name: &str, bytes: &'a [u8], label: &str) -> Result<&'a [u8]> {
    if is_pem(bytes, label) {
        return Ok(bytes);
    }
    let why = format!("{name} is not what it should be, in PEM");
    Err(Error::new(ErrorKind::InvalidConfig, why))
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
