//! Where in the servers' tree everything is kept.

use plimsoll_backend_kit::{check_root, invalid_setting};
use plimsoll_discovery_api::Result;

/// Reads a path without its outer slashes; returns it with a leading one, or empty.
pub(crate) fn read_root(root: &str) -> Result<String> {
    if root.is_empty() {
        return Ok(String::new());
    }
    check_root(root)?;
    if root == "zookeeper" || root.starts_with("zookeeper/") {
        return Err(invalid_setting("root", root, "is reserved by ZooKeeper"));
    }
    Ok(format!("/{root}"))
}
