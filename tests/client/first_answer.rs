//! Waiting for a registry whose watches tell of states alone.

use std::time::Duration;

use plimsoll::{ErrorKind, first_answer};
use tokio::time::Instant;

use crate::support::ScriptedRegistry;

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_registry_that_tells_of_no_errors_is_waited_for() {
    let registry = ScriptedRegistry::new();
    let late = async {
        tokio::time::sleep(LIMIT / 2).await;
        registry.publish(&[]);
    };
    let (answer, ()) = tokio::join!(first_answer(&registry, "s", LIMIT), late);
    assert!(answer.expect("an answer").members().is_empty());
    let silent = ScriptedRegistry::new();
    let start = Instant::now();
    let error = first_answer(&silent, "s", LIMIT).await;
    assert_eq!(error.expect_err("no answer").kind(), ErrorKind::TimedOut);
    assert_eq!(start.elapsed(), LIMIT);
}
