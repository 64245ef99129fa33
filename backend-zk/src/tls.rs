//! Encryption, and the certificates it needs.

use std::fmt;
use std::fs;

use plimsoll_discovery_api::{Error, ErrorKind, Result};
use zookeeper_client::TlsOptions;

/// The certificates of an encrypted connection, in PEM.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) ca: String,
    /// The certificate, and its key. A secret.
    pub(crate) identity: Option<(String, String)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("identity", &self.identity.as_ref().map(|_| "(hidden)"))
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// What the client library makes of the certificates.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the certificate at fault.
    pub(crate) fn options(&self) -> Result<TlsOptions> {
        let bad = |field: &str| {
            let why = format!("{field} is not what it should be, in PEM");
            move |source: zookeeper_client::Error| {
                Error::new(ErrorKind::InvalidConfig, why).with_source(source)
            }
        };
        let options = TlsOptions::new()
            .with_pem_ca(&self.ca)
            .map_err(bad("tls_ca"))?;
        match &self.identity {
            Some((certificate, key)) => options
                .with_pem_identity(certificate, key)
                .map_err(bad("tls_cert or tls_key")),
            None => Ok(options),
        }
    }
}

/// Reads the file that the option `field` of a URL names.
///
/// # Errors
/// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the option and the file.
pub(crate) fn read_file(field: &'static str, path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|source| {
        Error::new(ErrorKind::InvalidConfig, format!("{field} cannot be read"))
            .with_context(field, path)
            .with_source(source)
    })
}
