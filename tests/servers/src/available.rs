//! What a test does without its server.

use std::env;
use std::process::{Command, Stdio};

/// Whether a test that needs `name` (`zk`) can run, given whether its server was `found`; `what`
/// says what was looked for.
///
/// Without a server the test is skipped, which is said on stderr; if `PLIMSOLL_TEST_REQUIRE` (names
/// with commas between them) lists `name`, it fails.
#[expect(clippy::print_stderr, reason = "a skip must be seen")]
pub fn available(name: &str, found: bool, what: &str) -> bool {
    if !found {
        let required = env::var("PLIMSOLL_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|listed| listed.trim() == name),
            "PLIMSOLL_TEST_REQUIRE asks for {name}, and there is none ({what})"
        );
        eprintln!("SKIPPED, NOT TESTED: there is no server for {name} ({what})");
    }
    found
}

/// Whether `program`, asked with `argument` for its version or the like, answers with success.
#[must_use]
pub fn command_runs(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
