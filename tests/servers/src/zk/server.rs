//! One server.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::release::Release;
use crate::{Process, Slowed, free_port};

/// One server, by itself or a member of an [`Ensemble`](super::Ensemble).
#[derive(Debug)]
pub struct Server {
    // Before the directory, which it writes to.
    process: Option<Process>,
    port: u16,
    dir: TempDir,
    setup: Setup,
}

/// What is particular to a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Setup {
    /// The chosen release, unless it is this.
    pub(super) release: Option<Release>,
    /// Lines of its configuration.
    pub(super) settings: String,
    /// Options of its Java process.
    pub(super) options: Vec<String>,
    /// Its number in an ensemble.
    pub(super) number: Option<usize>,
}

impl Server {
    /// Starts one of the installed release, or of the one that is chosen by `PLIMSOLL_TEST_ZK`:
    /// `newest`, or the class path of a server.
    #[must_use]
    pub fn start() -> Self {
        Self::start_as(Setup::default())
    }

    /// Starts one of the newest release there is.
    #[must_use]
    pub fn start_newest() -> Self {
        Self::start_as(Setup {
            release: Some(Release::newest().expect("a newer release")),
            ..Setup::default()
        })
    }

    /// Starts one of the oldest release there is.
    #[must_use]
    pub fn start_oldest() -> Self {
        Self::start_as(Setup {
            release: Some(Release::oldest().expect("an older release")),
            ..Setup::default()
        })
    }

    /// Starts one like [`start`](Self::start), with more `settings`, lines of its configuration, and
    /// `options` of its Java process.
    #[must_use]
    pub fn start_with(settings: &str, options: &[&str]) -> Self {
        Self::start_as(Setup {
            settings: settings.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            ..Setup::default()
        })
    }

    fn start_as(setup: Setup) -> Self {
        let mut server = Self::new(setup);
        // Another process may take the port between its release and the server's start.
        for _ in 0..5 {
            server.port = free_port();
            server.launch();
            if server.wait_ready() {
                return server;
            }
        }
        panic!("the ZooKeeper server does not start");
    }

    /// Not started yet.
    pub(super) fn new(setup: Setup) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("plimsoll-zk")
            .tempdir()
            .expect("a directory");
        Self {
            process: None,
            port: free_port(),
            dir,
            setup,
        }
    }

    pub(super) fn configure(&mut self, settings: String) {
        self.setup.settings = settings;
    }

    /// Starts the process, and waits for nothing.
    pub(super) fn launch(&mut self) {
        let release = self.setup.release.clone().or_else(Release::chosen);
        let release = release.expect("an installed server");
        let data = self.dir.path().join("data");
        let config = format!(
            "tickTime=200\ninitLimit=50\nsyncLimit=50\ndataDir={}\nclientPort={}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\n\
             minSessionTimeout=400\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n{}",
            data.display(),
            self.port,
            self.setup.settings,
        );
        fs::write(self.dir.path().join("zoo.cfg"), config).expect("the configuration");
        if let Some(number) = self.setup.number {
            fs::create_dir_all(&data).expect("a directory");
            fs::write(data.join("myid"), number.to_string()).expect("its number");
        }
        let mut java = Command::new("java");
        java.args([
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-Dzookeeper.forceSync=no",
        ])
        .args(release.options)
        .args(&self.setup.options)
        .args(["-cp", &release.class_path])
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(self.dir.path().join("zoo.cfg"));
        self.process = Some(Process::spawn(&mut java, &self.dir.path().join("log")));
    }

    /// Waits until it serves; `false` if its process ends before.
    pub(super) fn wait_ready(&mut self) -> bool {
        let Some(mut process) = self.process.take() else {
            return false;
        };
        let ready = process.wait_ready(|| self.serves());
        self.process = Some(process);
        ready
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

    /// Where it keeps its configuration, its data and its log.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// SIGKILL, and the end of it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, with its data.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        assert!(
            self.wait_ready(),
            "the ZooKeeper server does not start again"
        );
    }

    /// Starts it again, with its data, and with `settings` in place of those it had.
    pub fn restart_with(&mut self, settings: &str) {
        self.configure(settings.to_owned());
        self.restart();
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

    /// Gives it a twentieth of its time, until what is returned is dropped.
    #[must_use]
    pub fn slowed(&self) -> Slowed {
        Slowed::to_a_twentieth(self.running().id())
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("a running server")
    }
}
