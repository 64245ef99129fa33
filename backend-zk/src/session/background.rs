//! A runtime of a session's own.
//!
//! The client library keeps a session by a task, and whoever awaits an event of a node panics if that
//! task is dropped before the event has come. A runtime that ends drops its tasks in any order, some
//! while others still run. So the session is kept in a runtime that none of its users can end, on a
//! thread of its own, and is the same for all of them.

use std::fmt;
use std::io;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use plimsoll_backend_kit::Task;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// So long a session that is given up may take to say so to the server.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// Its thread, and all that runs there, end once this is dropped.
pub(crate) struct Background(mpsc::UnboundedSender<Task>);

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Background").finish()
    }
}

impl Background {
    /// Starts the thread, and waits for as long as that takes.
    ///
    /// # Errors
    /// The machine has no thread or no descriptor left.
    pub(crate) fn start() -> io::Result<Self> {
        let (tasks, received) = mpsc::unbounded_channel();
        let (report, started) = blocking::channel();
        thread::Builder::new()
            .name("plimsoll-zk".to_owned())
            .spawn(
                move || match Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        let _waited_for = report.send(Ok(()));
                        runtime.block_on(run(received));
                    }
                    Err(error) => drop(report.send(Err(error))),
                },
            )?;
        let started = started.recv().map_err(io::Error::other)?;
        started.map(|()| Self(tasks))
    }

    /// Runs `task` there; gives it back if the thread has ended.
    pub(crate) fn spawn(&self, task: Task) -> Result<(), Task> {
        self.0.send(task).map_err(|refused| refused.0)
    }
}

/// Runs what comes, until nothing can come any more; then grants what still runs its farewell.
async fn run(mut received: mpsc::UnboundedReceiver<Task>) {
    while let Some(task) = received.recv().await {
        tokio::spawn(task);
    }
    let alive = || Handle::current().metrics().num_alive_tasks();
    let farewell = async {
        while alive() > 0 {
            sleep(LOOK).await;
        }
    };
    let _cut_short_otherwise = timeout(FAREWELL, farewell).await;
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_runs_there_outlives_its_caller_and_ends_with_the_background() {
        let background = Background::start().expect("a thread");
        let (tell, told) = oneshot::channel();
        let held = Arc::new(());
        let task = {
            let held = Arc::clone(&held);
            async move {
                let thread = thread::current().name().map(str::to_owned);
                drop(tell.send(thread));
                let _held = held;
                pending::<()>().await;
            }
        };
        assert!(background.spawn(Box::pin(task)).is_ok());
        assert_eq!(told.await.ok().flatten().as_deref(), Some("plimsoll-zk"));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(background);
        let ended = async {
            while Arc::strong_count(&held) > 1 {
                sleep(LOOK).await;
            }
        };
        timeout(FAREWELL * 10, ended).await.expect("its end");
    }
}
