//! One server process on free loopback ports, in a directory of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where Debian's package puts the library; its manifest pulls in what it needs.
const JARS: &str = "/usr/share/java/zookeeper.jar";
const LOGGER: &str = "/usr/share/java/slf4j-simple.jar";
/// Ceiling for the start of a JVM on a busy machine.
const START: Duration = Duration::from_secs(60);

pub struct Server {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

/// Whether there is a server to test with. Without one the caller's test is skipped, loudly; if
/// `PLIMSOLL_TEST_REQUIRE` lists `zk`, it fails.
pub fn available() -> bool {
    let java = || {
        let mut java = Command::new("java");
        java.arg("-version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        java.status().is_ok_and(|status| status.success())
    };
    let found = Path::new(JARS).exists() && java();
    if !found {
        let required = std::env::var("PLIMSOLL_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|name| name.trim() == "zk"),
            "PLIMSOLL_TEST_REQUIRE asks for ZooKeeper, and there is none (java and {JARS})"
        );
        eprintln!("SKIPPED, NOT TESTED: there is no ZooKeeper server (java and {JARS})");
    }
    found
}

impl Server {
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("plimsoll-zk")
            .tempdir()
            .expect("a directory");
        let mut server = Self {
            dir,
            port: 0,
            child: None,
        };
        // Another process may take the port between its release and the server's start.
        for _ in 0..5 {
            server.port = free_port();
            server.configure();
            server.spawn();
            if server.wait_ready() {
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

    fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("a log");
        let child = Command::new("java")
            .args([
                "-Xmx128m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Xshare:auto",
            ])
            .args([
                "-Dzookeeper.forceSync=no",
                "-Dznode.container.checkIntervalMs=1000",
            ])
            .args(["-cp", &format!("{JARS}:{LOGGER}")])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.dir.path().join("zoo.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a server process");
        self.child = Some(child);
    }

    /// `false` if the process has ended.
    fn wait_ready(&mut self) -> bool {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if self
                .child
                .as_mut()
                .is_none_or(|child| child.try_wait().is_ok_and(|s| s.is_some()))
            {
                return false;
            }
            // The command `ruok` is answered before the server serves; and who answers may be
            // another process that was faster to take the port.
            let serves = || {
                self.ask("srvr")?
                    .contains("Mode:")
                    .then(|| self.ask("conf"))?
            };
            let data = self.dir.path().join("data").display().to_string();
            if serves().is_some_and(|settings| settings.contains(&data)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        panic!("the ZooKeeper server is not ready within {START:?}");
    }

    /// The answer to a four-letter command.
    pub fn ask(&self, command: &str) -> Option<String> {
        let address = self.address();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(command.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self, root: &str) -> String {
        format!("zk://{}/{root}?session_timeout=4s", self.address())
    }

    /// SIGKILL, and the end of it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _killed = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Starts it again, with its data.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(
            self.wait_ready(),
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
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self
            .child
            .as_ref()
            .expect("a running server")
            .id()
            .to_string();
        let sent = Command::new("kill")
            .args([signal, &id])
            .status()
            .expect("to send a signal");
        assert!(sent.success(), "kill {signal} {id}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("-- the end of the server's log");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A port that nothing listens on. Below the range from which systems choose ports for outgoing
/// connections, and never one that this process has tried before: two servers that start at the
/// same moment must not meet.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const RANGE: std::ops::Range<u32> = 12_000..32_000;
    let start = std::process::id().wrapping_mul(97);
    loop {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = RANGE.start + offset % (RANGE.end - RANGE.start);
        let port = u16::try_from(port).expect("within the range");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
