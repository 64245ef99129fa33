//! The addresses of the agent's name, of which the one that answers goes first.

use std::time::Duration;

use plimsoll_backend_kit::reachable;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Resolves the one name that is asked for. The HTTP client tries the addresses one after the
/// other, and would give a silent one its share of the time for each new connection.
#[derive(Debug)]
pub(crate) struct Reach {
    /// `host:port`.
    authority: String,
    limit: Duration,
}

impl Reach {
    /// Of a request's `timeout` half is left for the request.
    pub(crate) fn new(authority: &str, timeout: Duration) -> Self {
        Self {
            authority: authority.to_owned(),
            limit: timeout / 2,
        }
    }
}

impl Resolve for Reach {
    fn resolve(&self, _name: Name) -> Resolving {
        let (authority, limit) = (self.authority.clone(), self.limit);
        Box::pin(async move {
            let found = reachable(&authority, limit).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use plimsoll_discovery_api::Error;

    use super::*;

    #[tokio::test]
    async fn the_agents_name_is_resolved_with_its_port_and_a_bad_one_says_so() {
        let name = || "localhost".parse::<Name>().unwrap();
        let reach = Reach::new("localhost:8500", Duration::from_secs(3));
        let found: Vec<_> = reach.resolve(name()).await.unwrap().collect();
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 8500));
        assert!(found.contains(&local), "{found:?}");
        let reach = Reach::new("no-such-host.invalid:8500", Duration::from_secs(3));
        let Err(error) = reach.resolve(name()).await else {
            panic!("resolved");
        };
        let error = error.downcast_ref::<Error>().unwrap();
        assert!(
            error.to_string().contains("no-such-host.invalid"),
            "{error}"
        );
    }
}
