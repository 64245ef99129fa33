//! The releases there are.

use std::fs;
use std::path::Path;

use crate::command_runs;

/// Where Debian's package puts the library; its manifest pulls in what it needs.
const INSTALLED: &str = "/usr/share/java/zookeeper.jar";
const LOGGER: &str = "/usr/share/java/slf4j-simple.jar";
/// For encrypted connections, which that manifest forgets.
const NETTY: &str = "/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar";
/// Where `scripts/prerequisites` unpacks other releases.
const NEWEST: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../target/servers/trixie/usr/share/java"
);
const OLDEST: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../target/servers/bullseye/usr/share/java"
);
/// Which that one needs, and finds nowhere by itself.
const LOGGING: &str = "/usr/share/java/slf4j-api.jar";

/// Whether there is a server to test with; see [`available`](crate::available()).
#[must_use]
pub fn available() -> bool {
    let found = Path::new(INSTALLED).exists() && command_runs("java", "-version");
    crate::available("zk", found, &format!("java and {INSTALLED}"))
}

/// Whether there is one of a newer release than the one installed; its name is `zk-newest`.
#[must_use]
pub fn newest_available() -> bool {
    let found = newest_class_path().is_some() && command_runs("java", "-version");
    crate::available("zk-newest", found, &format!("java and {NEWEST}"))
}

/// Whether there is one of a release before 3.5; its name is `zk-oldest`.
#[must_use]
pub fn oldest_available() -> bool {
    let found = oldest_class_path().is_some() && command_runs("java", "-version");
    crate::available("zk-oldest", found, &format!("java and {OLDEST}"))
}

/// The library that the server installed brings with it is older, and must not be found first.
pub(super) fn newest_class_path() -> Option<String> {
    let (jute, server) = (jar(NEWEST, "zookeeper-jute-")?, jar(NEWEST, "zookeeper-3")?);
    Some(format!("{jute}:{server}"))
}

pub(super) fn oldest_class_path() -> Option<String> {
    Some(format!("{}:{LOGGING}", jar(OLDEST, "zookeeper-3.4")?))
}

/// With its version in its name, as those that are links to another directory have not.
fn jar(directory: &str, start: &str) -> Option<String> {
    let jars = fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let mut names = jars.map(|jar| jar.file_name().to_string_lossy().into_owned());
    let name = names.find(|name| name.starts_with(start) && name.ends_with(".jar"))?;
    Some(format!("{directory}/{name}"))
}

/// The library of the installed release, with what its own manifest forgets.
pub(super) fn installed_class_path() -> String {
    format!("{INSTALLED}:{NETTY}")
}

/// What makes a server say on its standard output what it does.
pub(super) fn logger() -> &'static str {
    LOGGER
}
