//! Who a handle is to the server.

use std::fmt;

use plimsoll_discovery_api::{Error, ErrorKind, Result};

/// How a handle says who it is. A secret.
#[derive(Clone)]
pub(crate) enum Login {
    /// `user:password`, by the scheme `digest`.
    Digest(String),
    /// By SASL, with the mechanism DIGEST-MD5.
    #[cfg(feature = "sasl")]
    Sasl {
        /// Whom the server knows by its own configuration.
        user: String,
        /// A secret.
        password: String,
    },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digest(_) => "Digest(hidden)",
            #[cfg(feature = "sasl")]
            Self::Sasl { .. } => "Sasl(hidden)",
        })
    }
}

impl Login {
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig), without the user, who may be half of a secret.
    pub(crate) fn digest(user: &str, password: &str) -> Result<Self> {
        // The server splits at the first colon.
        if user.is_empty() || user.contains(':') {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "user is empty or has a colon",
            ));
        }
        Ok(Self::Digest(format!("{user}:{password}")))
    }

    /// # Errors
    /// As [`digest`](Self::digest).
    #[cfg(feature = "sasl")]
    pub(crate) fn sasl(user: &str, password: &str) -> Result<Self> {
        if user.is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, "user is empty"));
        }
        Ok(Self::Sasl {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }
}
