//! The wall clock of a child process, which jumps on demand.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::command_runs;

/// The program that knows where its library is.
const PROGRAM: &str = "faketime";

/// What processes that are started with its [`environment`](Self::environment) take for the time of
/// day; it jumps while they run. What is measured by the monotonic clock (`Instant`, timeouts,
/// tokio's time) is as it is.
///
/// By libfaketime, which is loaded into the process before the C library. Dropping this ends the
/// jumps: drop it after its processes.
#[derive(Debug)]
pub struct WallClock {
    library: OsString,
    dir: TempDir,
}

impl WallClock {
    /// Whether the clock of a process can be made to jump; see [`available`](crate::available()).
    /// Its name is `clock`.
    #[must_use]
    pub fn available() -> bool {
        crate::available("clock", command_runs(PROGRAM, "--version"), PROGRAM)
    }

    /// One that tells the time as it is.
    #[must_use]
    pub fn start() -> Self {
        let clock = Self {
            library: library(),
            dir: tempfile::Builder::new()
                .prefix("plimsoll-clock")
                .tempdir()
                .expect("a directory"),
        };
        clock.jump_to(0);
        clock
    }

    /// What a process must find in its environment to go by this clock.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset().into()),
            // Looked at whenever the time is asked for, not every ten seconds.
            ("FAKETIME_NO_CACHE", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// From now on it is `seconds` ahead of the true time, or behind it if they are negative.
    pub fn jump_to(&self, seconds: i64) {
        let (file, next) = (self.offset(), self.dir.path().join("next"));
        fs::write(&next, format!("{seconds:+}\n")).expect("the offset");
        // At one stroke: nobody reads a half of it.
        fs::rename(next, file).expect("the offset");
    }

    fn offset(&self) -> PathBuf {
        self.dir.path().join("offset")
    }
}

/// Where the library is, which the program says by what it gives to those that it starts.
fn library() -> OsString {
    let output = Command::new(PROGRAM)
        .args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"])
        .output()
        .unwrap_or_else(|e| panic!("{PROGRAM} does not start: {e}"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.trim().is_empty(), "{said}");
    said.trim().into()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    use std::time::{Duration, Instant, SystemTime};

    use super::*;

    const PROCESS: &str = "clock::tests::process_that_tells_its_time";

    /// Started by the test below, which ends it.
    #[test]
    #[ignore = "a process of the other test"]
    fn process_that_tells_its_time() {
        let start = Instant::now();
        loop {
            println!("time {} {}", seconds(), start.elapsed().as_millis());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn seconds() -> i64 {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        i64::try_from(time.unwrap().as_secs()).unwrap()
    }

    #[test]
    fn a_running_process_sees_its_wall_clock_jump_and_nothing_else() {
        if !WallClock::available() {
            return;
        }
        let clock = WallClock::start();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", PROCESS])
            .envs(clock.environment())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let started = Instant::now();
        for offset in [0, 3_600, -3_600, 0] {
            clock.jump_to(offset);
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                assert!(
                    Instant::now() < deadline,
                    "the clock does not jump to {offset}"
                );
                let line = lines.next().unwrap().unwrap();
                let Some(told) = line.strip_prefix("time ") else {
                    continue;
                };
                let (time, elapsed) = told.split_once(' ').unwrap();
                let elapsed = Duration::from_millis(elapsed.parse().unwrap());
                assert!(elapsed <= started.elapsed(), "{elapsed:?}");
                let ahead = time.parse::<i64>().unwrap() - seconds();
                if (ahead - offset).abs() <= 2 {
                    break;
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
