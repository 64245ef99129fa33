//! Where the servers are, and where in their tree everything is kept.

use plimsoll_discovery_api::Result;

use crate::builder::invalid;

const DEFAULT_PORT: u16 = 2181;

/// Reads `host`, `host:port` or `[v6]:port`.
pub(crate) fn read_host(host: &str) -> Result<String> {
    let bad = || invalid("host", host, "is not `host`, `host:port` or `[v6]:port`");
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let plain = !name.is_empty() && !name.contains(['/', ',', '@', '?', ' ']);
    let bracketed = name.starts_with('[') && name.ends_with(']');
    if !plain || name.contains(':') && !bracketed {
        return Err(bad());
    }
    let port = match port {
        Some(port) => port
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(bad)?,
        None => DEFAULT_PORT,
    };
    Ok(format!("{name}:{port}"))
}

/// Reads a path without its outer slashes; returns it with a leading one, or empty.
pub(crate) fn read_root(root: &str) -> Result<String> {
    if root.is_empty() {
        return Ok(String::new());
    }
    for segment in root.split('/') {
        let bad = segment.is_empty()
            || segment == "."
            || segment == ".."
            || segment.chars().any(char::is_control);
        if bad {
            return Err(invalid(
                "root",
                root,
                "has an empty segment, a dot segment or a control character",
            ));
        }
    }
    if root == "zookeeper" || root.starts_with("zookeeper/") {
        return Err(invalid("root", root, "is reserved by ZooKeeper"));
    }
    Ok(format!("/{root}"))
}
