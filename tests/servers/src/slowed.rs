//! A server that is given a part of its time.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A process that runs for a part of each period only, until this is dropped.
#[derive(Debug)]
pub struct Slowed {
    ended: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Slowed {
    /// The process `id` is stopped for `stopped` of each period, and runs for `running` of it.
    #[must_use]
    pub fn new(id: u32, stopped: Duration, running: Duration) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let task = thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                signal(id, "STOP");
                thread::sleep(stopped);
                signal(id, "CONT");
                thread::sleep(running);
            }
        });
        Self {
            ended,
            task: Some(task),
        }
    }

    /// A twentieth of its time: 10 of every 200 ms.
    #[must_use]
    pub fn to_a_twentieth(id: u32) -> Self {
        Self::new(id, Duration::from_millis(190), Duration::from_millis(10))
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            // It ends with the process running.
            let _panicked = task.join();
        }
    }
}

/// A process that has ended meanwhile gets none.
fn signal(id: u32, signal: &str) {
    let mut kill = Command::new("kill");
    let _status = kill.args(["-s", signal, &id.to_string()]).status();
}
