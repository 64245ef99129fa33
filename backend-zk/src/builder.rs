//! Settings, and what is wrong with them.

use std::fmt;
use std::time::Duration;

use plimsoll_backend_kit::{
    Backend, CommonSettings, Credential, Timings, check_span, invalid_setting, read_host,
};
use plimsoll_discovery_api::Result;

use crate::acl::Acl;
use crate::config::Config;
use crate::driver::ZkDriver;
use crate::keys::read_root;
use crate::login::Login;
use crate::registry::ZkRegistry;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// Long enough for a pause of the garbage collector on either side, short enough that clients do
/// not call the dead for long; what servers with the usual tick of 2 s grant as it is.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Several times what the slowest healthy server needs to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Each answer has the time of a call; this bounds hundreds of them over a slow line.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_ROOT: &str = "plimsoll";
const DEFAULT_PORT: u16 = 2181;

/// Settings of a [`ZkRegistry`].
#[must_use]
pub struct ZkBuilder {
    hosts: Vec<String>,
    root: String,
    session_timeout: Duration,
    connect_timeout: Duration,
    login: Option<Login>,
    acl: Option<Acl>,
    #[cfg(feature = "tls")]
    ca: Option<Credential>,
    #[cfg(feature = "tls")]
    identity: Option<(Credential, Credential)>,
    common: CommonSettings,
}

impl fmt::Debug for ZkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkBuilder")
            .field("hosts", &self.hosts)
            .field("root", &self.root)
            .field("session_timeout", &self.session_timeout)
            .field("login", &self.login)
            .field("acl", &self.acl)
            .finish_non_exhaustive()
    }
}

impl ZkRegistry {
    /// Settings for a handle on the ensemble of `hosts`, each `host` or `host:port`; the port is
    /// 2181 unless given.
    pub fn builder(hosts: impl IntoIterator<Item = impl Into<String>>) -> ZkBuilder {
        ZkBuilder::new(hosts)
    }
}

impl ZkBuilder {
    pub(crate) fn new(hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            hosts: hosts.into_iter().map(Into::into).collect(),
            root: DEFAULT_ROOT.into(),
            session_timeout: SESSION_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            login: None,
            acl: None,
            #[cfg(feature = "tls")]
            ca: None,
            #[cfg(feature = "tls")]
            identity: None,
            common: CommonSettings::default(),
        }
    }

    /// The path below which everything is kept, outer slashes aside. Default: `plimsoll`.
    pub fn with_root(mut self, root: impl AsRef<str>) -> Self {
        self.root = root.as_ref().trim_matches('/').to_owned();
        self
    }

    /// The session timeout to ask for: so long after it was last heard of, a crashed server is
    /// removed. What comes of it is the server's to say, see
    /// [`session_timeout`](ZkRegistry::session_timeout). Between 100 ms and 1 h. Default: 10 s.
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// How long one host may be silent before another is tried: when connecting, where a round takes
    /// up to five quarters of this for each host, and on a connection in use. The client library
    /// takes two fifths of the session timeout where this is more than three fifths of it. Between
    /// 100 ms and 1 h. Default: 3 s.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Logs in by the scheme `digest`, as user and password are when a session begins or is taken up
    /// again by this backend; each may be a [`Credential`] that changes. The client library connects
    /// again by itself within a session, for 1.4 session timeouts, as whom it has begun. Default: as
    /// nobody in particular.
    pub fn with_digest(
        mut self,
        user: impl Into<Credential>,
        password: impl Into<Credential>,
    ) -> Self {
        let (user, password) = (user.into(), password.into());
        self.login = Some(Login::Digest { user, password });
        self
    }

    /// Logs in by SASL with the mechanism DIGEST-MD5, which servers check against a list of users
    /// of their own; as user and password are at the times that [`with_digest`](Self::with_digest)
    /// names. It replaces [`with_digest`](Self::with_digest), and the other way round.
    #[cfg(feature = "sasl")]
    pub fn with_sasl(
        mut self,
        user: impl Into<Credential>,
        password: impl Into<Credential>,
    ) -> Self {
        let (user, password) = (user.into(), password.into());
        self.login = Some(Login::Sasl { user, password });
        self
    }

    /// Who may do what with the nodes that are created. Default: [`Acl::creator_all`] for whoever
    /// logs in, [`Acl::open`] otherwise.
    pub fn with_acl(mut self, acl: Acl) -> Self {
        self.acl = Some(acl);
        self
    }

    /// Encrypts connections, and trusts servers whose certificate one of the authorities `ca`, in
    /// PEM, has signed for the name or address by which they are reached. What is a [`Credential`] that
    /// changes is as it is when a connection is made. Default: no encryption.
    ///
    /// The client library takes the cryptography that is the process's default, or `aws-lc-rs`; a
    /// program with another one besides must install a default (`rustls`' `install_default`).
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, ca: impl Into<Credential>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// Presents a certificate of its own, with its key, both in PEM; needs
    /// [`with_tls`](Self::with_tls). Default: none.
    #[cfg(feature = "tls")]
    pub fn with_tls_identity(
        mut self,
        certificate: impl Into<Credential>,
        key: impl Into<Credential>,
    ) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The shortest time between two publications of a load, and with it the longest that any
    /// change, however small, goes unpublished; at most a day. Default: 2 s, and 10 s for changes below both 8 and
    /// a tenth.
    pub fn with_load_interval(mut self, interval: Duration) -> Self {
        self.common.load_interval = Some(interval);
        self
    }

    /// Changes how this handle times what it does.
    pub fn with_timings(mut self, change: impl FnOnce(&mut Timings) + Send + 'static) -> Self {
        self.common.change_timings(change);
        self
    }

    /// Makes the handle. It connects when it is first used.
    ///
    /// # Errors
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming the setting at fault.
    pub fn build(self) -> Result<ZkRegistry> {
        let hosts = self
            .hosts
            .iter()
            .map(|host| read_host("host", host, DEFAULT_PORT))
            .collect::<Result<Vec<_>>>()?;
        if hosts.is_empty() {
            return Err(invalid_setting("hosts", "", "are needed, at least one"));
        }
        let root = read_root(&self.root)?;
        for (name, span) in [
            ("session_timeout", self.session_timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            check_span(
                name,
                span,
                Duration::from_millis(100)..=Duration::from_secs(3600),
            )?;
        }
        let login = self.login;
        login.as_ref().map_or(Ok(()), Login::check)?;
        #[cfg(feature = "tls")]
        let tls = read_tls(self.ca, self.identity)?;
        let acl = self.acl.unwrap_or_else(|| match login {
            Some(_) => Acl::creator_all(),
            None => Acl::open(),
        });
        #[cfg(feature = "tls")]
        let is_somebody = login.is_some() || tls.as_ref().is_some_and(Tls::has_identity);
        #[cfg(not(feature = "tls"))]
        let is_somebody = login.is_some();
        if acl.names_the_creator() && !is_somebody {
            return Err(invalid_setting(
                "acl",
                &format!("{acl:?}"),
                "names the creator, who does not log in",
            ));
        }
        let timings = self.common.apply(timings(self.session_timeout))?;
        let config = Config {
            hosts,
            root,
            session_timeout: self.session_timeout,
            connect_timeout: self.connect_timeout,
            login,
            acl,
            #[cfg(feature = "tls")]
            tls,
            timings,
        };
        Ok(ZkRegistry(Backend::new(ZkDriver::new(config))))
    }
}

#[cfg(feature = "tls")]
fn read_tls(
    ca: Option<Credential>,
    identity: Option<(Credential, Credential)>,
) -> Result<Option<Tls>> {
    let Some(ca) = ca else {
        return match identity {
            None => Ok(None),
            Some(_) => Err(invalid_setting(
                "tls_ca",
                "",
                "is needed with a certificate of one's own",
            )),
        };
    };
    Tls::new(ca, identity).map(Some)
}

/// A record stands as long as its session; its owner must not believe in it for longer.
fn timings(session: Duration) -> Timings {
    let mut timings = Timings::default();
    timings.lease = Some(session);
    timings.renew_interval = session / 3;
    timings.list_timeout = LIST_TIMEOUT;
    // The connection tells at once when it is there again; what is left is to spread the herd.
    timings.backoff.cap = Duration::from_secs(2);
    timings.hold_down.grace = timings.hold_down.grace.max(session * 3);
    timings
}
