//! `ZooKeeper`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::{Process, command_runs, free_port};

/// Where Debian's package puts the library; its manifest pulls in what it needs.
const JARS: &str = "/usr/share/java/zookeeper.jar";
const LOGGER: &str = "/usr/share/java/slf4j-simple.jar";

/// One server, by itself.
#[derive(Debug)]
pub struct Server {
    // Before the directory, which it writes to.
    process: Option<Process>,
    port: u16,
    dir: TempDir,
}

/// Whether there is a server to test with; see [`available`](crate::available()).
#[must_use]
pub fn available() -> bool {
    let found = Path::new(JARS).exists() && command_runs("java", "-version");
    crate::available("zk", found, &format!("java and {JARS}"))
}

impl Server {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("plimsoll-zk")
            .tempdir()
            .expect("a directory");
        let mut server = Self {
            process: None,
            port: 0,
            dir,
        };
        // Another process may take the port between its release and the server's start.
        for _ in 0..5 {
            server.port = free_port();
            server.configure();
            if server.try_start() {
                return server;
            }
        }
        panic!("the ZooKeeper server does not start");
    }

    fn configure(&self) {
        let config = format!(
            "tickTime=200\ninitLimit=50\nsyncLimit=50\ndataDir={}\nclientPort={}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\n\
             minSessionTimeout=400\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n",
            self.dir.path().join("data").display(),
            self.port
        );
        fs::write(self.dir.path().join("zoo.cfg"), config).expect("the configuration");
    }

    fn try_start(&mut self) -> bool {
        let mut java = Command::new("java");
        java.args([
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-Dzookeeper.forceSync=no",
            "-Dznode.container.checkIntervalMs=1000",
        ])
        .args(["-cp", &format!("{JARS}:{LOGGER}")])
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(self.dir.path().join("zoo.cfg"));
        let mut process = Process::spawn(&mut java, &self.dir.path().join("log"));
        let started = process.wait_ready(|| self.serves());
        self.process = Some(process);
        started
    }

    /// The command `ruok` is answered before the server serves; and who answers may be another
    /// process that was faster to take the port.
    fn serves(&self) -> bool {
        let data = self.dir.path().join("data").display().to_string();
        let answers = |command, word: &str| self.ask(command).is_some_and(|a| a.contains(word));
        answers("srvr", "Mode:") && answers("conf", &data)
    }

    /// The answer to a four-letter command.
    #[must_use]
    pub fn ask(&self, command: &str) -> Option<String> {
        let address = self.address();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(command.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its URL, for records below `root`.
    #[must_use]
    pub fn url(&self, root: &str) -> String {
        format!("zk://{}/{root}?session_timeout=4s", self.address())
    }

    /// SIGKILL, and the end of it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, with its data.
    pub fn restart(&mut self) {
        self.kill();
        assert!(
            self.try_start(),
            "the ZooKeeper server does not start again"
        );
    }

    /// Starts it again, with nothing.
    pub fn restart_empty(&mut self) {
        self.kill();
        fs::remove_dir_all(self.dir.path().join("data")).expect("to wipe the data");
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

    fn running(&self) -> &Process {
        self.process.as_ref().expect("a running server")
    }
}
