//! etcd.

mod grpc_proxy;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

pub use self::grpc_proxy::GrpcProxy;
use crate::{Mode, Process, Proxy, Slowed, command_runs, free_port};

/// The program to test with, as a path; by default the one that is installed.
const PROGRAM: &str = "PLIMSOLL_TEST_ETCD";

/// What takes snapshots and restores them.
const TOOL: &str = "etcdctl";

/// The token of a cluster that was given none.
pub const DEFAULT_TOKEN: &str = "etcd-cluster";

/// One server: by itself, or a member of a cluster.
#[derive(Debug)]
pub struct Server {
    // Before the directory, which it writes to.
    process: Option<Process>,
    name: String,
    port: u16,
    peer_port: u16,
    /// What the other members reach it through, if anything.
    gate: Option<Proxy>,
    /// How others in its cluster find each other; empty if it is by itself.
    cluster: String,
    options: Vec<String>,
    tls: bool,
    metrics_port: u16,
    dir: TempDir,
}

/// Three servers that hold one registry.
#[derive(Debug)]
#[non_exhaustive]
pub struct Cluster {
    /// Its members.
    pub members: Vec<Server>,
}

/// Whether there is a server to test with; see [`available`](crate::available()).
#[must_use]
pub fn available() -> bool {
    let program = program();
    let found = command_runs(&program, "--version");
    crate::available("etcd", found, &program)
}

fn program() -> String {
    std::env::var(PROGRAM).unwrap_or_else(|_| "etcd".into())
}

impl Server {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more arguments, such as `--quota-backend-bytes=16777216`.
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        Self::try_each_port(|| Self::new("n1", options))
    }

    /// Starts one that speaks TLS, with the files that the arguments name.
    #[must_use]
    pub fn start_encrypted(options: &[&str]) -> Self {
        Self::try_each_port(|| Self {
            tls: true,
            ..Self::new("n1", options)
        })
    }

    /// Another process may take a port between its release and the server's start.
    fn try_each_port(make: impl Fn() -> Self) -> Self {
        for _ in 0..5 {
            let mut server = make();
            server.spawn();
            if server.wait_ready() {
                return server;
            }
        }
        panic!("the etcd server does not start");
    }

    fn new(name: &str, options: &[&str]) -> Self {
        Self {
            process: None,
            name: name.to_owned(),
            port: free_port(),
            peer_port: free_port(),
            gate: None,
            metrics_port: free_port(),
            cluster: String::new(),
            options: options.iter().map(ToString::to_string).collect(),
            tls: false,
            dir: tempfile::Builder::new()
                .prefix("plimsoll-etcd")
                .tempdir()
                .expect("a directory"),
        }
    }

    /// Where it listens for other members.
    #[must_use]
    pub fn peer_url(&self) -> String {
        let gate = self.gate.as_ref().map(Proxy::address);
        format!("http://{}", gate.unwrap_or_else(|| self.peer_address()))
    }

    fn peer_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.peer_port))
    }

    fn client_url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    fn spawn(&mut self) {
        let (client, peer) = (self.client_url(), self.peer_url());
        let alone = format!("{}={peer}", self.name);
        let cluster = if self.cluster.is_empty() {
            alone.as_str()
        } else {
            self.cluster.as_str()
        };
        let mut command = Command::new(program());
        command
            .arg("--data-dir")
            .arg(self.data())
            .args(["--name", &self.name])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args([
                "--listen-peer-urls",
                &format!("http://{}", self.peer_address()),
            ])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", cluster])
            .args([
                "--listen-metrics-urls",
                &format!("http://{}", self.metrics_address()),
            ])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--logger", "zap", "--log-level", "warn"])
            // What a power cut would lose is nobody's concern here.
            .arg("--unsafe-no-fsync")
            .args(&self.options);
        self.process = Some(Process::spawn(&mut command, &self.dir.path().join("log")));
    }

    fn wait_ready(&mut self) -> bool {
        let metrics = self.metrics_address();
        let mut process = self.process.take().expect("a started process");
        let ready = process.wait_ready(|| {
            get(metrics, "/health").is_some_and(|answer| answer.contains("\"true\""))
        });
        self.process = Some(process);
        ready
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A directory of its own, for files that it is to read.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where it listens for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its URL, for records below `prefix`.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        format!("etcd://{}/{prefix}?lease_ttl=4s", self.address())
    }

    /// The sum of all series of a metric, such as `etcd_debugging_mvcc_watcher_total`; 0 if there is
    /// none.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_with(name, "")
    }

    /// How many streams of a method, such as `Watch`, are open.
    #[must_use]
    pub fn streams(&self, method: &str) -> f64 {
        let label = format!("grpc_method=\"{method}\"");
        self.calls(method) - self.metric_with("grpc_server_handled_total", &label)
    }

    /// How often a method, such as `Authenticate`, was called.
    #[must_use]
    pub fn calls(&self, method: &str) -> f64 {
        let label = format!("grpc_method=\"{method}\"");
        self.metric_with("grpc_server_started_total", &label)
    }

    /// The sum of those series that have `label`.
    fn metric_with(&self, name: &str, label: &str) -> f64 {
        let text = get(self.metrics_address(), "/metrics").expect("the server's metrics");
        let of_name = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label))
        };
        let values = text.lines().filter(of_name);
        values
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// SIGKILL, and the end of it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and the end of it: it says farewell to its clients.
    pub fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            process.stop();
        }
        self.process = None;
    }

    /// Starts it again, with its data.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.wait_ready(), "the etcd server does not start again");
    }

    /// Starts it again, with its data, and does not wait: it may have nobody to agree with.
    pub fn restart_unready(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Starts it again, with nothing.
    pub fn restart_empty(&mut self) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("to wipe the data");
        self.restart();
    }

    /// Its data as it is now, as a copy. It does not run meanwhile.
    #[must_use]
    pub fn copy_data(&mut self) -> TempDir {
        self.stop();
        let copy = TempDir::with_prefix("plimsoll-etcd").expect("a directory");
        copy_all(&self.data(), &copy.path().join("data"));
        self.restart();
        copy
    }

    /// A snapshot of its data, as etcd's own tool takes it while the server runs.
    #[must_use]
    pub fn snapshot(&self) -> TempDir {
        let dir = TempDir::with_prefix("plimsoll-etcd").expect("a directory");
        let mut tool = Command::new(TOOL);
        tool.args(["--endpoints", &self.client_url(), "snapshot", "save"])
            .arg(dir.path().join("snapshot"));
        run(&mut tool);
        dir
    }

    /// Starts it again, with a snapshot that etcd's own tool restores. It is the same cluster as
    /// before with the same `token`, which is [`DEFAULT_TOKEN`] of one that was never restored, and
    /// another one with another.
    pub fn restore(&mut self, snapshot: &TempDir, token: &str) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("to wipe the data");
        let peer = self.peer_url();
        let mut tool = Command::new(TOOL);
        tool.args(["snapshot", "restore"])
            .arg(snapshot.path().join("snapshot"))
            .arg("--data-dir")
            .arg(self.data())
            .args(["--name", &self.name])
            .args(["--initial-cluster", &format!("{}={peer}", self.name)])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster-token", token]);
        run(&mut tool);
        self.restart();
    }

    /// Starts it again, with what it had when the copy was made.
    pub fn restart_from(&mut self, copy: &TempDir) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("to wipe the data");
        copy_all(&copy.path().join("data"), &self.data());
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
        self.process.as_ref().expect("a running server")
    }

    fn metrics_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.metrics_port))
    }
}

impl Cluster {
    /// Starts three members.
    #[must_use]
    pub fn start() -> Self {
        Self::start_each(Server::new)
    }

    /// Starts three members, of which each can be [parted](Self::part) from the others.
    #[must_use]
    pub fn start_separable() -> Self {
        Self::start_each(|name, options| {
            let mut server = Server::new(name, options);
            server.gate = Some(Proxy::start(server.peer_address(), Mode::Pass));
            server
        })
    }

    fn start_each(new: impl Fn(&str, &[&str]) -> Server) -> Self {
        for _ in 0..5 {
            let names = ["n1", "n2", "n3"];
            let mut members: Vec<_> = names.iter().map(|n| new(n, &[])).collect();
            let peers = members
                .iter()
                .map(|m| format!("{}={}", m.name, m.peer_url()));
            let cluster = peers.collect::<Vec<_>>().join(",");
            for member in &mut members {
                member.cluster.clone_from(&cluster);
                member.spawn();
            }
            if members.iter_mut().all(Server::wait_ready) {
                return Self { members };
            }
        }
        panic!("the etcd cluster does not start");
    }

    /// Cuts the member at `index` off from the others, both ways, whose id is `id`; its clients reach
    /// it as before.
    pub fn part(&self, index: usize, id: u64) {
        // By what members say of themselves in every request that they make of each other.
        let itself = format!("X-Server-From: {id:x}\r\n");
        for (other, gate) in self.gates() {
            if other == index {
                gate.set(Mode::Hold);
            } else {
                gate.bar(Some(&itself));
            }
        }
    }

    /// Undoes what [`part`](Self::part) has done.
    pub fn unite(&self) {
        for (_, gate) in self.gates() {
            gate.bar(None);
            gate.set(Mode::Pass);
        }
    }

    fn gates(&self) -> impl Iterator<Item = (usize, &Proxy)> {
        let gate = |member: &'_ Server| member.gate.is_some();
        assert!(self.members.iter().all(gate), "not started as separable");
        let members = self.members.iter().enumerate();
        members.filter_map(|(index, member)| Some((index, member.gate.as_ref()?)))
    }

    /// A server that is to join; the others are to be told of its [`peer_url`](Server::peer_url)
    /// before it [joins](Self::join).
    #[must_use]
    pub fn candidate(&self, name: &str) -> Server {
        Server::new(name, &["--initial-cluster-state=existing"])
    }

    /// Starts a server that the others have been told of, and makes it one of the members.
    pub fn join(&mut self, server: Server) {
        self.join_unready(server);
        let joined = self.members.last_mut().expect("the one that joined");
        assert!(joined.wait_ready(), "the new member does not start");
    }

    /// The same, of one that is not to vote yet, and says of itself that it is not ready.
    pub fn join_unready(&mut self, mut server: Server) {
        let others = self.members.iter().chain([&server]);
        let peers = others.map(|m| format!("{}={}", m.name, m.peer_url()));
        server.cluster = peers.collect::<Vec<_>>().join(",");
        server.spawn();
        self.members.push(server);
    }
}

fn run(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "to copy {}",
        from.display()
    );
}

/// The answer to a plain request.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
