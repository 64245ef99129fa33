//! What a handle was built with.

use std::fmt;
use std::time::Duration;

use etcd_client::ConnectOptions;
#[cfg(feature = "tls")]
use plimsoll_backend_kit::Derived;
use plimsoll_backend_kit::{Credential, Timings};

pub(crate) struct Config {
    /// Each with its scheme.
    pub(crate) endpoints: Vec<String>,
    pub(crate) prefix: String,
    /// Whole seconds.
    pub(crate) lease_ttl: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) watch_timeout: Duration,
    /// The interval of pings, and how long their answer may take.
    pub(crate) keep_alive: (Duration, Duration),
    pub(crate) max_message_bytes: usize,
    /// The password is a secret.
    pub(crate) credentials: Option<(Credential, Credential)>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Derived<etcd_client::TlsOptions>>,
    pub(crate) timings: Timings,
}

impl Config {
    /// How the client library is to connect. Requests and streams are bounded in time where they
    /// are made, as some are meant to last.
    pub(crate) fn connect_options(&self) -> ConnectOptions {
        let (interval, timeout) = self.keep_alive;
        let options = ConnectOptions::new()
            .with_connect_timeout(self.connect_timeout)
            .with_keep_alive(interval, timeout)
            // Servers take pings on connections without a stream for an attack, and hang up.
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return options.with_tls(tls.get());
        }
        options
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("lease_ttl", &self.lease_ttl)
            .field(
                "credentials",
                &self.credentials.as_ref().map(|_| "(hidden)"),
            )
            .finish_non_exhaustive()
    }
}
