//! etcd's own proxy.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use super::{Server, program};
use crate::{Process, free_port};

/// `etcd grpc-proxy`, which speaks for a server. Dropping it ends it.
#[derive(Debug)]
pub struct GrpcProxy {
    // Before the directory, which it writes to.
    process: Process,
    address: SocketAddr,
    _dir: TempDir,
}

impl GrpcProxy {
    /// Starts one before `server`.
    #[must_use]
    pub fn start(server: &Server) -> Self {
        // Another process may take a port between its release and the proxy's start.
        for _ in 0..5 {
            let dir = TempDir::with_prefix("plimsoll-etcd").expect("a directory");
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let mut command = Command::new(program());
            command
                .args(["grpc-proxy", "start", "--data-dir"])
                .arg(dir.path().join("data"))
                .args(["--endpoints", &server.address().to_string()])
                .args(["--listen-addr", &address.to_string()])
                .args(["--advertise-client-url", &address.to_string()]);
            let mut process = Process::spawn(&mut command, &dir.path().join("log"));
            if process.wait_ready(|| TcpStream::connect(address).is_ok()) {
                return Self {
                    process,
                    address,
                    _dir: dir,
                };
            }
        }
        panic!("the etcd proxy does not start");
    }

    /// Where it listens for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGSTOP: it neither answers nor refuses.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.process.resume();
    }
}
