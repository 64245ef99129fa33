//! From the entries of a catalog to one per instance.

use std::collections::BTreeMap;

use plimsoll_backend_kit::{Entry, Skipped};
use plimsoll_discovery_api::{Incarnation, InstanceId, ServiceName};

use crate::codec;
use crate::each::Each;
use crate::paths::service_name;
use crate::wire::HealthEntry;

/// A usable instance.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    pub(crate) entry: Entry,
    /// Whether plimsoll wrote it, and its fence tells of its owner.
    pub(crate) ours: bool,
    /// When it was created in the catalog.
    created: u64,
    /// When it was last changed there.
    pub(crate) modified: u64,
}

/// What a service's entries come to.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) present: BTreeMap<InstanceId, Present>,
    pub(crate) skipped: BTreeMap<String, Skipped>,
    /// The lives that stand in the catalog but must not be used, as their check is critical.
    pub(crate) critical: Vec<(InstanceId, Incarnation)>,
}

/// The entries of `service`, one of each instance: of several lives the one that began last, for
/// whoever registers has made sure that no other life is owned by anybody.
///
/// The catalog compares names without regard to case, so entries of others are taken out here.
pub(crate) fn resolve(service: &ServiceName, entries: &Each<HealthEntry>) -> Resolved {
    let name = service_name(service);
    let mut resolved = Resolved::default();
    for unread in &entries.bad {
        let (of, key) = unread.outline();
        if of.is_none_or(|of| of == name) {
            let skipped = Skipped::new(key.clone(), unread.cause());
            resolved.skipped.insert(key, skipped);
        }
    }
    let entries = entries.good.iter();
    for found in entries.filter(|found| found.service.service == name) {
        match codec::read(service, found) {
            Ok(read) if is_critical(found) => {
                let id = read.entry.instance.id().clone();
                resolved.critical.push((id, read.entry.incarnation));
            }
            Ok(read) => {
                let present = Present {
                    entry: read.entry,
                    ours: read.ours,
                    created: found.service.create_index,
                    modified: found.service.modify_index,
                };
                let id = present.entry.instance.id().clone();
                match resolved.present.get(&id) {
                    // The id may be that of another program's service, by its own choice.
                    Some(other)
                        if (other.ours, other.created) > (present.ours, present.created) => {}
                    _ => drop(resolved.present.insert(id, present)),
                }
            }
            Err(cause) => {
                let key = format!("{}/{}", found.node.node, found.service.id);
                let skipped = Skipped::new(key.clone(), cause);
                resolved.skipped.insert(key, skipped);
            }
        }
    }
    resolved
}

/// One critical check is enough, be it of the service, of its node or of its maintenance; a
/// warning leaves it usable.
pub(crate) fn is_critical(found: &HealthEntry) -> bool {
    found
        .checks
        .iter()
        .any(|check| !matches!(check.status.as_str(), "passing" | "warning"))
}
