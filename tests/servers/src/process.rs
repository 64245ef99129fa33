//! One server process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Ceiling for a start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A child process that writes a log. Dropping it kills it; if that is in a test that fails, the
/// end of the log is printed.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which appends what it prints to `log`.
    #[must_use]
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log);
        let file = file.expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a log"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
        Self {
            child: Some(child),
            log: log.to_owned(),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("a running process").id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until `ready`; `false` if the process ends before.
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + START;
        while self.runs() {
            if ready() {
                return true;
            }
            assert!(Instant::now() < deadline, "not ready within {START:?}");
            thread::sleep(Duration::from_millis(30));
        }
        false
    }

    /// SIGKILL, and the end of it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _killed = child.kill();
            let _reaped = child.wait();
        }
    }

    /// SIGTERM, and its end, which it may take a while over.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let deadline = Instant::now() + START;
        while self.runs() {
            assert!(Instant::now() < deadline, "still running after {START:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGSTOP: it neither answers nor refuses.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends the signal of this name, as `TERM`.
    pub fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &id])
            .status()
            .expect("to send a signal");
        assert!(sent.success(), "kill -s {signal} {id}");
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failing server's log must be seen")]
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("-- the end of {}", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
