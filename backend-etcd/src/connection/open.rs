//! One member of the cluster, connected.

use std::fmt;
use std::sync::Arc;

use etcd_client::{Client, Error as Native, KvClient, LeaseClient, WatchClient};
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use tokio::time::timeout;

use super::habits::Habits;
use crate::config::Config;
use crate::error::{failed, is_auth_disabled};

/// A connection to one member. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) kv: KvClient,
    pub(crate) watch: WatchClient,
    pub(crate) lease: LeaseClient,
    /// Which one it is, counted by the link.
    pub(crate) number: u64,
    pub(crate) habits: Arc<Habits>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.number).finish()
    }
}

/// Connects to `endpoint`, and asks it whether it can serve.
pub(crate) async fn connect(config: &Config, endpoint: &str, number: u64) -> Result<Connection> {
    let connecting = timeout(config.connect_timeout, try_connect(config, endpoint));
    let client = match connecting.await {
        Ok(connected) => connected.map_err(|e| e.with_context("endpoint", endpoint))?,
        Err(_) => {
            return Err(
                Error::new(ErrorKind::Unavailable, "no etcd server answered in time")
                    .with_context("endpoint", endpoint)
                    .with_context("waited", format!("{:?}", config.connect_timeout)),
            );
        }
    };
    let limit = config.max_message_bytes;
    Ok(Connection {
        kv: client.kv_client().max_decoding_message_size(limit),
        watch: client.watch_client().max_decoding_message_size(limit),
        lease: client.lease_client(),
        number,
        habits: Arc::default(),
    })
}

async fn try_connect(config: &Config, endpoint: &str) -> Result<Client> {
    let mut client = match &config.credentials {
        None => bare(config, endpoint).await.map_err(failed)?,
        Some((user, password)) => {
            let (user, password) = (user.text()?, password.text()?);
            let options = config.connect_options().with_user(user, password);
            match Client::connect([endpoint], Some(options)).await {
                Err(error) if is_auth_disabled(&error) => {
                    tracing::warn!(
                        endpoint,
                        "etcd does not authenticate anybody; going on without"
                    );
                    bare(config, endpoint).await.map_err(failed)?
                }
                connected => connected.map_err(failed)?,
            }
        }
    };
    // The library connects when it is first used. What is asked needs no permission.
    match client.status().await {
        // It refuses nearly everything until it is made a member that votes.
        Ok(status) if status.is_learner() => Err(Error::new(
            ErrorKind::Unavailable,
            "the etcd server is a learner, and serves nobody yet",
        )),
        Ok(status) if status.leader() == 0 => Err(Error::new(
            ErrorKind::Unavailable,
            "the etcd server has no leader",
        )),
        Ok(_) => Ok(client),
        Err(error) => {
            let error = failed(error);
            if error.kind() == ErrorKind::PermissionDenied {
                return Ok(client);
            }
            Err(error)
        }
    }
}

async fn bare(config: &Config, endpoint: &str) -> Result<Client, Native> {
    Client::connect([endpoint], Some(config.connect_options())).await
}
