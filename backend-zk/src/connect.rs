//! Connecting, and finding out what the server understands.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_backend_kit::addresses;
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout, timeout_at};
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
    let hosts = hosts(config).await;
    let round = round(config, hosts.len());
    let connecting = timeout(round, open(connector(config, former)?, &hosts, config)).await;
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

/// The hosts, with each address of a name in its place: the client library tries the addresses of
/// one host in the time of one, so that a silent one would keep it from the others.
///
/// A name with one address stays a name, so that the library finds it again when that has changed.
/// So does any over an encrypted connection, where the certificate is for the name; the library
/// takes the name and the address from one and the same text.
async fn hosts(config: &Config) -> Vec<String> {
    if config.is_encrypted() {
        return config.hosts.clone();
    }
    let end = Instant::now() + config.connect_timeout;
    let mut hosts = Vec::with_capacity(config.hosts.len());
    for host in &config.hosts {
        let found = match timeout_at(end, addresses(host)).await {
            Ok(Ok(found)) => found,
            _ => Vec::new(),
        };
        hosts.extend(in_place_of(host, &found));
    }
    hosts
}

/// What cannot be resolved now, the library may resolve when its turn comes.
fn in_place_of(host: &str, found: &[SocketAddr]) -> Vec<String> {
    match found {
        [] | [_] => vec![host.to_owned()],
        several => several.iter().map(ToString::to_string).collect(),
    }
}

/// How long it may take to try all hosts. The client library notices an eighth late that one is
/// silent, and gives some time to the connection besides what it gives to the handshake.
fn round(config: &Config, hosts: usize) -> Duration {
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
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
        Some(Login::Digest { user, password }) => {
            let login = format!("{}:{}", user.text()?, password.text()?);
            connector = connector.with_auth("digest", login.as_bytes());
        }
        #[cfg(feature = "sasl")]
        Some(Login::Sasl { user, password }) => {
            let login = zookeeper_client::SaslOptions::digest_md5(user.text()?, password.text()?);
            connector = connector.with_sasl(login);
        }
        None => {}
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &config.tls {
        connector = connector.with_tls(tls.options());
    }
    if let Some(session) = former {
        connector = connector.with_session(session);
    }
    Ok(connector)
}

async fn open(connector: Connector, hosts: &[String], config: &Config) -> Result<Client, Native> {
    let hosts = hosts.join(",");
    match config.is_encrypted() {
        #[cfg(feature = "tls")]
        true => connector.secure_connect(&hosts).await,
        _ => connector.connect(&hosts).await,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_name_has_the_time_of_a_host_and_a_single_one_keeps_its_name() {
        let addresses = ["192.0.2.1:2181", "[2001:db8::1]:2181"];
        let found = addresses.map(|address| address.parse().unwrap());
        assert_eq!(in_place_of("zk:2181", &found), addresses);
        assert_eq!(in_place_of("zk:2181", &found[..1]), ["zk:2181"]);
        assert_eq!(in_place_of("zk:2181", &[]), ["zk:2181"]);
    }
}
