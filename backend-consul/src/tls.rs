//! Certificates, ours and theirs.

use std::fmt;

#[cfg(feature = "tls")]
use plimsoll_discovery_api::{Error, ErrorKind, Result};

/// How TLS is spoken. Without the feature there is no value of it.
#[cfg(feature = "tls")]
#[derive(Default)]
pub(crate) struct Tls {
    /// Whom to trust, in PEM; whom the system trusts, if nothing is said.
    pub(crate) authorities: Option<Vec<u8>>,
    /// A certificate and its key, in PEM. The key is a secret.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

#[cfg(not(feature = "tls"))]
pub(crate) enum Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(hidden)")
    }
}

#[cfg(feature = "tls")]
impl Tls {
    pub(crate) fn apply(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder> {
        let mut builder = builder.https_only(true);
        if let Some(pem) = &self.authorities {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|e| {
                unreadable("tls authorities", "are not certificates in PEM").with_source(e)
            })?;
            if certificates.is_empty() {
                return Err(unreadable("tls authorities", "hold no certificate in PEM"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let Some((certificate, key)) = &self.identity {
            let pem = [key.as_slice(), b"\n", certificate].concat();
            let identity = reqwest::Identity::from_pem(&pem).map_err(|_| {
                unreadable("tls identity", "is not a certificate and its key in PEM")
            })?;
            builder = builder.identity(identity);
        }
        Ok(builder)
    }
}

#[cfg(feature = "tls")]
fn unreadable(what: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("{what} {why}"))
}
