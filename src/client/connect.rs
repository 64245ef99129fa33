//! Opening connections.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Endpoint, Error, ErrorKind, Instance, Result};
use tokio::net::TcpStream;

use super::{AttemptExt, CallError, Client, Connection, PickRequest};

impl Client {
    /// Picks an endpoint and opens a TCP connection to it; if that fails, to another, with the
    /// pauses and limits of a [`call`](Self::call).
    ///
    /// A name with several addresses is connected to as
    /// [RFC 8305](https://www.rfc-editor.org/rfc/rfc8305#section-5) has it: the next address is
    /// tried 250 ms after the one before, or as soon as that has failed, and the first to answer
    /// is taken.
    ///
    /// The connection counts as one request in flight until it is dropped. It is plain TCP even
    /// where the instance [is secure](Instance::is_secure): the handshake is the caller's, over
    /// the connection.
    ///
    /// # Cancel safety
    /// If the future is dropped, so is the connection being opened, and it counts as cancelled.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) with a [`NoEndpoint`](super::NoEndpoint) as its
    /// source if there is nothing to connect to. [`Unavailable`](crate::ErrorKind::Unavailable) or
    /// [`TimedOut`](crate::ErrorKind::TimedOut), as the last attempt ended, if every one failed.
    pub async fn connect(&self) -> Result<Connection> {
        self.connect_for(&PickRequest::new()).await
    }

    /// [`connect`](Self::connect) to an endpoint picked for `request`.
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_for(&self, request: &PickRequest<'_>) -> Result<Connection> {
        let limit = self.tasks.limits.connect_timeout;
        let dial = |endpoint: Arc<Endpoint>| async move {
            dial(&endpoint.instance(), limit).await.or_unreachable()
        };
        // Nothing is done there before there is a connection.
        let request = request.idempotent();
        let failed = match self.call_with_pick(&request, dial).await {
            Ok((stream, pick)) => return Ok(Connection::new(stream, pick)),
            Err(CallError::NoEndpoint(error)) => return Err(error.into()),
            Err(failed) => failed,
        };
        let kind = match &failed {
            CallError::Exhausted { last, .. } => last.kind(),
            CallError::Final { error, .. } => error.kind(),
            _ => ErrorKind::TimedOut,
        };
        let attempts = match &failed {
            CallError::Exhausted { attempts, .. } | CallError::TimedOut { attempts, .. } => {
                *attempts
            }
            _ => 1,
        };
        let error = Error::new(kind, "no endpoint could be connected to")
            .with_operation("connect")
            .with_context("service", self.service().as_str())
            .with_context("attempts", attempts.to_string());
        Err(match failed.into_inner() {
            Some(last) => error.with_source(last),
            None => error,
        })
    }
}

/// Opens a TCP connection to `instance` within `limit`, the resolution of its name included; no
/// address of the name waits behind one that is silent.
pub(crate) async fn dial(instance: &Instance, limit: Duration) -> Result<TcpStream> {
    plimsoll_backend_kit::dial(&instance.authority(), limit).await
}
