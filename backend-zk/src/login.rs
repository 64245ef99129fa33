//! Who a handle is to the server.

use std::fmt;

use plimsoll_backend_kit::Credential;
use plimsoll_discovery_api::{Error, ErrorKind, Result};

/// How a handle says who it is, whenever it connects. A secret.
#[derive(Clone)]
pub(crate) enum Login {
    /// By the scheme `digest`.
    Digest {
        user: Credential,
        password: Credential,
    },
    /// By SASL, with the mechanism DIGEST-MD5, as whom the server knows by its own configuration.
    #[cfg(feature = "sasl")]
    Sasl {
        user: Credential,
        password: Credential,
    },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digest { .. } => "Digest(hidden)",
            #[cfg(feature = "sasl")]
            Self::Sasl { .. } => "Sasl(hidden)",
        })
    }
}

impl Login {
    /// Without the user, who may be half of a secret.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig)
    pub(crate) fn check(&self) -> Result<()> {
        let (user, password, may_have_colon) = match self {
            Self::Digest { user, password } => (user, password, false),
            #[cfg(feature = "sasl")]
            Self::Sasl { user, password } => (user, password, true),
        };
        let name = user.text()?;
        password.text()?;
        // The server splits at the first colon.
        if name.is_empty() || name.contains(':') && !may_have_colon {
            let why = "user is empty or has a colon";
            return Err(Error::new(ErrorKind::InvalidConfig, why));
        }
        Ok(())
    }
}
