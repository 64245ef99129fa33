//! Several servers of one datacentre.

use std::time::{Duration, Instant};

use super::Server;

/// So many servers that any two are a quorum.
const SERVERS: usize = 3;
/// Ceiling for an election.
const PATIENCE: Duration = Duration::from_secs(30);

/// Three servers, of which any two go on without the third.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        // Another process may take a port between its release and the server's start.
        for _ in 0..5 {
            let mut servers = Server::founders(SERVERS);
            servers.iter_mut().for_each(Server::launch);
            if servers.iter_mut().all(Server::wait_ready) {
                return Self { servers };
            }
        }
        panic!("the Consul servers do not start");
    }

    /// Its servers.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The same, to do things to them.
    pub fn servers_mut(&mut self) -> &mut [Server] {
        &mut self.servers
    }

    /// The number of the server that leads; waits until one does.
    #[must_use]
    pub fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answers = self
                .servers
                .iter()
                .filter_map(|server| server.try_call("GET", "/v1/status/leader", ""));
            for (_, leader) in answers {
                let leads = |server: &Server| leader.contains(&server.rpc().to_string());
                if let Some(number) = self.servers.iter().position(leads) {
                    return number;
                }
            }
            assert!(Instant::now() < deadline, "no leader within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
