//! Connections, and how they are made.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_backend_kit::addresses;
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout, timeout_at};
use zookeeper_client::{Client, Connector, Error as Native, SessionInfo};

use crate::config::Config;
use crate::error::failed;
use crate::login::Login;

/// A connection in use.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) session: i64,
    /// How long a call is waited for.
    pub(crate) limit: Duration,
}

impl Connection {
    /// Awaits one of the answers that are under way. Each has the time of a call from the one
    /// before it, so that to read many nodes may take longer, and a server that answers no more is
    /// noticed nevertheless.
    pub(crate) async fn answer<T>(
        &self,
        request: impl Future<Output = Result<T, Native>>,
    ) -> Result<T, Native> {
        let answered = timeout(self.limit, request).await;
        answered.unwrap_or(Err(Native::Timeout))
    }
}

/// Connects to one of the hosts, each of which is given the time that is set for one: to the session
/// `former`, or for a new one.
pub(crate) async fn connect(config: &Config, former: Option<SessionInfo>) -> Result<Client> {
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
    check_release(&client, limit).await?;
    Ok(client)
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

/// Asks the server for what came with 3.6, as did watches on whole branches, before anybody else asks
/// it for anything: to a request that it does not know, a server says so and then closes the
/// connection, with all that was under way.
///
/// One that does not answer within `limit` is taken for a newer one, as to give up the client would be
/// to end its session; each request that an older one does not know is refused by itself.
async fn check_release(client: &Client, limit: Duration) -> Result<()> {
    let mut reader = client.new_multi_reader();
    let asked = reader.add_get_data("/");
    asked.map_err(failed)?;
    match timeout(limit, reader.commit()).await {
        Ok(Err(Native::Unimplemented)) => Err(Error::new(
            ErrorKind::Unsupported,
            "a ZooKeeper server before 3.6",
        )),
        _ => Ok(()),
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
