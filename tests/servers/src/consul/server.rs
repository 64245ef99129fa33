//! One agent.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Process, Slowed, free_port};

/// Where `scripts/prerequisites` unpacks Debian's package.
pub(super) const UNPACKED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../target/servers/bullseye/usr/bin/consul"
);
/// Ceiling for whatever an agent does when it is asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where an agent keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Data {
    /// In memory, to be lost with the process.
    Memory,
    /// On disk.
    Disk,
}

/// One agent: a server too, by itself, or the client of one.
#[derive(Debug)]
pub struct Server {
    // Before the directory, which it writes to.
    process: Option<Process>,
    ports: [u16; 6],
    data: Data,
    settings: String,
    token: Option<String>,
    role: Role,
    dir: TempDir,
}

/// What it is to its datacentre.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// Its only server.
    Alone,
    /// One of so many servers, which begin together; they meet where this one listens for others.
    Founder { servers: usize, meeting: SocketAddr },
    /// A server that joins this one.
    Newcomer(SocketAddr),
    /// The client of this server.
    Client(SocketAddr),
}

pub(super) fn program() -> PathBuf {
    let unpacked = PathBuf::from(UNPACKED);
    if unpacked.exists() {
        unpacked
    } else {
        "consul".into()
    }
}

impl Server {
    /// Starts one.
    #[must_use]
    pub fn start(data: Data) -> Self {
        Self::start_with(data, "", None)
    }

    /// Starts one with further settings, in HCL; `token` is what [`call`](Self::call) carries.
    #[must_use]
    pub fn start_with(data: Data, settings: &str, token: Option<&str>) -> Self {
        Self::begin(data, settings, token, Role::Alone)
    }

    /// Starts an agent that is the client of `server`, and keeps its data in memory: killed and
    /// restarted, it has forgotten what it was told.
    #[must_use]
    pub fn start_client(server: &Self) -> Self {
        Self::start_client_with(server, "")
    }

    /// The same with further settings.
    #[must_use]
    pub fn start_client_with(server: &Self, settings: &str) -> Self {
        Self::begin(Data::Memory, settings, None, Role::Client(server.serf()))
    }

    /// Starts another server of the datacentre of `server`.
    #[must_use]
    pub fn start_beside(server: &Self) -> Self {
        Self::begin(Data::Disk, "", None, Role::Newcomer(server.serf()))
    }

    /// `servers` of one datacentre, none of which runs yet.
    pub(super) fn founders(servers: usize) -> Vec<Self> {
        let mut founders: Vec<Self> = Vec::new();
        for _ in 0..servers {
            let mut server = Self::new(Data::Disk, "", None, Role::Alone);
            let meeting = founders.first().unwrap_or(&server).serf();
            server.role = Role::Founder { servers, meeting };
            founders.push(server);
        }
        founders
    }

    fn begin(data: Data, settings: &str, token: Option<&str>, role: Role) -> Self {
        // Another process may take a port between its release and the server's start.
        for _ in 0..5 {
            let mut server = Self::new(data, settings, token, role);
            if server.try_start() {
                return server;
            }
        }
        panic!("the Consul agent does not start");
    }

    fn new(data: Data, settings: &str, token: Option<&str>, role: Role) -> Self {
        let dir = tempfile::Builder::new().prefix("plimsoll-consul").tempdir();
        Self {
            role,
            process: None,
            ports: std::array::from_fn(|_| free_port()),
            data,
            settings: settings.to_owned(),
            token: token.map(str::to_owned),
            dir: dir.expect("a directory"),
        }
    }

    fn try_start(&mut self) -> bool {
        self.launch();
        self.wait_ready()
    }

    /// Starts the process.
    pub(super) fn launch(&mut self) {
        let [http, https, serf, rpc, wan, dns] = self.ports;
        let only_if = |wanted: &str, port| {
            let wanted = self.settings.contains(wanted);
            if wanted { i32::from(port) } else { -1 }
        };
        let (https, wan) = (only_if("cert_file", https), only_if("datacenter", wan));
        let dns = only_if("dns_config", dns);
        let settings = format!(
            "session_ttl_min = \"500ms\"\ndisable_update_check = true\nretry_interval = \"1s\"\n\
             performance {{ raft_multiplier = 1 }}\n\
             ports {{ http = {http} https = {https} serf_lan = {serf} serf_wan = {wan} server = {rpc} dns = {dns} grpc = -1 }}\n{}",
            self.settings
        );
        fs::write(self.path("agent.hcl"), settings).expect("the settings");
        let mut command = Command::new(program());
        let data = self.path("data");
        command.arg("agent");
        match (self.role, self.data) {
            (Role::Client(server), _) => {
                // A node that comes back keeps its identity, and nothing else.
                let _not_there_yet = fs::remove_dir_all(data.join("services"));
                let _not_there_yet = fs::remove_dir_all(data.join("checks"));
                command.arg(format!("-retry-join={server}"))
            }
            (Role::Newcomer(server), _) => {
                command.args(["-server", &format!("-retry-join={server}")])
            }
            (Role::Founder { servers, meeting }, _) => {
                let expected = format!("-bootstrap-expect={servers}");
                command.args(["-server", &expected, &format!("-retry-join={meeting}")])
            }
            (Role::Alone, Data::Memory) => command.arg("-dev"),
            (Role::Alone, Data::Disk) => command.args(["-server", "-bootstrap-expect=1"]),
        };
        if !matches!((self.role, self.data), (Role::Alone, Data::Memory)) {
            command.arg("-data-dir").arg(data);
        }
        command
            .args([
                "-node",
                &self.node(),
                "-bind",
                "127.0.0.1",
                "-client",
                "127.0.0.1",
            ])
            .args([
                "-disable-host-node-id",
                "-log-level",
                "warn",
                "-config-file",
            ])
            .arg(self.path("agent.hcl"));
        self.process = Some(Process::spawn(&mut command, &self.path("log")));
    }

    /// Waits until it serves; `false` if it ends before.
    pub(super) fn wait_ready(&mut self) -> bool {
        let Some(mut process) = self.process.take() else {
            return false;
        };
        let started = process.wait_ready(|| self.serves());
        self.process = Some(process);
        started
    }

    /// The name of its node.
    #[must_use]
    pub fn node(&self) -> String {
        format!("n{}", self.ports[0])
    }

    /// Where it listens for the agents of its datacentre.
    fn serf(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[2]))
    }

    /// Where it listens for the servers of other datacentres, if its settings name a `datacenter`.
    #[must_use]
    pub fn wan_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[4]))
    }

    /// Where it listens for the servers of its own.
    pub(super) fn rpc(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[3]))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// There is a leader, and it knows this node: before that there are no sessions.
    fn serves(&self) -> bool {
        let node = format!("/v1/health/node/{}", self.node());
        self.try_call("GET", &node, "")
            .is_some_and(|(status, body)| status == 200 && body.contains("serfHealth"))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[0]))
    }

    /// Where it listens for TLS, if its settings name a `cert_file`.
    #[must_use]
    pub fn tls_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[1]))
    }

    /// Where it answers to DNS, if its settings name a `dns_config`.
    #[must_use]
    pub fn dns_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[5]))
    }

    /// A directory of its own, for whatever its settings name.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it answers to `method` on `path`: its status and body.
    ///
    /// Repeated until there is an answer, and none that it cannot serve just now.
    #[must_use]
    pub fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.try_call(method, path, body);
            if let Some((status, body)) = &answer
                && (*status != 500 || !body.contains("leader"))
            {
                return (*status, body.clone());
            }
            assert!(Instant::now() < deadline, "{method} {path}: {answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same, once; `None` if there is no answer.
    #[must_use]
    pub fn try_call(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let (head, body) = self.exchange(method, path, body.as_bytes())?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// The head and the body of the answer, as they are.
    fn exchange(&self, method: &str, path: &str, body: &[u8]) -> Option<(String, Vec<u8>)> {
        let mut stream =
            TcpStream::connect_timeout(&self.address(), Duration::from_secs(1)).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .ok()?;
        // Of HTTP/1.0 the answer ends with the connection, and is in one piece.
        let token = self
            .token
            .as_deref()
            .map_or_else(String::new, |token| format!("X-Consul-Token: {token}\r\n"));
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n{token}\r\n"
        )
        .ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        let body = answer.split_off(end + 4);
        Some((String::from_utf8_lossy(&answer).into_owned(), body))
    }

    /// Has the program itself make an authority, a server's certificate and a client's, in `dir`:
    /// `ca.pem`, `server.pem`, `server.key`, `client.pem` and `client.key`.
    pub fn make_certificates(dir: &Path) {
        let run = |arguments: &[&str]| {
            let mut command = Command::new(program());
            let output = command.arg("tls").args(arguments).current_dir(dir).output();
            let output = output.expect("the program");
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        };
        run(&["ca", "create"]);
        run(&[
            "cert",
            "create",
            "-server",
            "-additional-ipaddress",
            "127.0.0.1",
        ]);
        run(&["cert", "create", "-client"]);
        for (made, name) in [
            ("consul-agent-ca.pem", "ca.pem"),
            ("dc1-server-consul-0.pem", "server.pem"),
            ("dc1-server-consul-0-key.pem", "server.key"),
            ("dc1-client-consul-0.pem", "client.pem"),
            ("dc1-client-consul-0-key.pem", "client.key"),
        ] {
            fs::rename(dir.join(made), dir.join(name)).expect("a certificate");
        }
    }

    /// All its data, to be [restored](Self::restore).
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let (head, body) = self
            .exchange("GET", "/v1/snapshot", b"")
            .expect("an answer");
        assert!(head.contains(" 200 "), "{head}");
        body
    }

    /// Goes back to a snapshot.
    pub fn restore(&self, snapshot: &[u8]) {
        let (head, _) = self
            .exchange("PUT", "/v1/snapshot", snapshot)
            .expect("an answer");
        assert!(head.contains(" 200 "), "{head}");
    }

    /// SIGKILL, and the end of it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, with the data that it has kept.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.try_start(), "the Consul agent does not start again");
    }

    /// Starts it again, as [`restart`](Self::restart), and does not wait until it
    /// [is ready](Self::is_ready): one of several servers may not be before the others.
    pub fn relaunch(&mut self) {
        self.kill();
        self.launch();
    }

    /// Waits until it serves; `false` if it has ended before.
    pub fn is_ready(&mut self) -> bool {
        self.wait_ready()
    }

    /// Starts it again, with nothing.
    pub fn restart_empty(&mut self) {
        self.kill();
        if self.data == Data::Disk {
            fs::remove_dir_all(self.path("data")).expect("to wipe the data");
        }
        self.restart();
    }

    /// SIGSTOP: it neither answers nor refuses.
    pub fn pause(&self) {
        self.running().pause();
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.running().resume();
    }

    /// Gives it a twentieth of its time, until what is returned is dropped.
    #[must_use]
    pub fn slowed(&self) -> Slowed {
        Slowed::to_a_twentieth(self.running().id())
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("a running agent")
    }
}
