//! Settings that were found to be good.

use std::fmt;
use std::time::Duration;

use plimsoll_backend_kit::Timings;

use crate::acl::Acl;
use crate::login::Login;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// What a handle was built with.
pub(crate) struct Config {
    pub(crate) hosts: Vec<String>,
    pub(crate) root: String,
    pub(crate) session_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) login: Option<Login>,
    pub(crate) acl: Acl,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
    pub(crate) timings: Timings,
}

impl Config {
    /// Gives what has changed of the credentials to the connections to come.
    pub(crate) fn refresh(&self) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("hosts", &self.hosts)
            .field("root", &self.root)
            .field("session_timeout", &self.session_timeout)
            .field("login", &self.login)
            .field("acl", &self.acl)
            .finish_non_exhaustive()
    }
}
