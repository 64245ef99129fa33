//! What the quickstart promises, over a directory.

#![allow(dead_code, reason = "the quickstart is used in part")]

use std::fs;
use std::path::PathBuf;

use outage::run_through_restart;
use tempfile::TempDir;

#[path = "support/failing_servers.rs"]
mod failing_servers;
#[path = "support/outage.rs"]
mod outage;
#[path = "../examples/quickstart.rs"]
mod quickstart;

/// The parent of the directory, which goes and comes back.
struct Parent(TempDir);

impl Parent {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a directory");
        fs::create_dir(scratch.path().join("parent")).expect("a directory");
        Self(scratch)
    }

    fn paths(&self) -> [PathBuf; 2] {
        ["parent", "away"].map(|name| self.0.path().join(name))
    }

    fn url(&self) -> String {
        format!("dir://{}/plimsoll", self.paths()[0].display())
    }

    fn remove(&mut self) {
        let [here, away] = self.paths();
        fs::rename(here, away).expect("it to go");
    }

    fn put_back(&mut self) {
        let [here, away] = self.paths();
        fs::rename(away, here).expect("it to come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises() {
    let parent = Parent::new();
    quickstart::run(&parent.url())
        .await
        .expect("every promise to be kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_keeps_its_promises_while_the_directory_is_away() {
    let parent = Parent::new();
    let url = parent.url();
    run_through_restart(&url, parent, Parent::remove, Parent::put_back).await;
}

#[tokio::test]
#[ignore = "a process of the tests below"]
async fn provider_process() {
    failing_servers::serve_if_asked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_and_hung_servers_waste_few_attempts_of_the_default_client() {
    let parent = Parent::new();
    failing_servers::waste_few_attempts(&parent.url()).await;
}
