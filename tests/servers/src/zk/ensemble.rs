//! Several servers with one state.

use super::Server;
use super::server::Setup;
use crate::free_port;

/// So many servers that any two are a quorum.
const MEMBERS: usize = 3;

/// Three servers, of which any two go on without the third.
#[derive(Debug)]
pub struct Ensemble {
    members: Vec<Server>,
}

impl Ensemble {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it with more settings, each a line.
    #[must_use]
    pub fn start_with(settings: &str) -> Self {
        for _ in 0..5 {
            let mut ensemble = Self::new(settings);
            ensemble.members.iter_mut().for_each(Server::launch);
            if ensemble.members.iter_mut().all(Server::wait_ready) {
                return ensemble;
            }
        }
        panic!("the ZooKeeper ensemble does not start");
    }

    fn new(settings: &str) -> Self {
        let member = |number| {
            Server::new(Setup {
                number: Some(number),
                ..Setup::default()
            })
        };
        let mut members: Vec<_> = (1..=MEMBERS).map(member).collect();
        let line = |number| {
            format!(
                "server.{number}=127.0.0.1:{}:{}\n",
                free_port(),
                free_port()
            )
        };
        let all: String = (1..=MEMBERS).map(line).collect();
        for server in &mut members {
            server.configure(format!("{all}{settings}"));
        }
        Self { members }
    }

    /// Its servers.
    #[must_use]
    pub fn members(&self) -> &[Server] {
        &self.members
    }

    /// The number of the server that leads now.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leads = |server: &Server| {
            let state = server.ask("srvr");
            state.is_some_and(|state| state.contains("Mode: leader"))
        };
        self.members.iter().position(leads)
    }

    /// SIGKILL of one server.
    pub fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Starts those again that were killed, and waits until all serve.
    pub fn heal(&mut self) {
        let dead = |server: &&mut Server| !server.is_running();
        self.members
            .iter_mut()
            .filter(dead)
            .for_each(Server::launch);
        let served = self.members.iter_mut().all(Server::wait_ready);
        assert!(served, "a ZooKeeper server does not start again");
    }
}
