//! Connecting, and finding out what the server understands.

use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::time::timeout;
use zookeeper_client::{
    Acls, Client, Connector, CreateMode, Error as Native, SessionInfo, SessionState, StateWatcher,
};

use crate::builder::Config;
use crate::error::failed;
use crate::login::Login;

/// What the server at the other end understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Watches on whole branches and reads of several nodes at once: since 3.6.
    pub(crate) branches: bool,
    /// Nodes that go when they are empty: since 3.5.1.
    pub(crate) containers: bool,
    /// Creations that tell what they have created: since 3.5.0, and nothing works without.
    creations: bool,
}

impl Default for Abilities {
    /// What every release of the last years understands.
    fn default() -> Self {
        Self {
            branches: true,
            containers: true,
            creations: true,
        }
    }
}

/// Connects to one of the hosts, each of which is given the time that is set for one: to the session
/// `former`, or for a new one.
pub(crate) async fn connect(
    config: &Config,
    former: Option<SessionInfo>,
) -> Result<(Client, Abilities)> {
    let limit = config.connect_timeout;
    let round = round(config);
    let connecting = timeout(round, open(connector(config, former)?, config)).await;
    let Ok(client) = connecting else {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "no ZooKeeper server answered in time",
        )
        .with_context("waited", format!("{round:?}")));
    };
    let client = client.map_err(|native| not_connected(native, config))?;
    let abilities = abilities(&client, limit).await;
    if !abilities.creations {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a ZooKeeper server before 3.5",
        ));
    }
    Ok((client, abilities))
}

/// How long it may take to try all hosts. The client library notices an eighth late that one is
/// silent, and gives some time to the connection besides what it gives to the handshake.
fn round(config: &Config) -> Duration {
    let hosts = u32::try_from(config.hosts.len()).unwrap_or(u32::MAX);
    config.connect_timeout.mul_f64(1.25).saturating_mul(hosts)
}

/// Why a handshake failed the client library keeps to itself; as it may be what keeps a healthy
/// server out of reach, that is said.
fn not_connected(native: Native, config: &Config) -> Error {
    let error = failed(native);
    if config.is_encrypted() && error.kind() == ErrorKind::Unavailable {
        return error.with_context("perhaps", "a certificate that one side does not trust");
    }
    error
}

fn connector(config: &Config, former: Option<SessionInfo>) -> Result<Connector> {
    let mut connector = Client::connector()
        .with_session_timeout(config.session_timeout)
        // Otherwise one host that swallows everything takes longer than a round may.
        .with_connection_timeout(config.connect_timeout)
        .with_fail_eagerly();
    match &config.login {
        Some(Login::Digest(user)) => connector = connector.with_auth("digest", user.as_bytes()),
        #[cfg(feature = "sasl")]
        Some(Login::Sasl { user, password }) => {
            let login = zookeeper_client::SaslOptions::digest_md5(user.clone(), password.clone());
            connector = connector.with_sasl(login);
        }
        None => {}
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &config.tls {
        connector = connector.with_tls(tls.options()?);
    }
    if let Some(session) = former {
        connector = connector.with_session(session);
    }
    Ok(connector)
}

async fn open(connector: Connector, config: &Config) -> Result<Client, Native> {
    let hosts = config.hosts.join(",");
    #[cfg(feature = "tls")]
    if config.tls.is_some() {
        return connector.secure_connect(&hosts).await;
    }
    connector.connect(&hosts).await
}

/// Asks the server what it understands, before anybody else asks it for anything: to a request that
/// it does not know, a server says so and then closes the connection, with all that was under way.
///
/// A server that does not answer within `limit` is taken for a newer one: to give up the client
/// would be to end its session, and one that turns out to be old is asked again, as it closes the
/// connection.
async fn abilities(client: &Client, limit: Duration) -> Abilities {
    let mut states = client.state_watcher();
    states.state();
    let mut abilities = Abilities {
        branches: timeout(limit, knows_branches(client)).await.unwrap_or(true),
        ..Abilities::default()
    };
    if !abilities.branches {
        connected_again(&mut states).await;
        let knows = timeout(limit, knows_nodes(client, CreateMode::Container)).await;
        abilities.containers = knows.unwrap_or(true);
        if !abilities.containers {
            connected_again(&mut states).await;
            let knows = timeout(limit, knows_nodes(client, CreateMode::Persistent)).await;
            abilities.creations = knows.unwrap_or(true);
        }
        tracing::info!(?abilities, "an old ZooKeeper server");
    }
    abilities
}

/// Asks anew after a reconnect, which may have led to a server of another release. What was once
/// not understood by this ensemble is not tried again on this session: finding out costs a
/// connection.
pub(crate) async fn asked_again(client: &Client, known: Abilities, limit: Duration) -> Abilities {
    if known.branches {
        abilities(client, limit).await
    } else {
        known
    }
}

/// Reads of several nodes at once came with 3.6, as did watches on whole branches, and leave no
/// trace.
async fn knows_branches(client: &Client) -> bool {
    let mut reader = client.new_multi_reader();
    if reader.add_get_data("/").is_err() {
        return true;
    }
    !matches!(reader.commit().await, Err(Native::Unimplemented))
}

/// There is a node of that name already, so nothing is made.
async fn knows_nodes(client: &Client, mode: CreateMode) -> bool {
    let options = mode.with_acls(Acls::anyone_all());
    let made = client.create("/zookeeper", b"", &options).await;
    !matches!(made, Err(Native::Unimplemented))
}

/// Waits until the connection that the server closed has been replaced, which the client gives up
/// with the session.
async fn connected_again(states: &mut StateWatcher) {
    loop {
        let state = states.changed().await;
        if state == SessionState::SyncConnected || state.is_terminated() {
            return;
        }
    }
}
