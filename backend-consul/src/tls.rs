//! Certificates, ours and theirs.

use std::fmt;
#[cfg(feature = "tls")]
use std::sync::Arc;

#[cfg(feature = "tls")]
use plimsoll_backend_kit::Credential;
#[cfg(feature = "tls")]
use plimsoll_discovery_api::{Error, ErrorKind, Result};

/// How TLS is spoken. Without the feature there is no value of it.
#[cfg(feature = "tls")]
#[derive(Clone, Default)]
pub(crate) struct Tls {
    /// Whom to trust, in PEM; whom the system trusts, if nothing is said.
    pub(crate) authorities: Option<Credential>,
    /// A certificate and its key, in PEM. The key is a secret.
    pub(crate) identity: Option<(Credential, Credential)>,
}

#[cfg(not(feature = "tls"))]
#[derive(Clone)]
pub(crate) enum Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(hidden)")
    }
}

#[cfg(feature = "tls")]
impl Tls {
    /// All that it is made of.
    pub(crate) fn credentials(&self) -> Vec<Credential> {
        let identity = self.identity.iter().flat_map(|(one, other)| [one, other]);
        self.authorities.iter().chain(identity).cloned().collect()
    }

    /// Speaks so, with the values of [`credentials`](Self::credentials).
    pub(crate) fn apply(
        &self,
        builder: reqwest::ClientBuilder,
        values: &[Arc<[u8]>],
    ) -> Result<reqwest::ClientBuilder> {
        let mut builder = builder.https_only(true);
        let mut values = values.iter();
        let authorities = self.authorities.as_ref().and_then(|_| values.next());
        if let Some(pem) = authorities {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|e| {
                unreadable("tls authorities", "are not certificates in PEM").with_source(e)
            })?;
            if certificates.is_empty() {
                return Err(unreadable("tls authorities", "hold no certificate in PEM"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let (Some(certificate), Some(key)) = (values.next(), values.next()) {
            let pem = [key, &b"\n"[..], certificate].concat();
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
