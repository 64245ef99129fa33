//! From the entries of a catalog to one per instance.

use std::collections::BTreeMap;

use plimsoll_backend_kit::{Entry, Skipped};
use plimsoll_discovery_api::{Incarnation, InstanceId, ServiceName, Status};

use crate::codec;
use crate::http::each::Each;
use crate::http::wire::HealthEntry;
use crate::keys::service_name;

/// A usable instance.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    pub(crate) entry: Entry,
    /// Whether plimsoll wrote it, and its owner lock tells of its owner.
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
            Ok(read) if condition(found) == Condition::Critical => {
                let id = read.entry.instance.id().clone();
                resolved.critical.push((id, read.entry.incarnation));
            }
            Ok(mut read) => {
                let instance = &mut read.entry.instance;
                if condition(found) != Condition::Usable && instance.status() == Status::Up {
                    *instance = instance.clone().with_status(Status::OutOfService);
                }
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

/// What the checks of an entry say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition<'a> {
    Usable,
    /// An operator has taken it, or its node, out of service, and says why.
    Maintained(&'a str),
    Critical,
}

/// One critical check is enough, be it of the service or of its node; a warning leaves it usable.
/// Maintenance is an operator's word, not a failure.
pub(crate) fn condition(found: &HealthEntry) -> Condition<'_> {
    let mut condition = Condition::Usable;
    for check in found.checks.iter().filter(|check| check.is_critical()) {
        match check.maintenance() {
            Some(reason) => condition = Condition::Maintained(reason),
            None => return Condition::Critical,
        }
    }
    condition
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::each::each;

    /// Each check of one entry, and what the entry comes to: its status, `gone` where it is absent.
    #[test]
    fn each_word_of_an_operator_and_each_loss_is_told_from_the_other() {
        let (passing, critical) = ("passing", "critical");
        let node = ("_node_maintenance", critical);
        let service = ("_service_maintenance:a", critical);
        for (checks, meant) in [
            (vec![], "up"),
            (vec![("serfHealth", passing), ("own", "warning")], "up"),
            (vec![("serfHealth", passing), node], "out_of_service"),
            (vec![service, ("own", passing)], "out_of_service"),
            (vec![node, service], "out_of_service"),
            (vec![("own", critical)], "gone"),
            (vec![("serfHealth", critical)], "gone"),
            (vec![node, ("own", critical)], "gone"),
            (vec![("own", critical), service], "gone"),
            (vec![("own", "no word")], "gone"),
            (vec![("service:_service_maintenance:a", critical)], "gone"),
        ] {
            let checks = checks.iter().map(|(id, status)| {
                serde_json::json!({"CheckID": id, "Status": status, "Notes": "disk"})
            });
            let checks: Vec<_> = checks.collect();
            let entries = serde_json::json!([{
                "Node": {"Node": "n", "Address": "10.0.0.1"},
                "Service": {"ID": "a", "Service": "orders", "Port": 1}, "Checks": checks
            }]);
            let entries = each(entries.to_string().as_bytes()).unwrap();
            let resolved = resolve(&"orders".parse().unwrap(), &entries);
            let present = resolved.present.values().next();
            let status = present.map_or("gone", |p| p.entry.instance.status().as_str());
            assert_eq!(status, meant, "{checks:?}");
            assert_eq!(resolved.critical.len(), usize::from(meant == "gone"));
        }
    }
}
