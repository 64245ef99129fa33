//! Encryption, and the certificates it needs.

use std::fmt;
use std::sync::Arc;

use plimsoll_backend_kit::{Credential, Derived};
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use zookeeper_client::{TlsCa, TlsCerts, TlsDynamicCerts, TlsIdentity, TlsOptions};

/// The certificates of an encrypted connection, in PEM, as they are whenever one is made: the client
/// library connects again by itself, with what it was last given. That a key is not the
/// certificate's is found out by the library alone, when it connects: so no connection is made from the
/// renewal of the one to that of the other.
pub(crate) struct Tls {
    certificates: TlsDynamicCerts,
    given: Derived<()>,
    has_identity: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("has_identity", &self.has_identity)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Trusts `ca`, and presents the certificate `identity`, with its key. A secret.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) naming the certificate at fault.
    pub(crate) fn new(ca: Credential, identity: Option<(Credential, Credential)>) -> Result<Self> {
        let has_identity = identity.is_some();
        let mut credentials = vec![ca];
        credentials.extend(identity.into_iter().flat_map(|(one, other)| [one, other]));
        let values: Vec<_> = credentials.iter().map(Credential::bytes).collect();
        let certificates = TlsDynamicCerts::new(read(&values)?);
        let taken = certificates.clone();
        let given = Derived::new(credentials, move |values| {
            taken.update(read(values)?);
            Ok(())
        })?;
        Ok(Self {
            certificates,
            given,
            has_identity,
        })
    }

    pub(crate) fn has_identity(&self) -> bool {
        self.has_identity
    }

    /// Gives the client library the certificates as they are now.
    pub(crate) fn refresh(&self) {
        self.given.get();
    }

    /// What the client library is to connect with.
    pub(crate) fn options(&self) -> TlsOptions {
        self.refresh();
        TlsOptions::new().with_certs(self.certificates.clone())
    }
}

/// Reads the authorities and, if they are there, a certificate and its key.
fn read(values: &[Arc<[u8]>]) -> Result<TlsCerts> {
    let bad = |field: &str| {
        let why = format!("{field} is not what it should be, in PEM");
        Error::new(ErrorKind::InvalidConfig, why)
    };
    let text = |at: usize, field: &str| {
        let bytes = values.get(at).map_or(&[][..], |value| value);
        std::str::from_utf8(bytes).map_err(|_| bad(field))
    };
    let ca = TlsCa::from_pem(text(0, "tls_ca")?);
    let ca = ca.map_err(|source| bad("tls_ca").with_source(source))?;
    let mut certificates = TlsCerts::builder().with_ca(ca);
    if values.len() > 1 {
        let (certificate, key) = (text(1, "tls_cert")?, text(2, "tls_key")?);
        let identity = TlsIdentity::from_pem(certificate, key);
        let identity = identity.map_err(|source| bad("tls_cert or tls_key").with_source(source))?;
        certificates = certificates.with_identity(identity);
    }
    certificates
        .build()
        .map_err(|source| bad("tls_ca").with_source(source))
}
