//! The releases there are.

use std::env;
use std::fs;
use std::path::Path;

use crate::command_runs;

/// Which release [`Server::start`](super::Server::start) and ensembles are of, if not the one
/// installed: `newest`, or the class path of a server.
const CHOICE: &str = "PLIMSOLL_TEST_ZK";
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
/// Which those need that find nothing by themselves.
const LOGGING: &str = "/usr/share/java/slf4j-api.jar";

/// Whether there is a server to test with; see [`available`](crate::available()).
#[must_use]
pub fn available() -> bool {
    let what = format!("{INSTALLED}, or what {CHOICE} says");
    found("zk", Release::chosen().is_some(), &what)
}

/// Whether there is one of a newer release than the one installed; its name is `zk-newest`.
#[must_use]
pub fn newest_available() -> bool {
    found("zk-newest", Release::newest().is_some(), NEWEST)
}

/// Whether there is one of a release before 3.6; its name is `zk-oldest`.
#[must_use]
pub fn oldest_available() -> bool {
    found("zk-oldest", Release::oldest().is_some(), OLDEST)
}

fn found(name: &str, found: bool, what: &str) -> bool {
    let found = found && command_runs("java", "-version");
    crate::available(name, found, &format!("java and {what}"))
}

/// What it takes to start a server of one release.
#[derive(Clone, Debug)]
pub(super) struct Release {
    pub(super) class_path: String,
    /// Options of its Java process.
    pub(super) options: &'static [&'static str],
}

impl Release {
    /// The one installed, unless another one was chosen; what was chosen and is not there is none.
    pub(super) fn chosen() -> Option<Self> {
        match env::var(CHOICE).as_deref() {
            Err(_) | Ok("") => Path::new(INSTALLED)
                .exists()
                .then(|| Self::of(&format!("{INSTALLED}:{NETTY}"))),
            Ok("newest") => Self::newest(),
            Ok(class_path) => Some(Self::of(&format!("{class_path}:{LOGGING}"))),
        }
    }

    /// The library that the server installed brings with it is older, and must not be found first.
    pub(super) fn newest() -> Option<Self> {
        let (jute, server) = (jar(NEWEST, "zookeeper-jute-")?, jar(NEWEST, "zookeeper-3")?);
        Some(Self::of(&format!("{jute}:{server}")))
    }

    pub(super) fn oldest() -> Option<Self> {
        let class_path = format!("{}:{LOGGING}", jar(OLDEST, "zookeeper-3.4")?);
        Some(Self {
            // It looks for a library that is not there.
            options: &["-Dzookeeper.jmx.log4j.disable=true"],
            ..Self::of(&class_path)
        })
    }

    /// With what makes a server say on its standard output what it does.
    fn of(class_path: &str) -> Self {
        Self {
            class_path: format!("{class_path}:{LOGGER}"),
            options: &[],
        }
    }
}

/// With its version in its name, as those that are links to another directory have not.
fn jar(directory: &str, start: &str) -> Option<String> {
    let jars = fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let mut names = jars.map(|jar| jar.file_name().to_string_lossy().into_owned());
    let name = names.find(|name| name.starts_with(start) && name.ends_with(".jar"))?;
    Some(format!("{directory}/{name}"))
}
