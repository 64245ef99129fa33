//! Members of the service `s`.

use std::sync::Arc;

use plimsoll::{Incarnation, Instance, Member, PublishedLoad, Standing, Status, Timestamp, Weight};

/// A member that nobody listens for.
pub(crate) fn member(id: &str) -> Member {
    member_at(id, 1)
}

/// A member at this port of the loopback interface.
pub(crate) fn member_at(id: &str, port: u16) -> Member {
    let instance = Instance::builder("s", "127.0.0.1", port)
        .with_id(id)
        .build()
        .unwrap();
    Member::new(
        Arc::new(instance),
        Incarnation::random(),
        Arc::new(PublishedLoad::new()),
    )
}

/// Members named `000`, `001`, ….
pub(crate) fn named(count: usize) -> Vec<Member> {
    (0..count).map(|n| member(&format!("{n:03}"))).collect()
}

/// The same life of `member`, saying something else of itself.
pub(crate) fn changed(member: &Member, change: impl FnOnce(Instance) -> Instance) -> Member {
    let instance = change(Instance::clone(member.instance()));
    Member::new(
        Arc::new(instance),
        member.incarnation(),
        Arc::clone(member.load()),
    )
    .with_standing(member.standing())
}

pub(crate) fn with_status(member: &Member, status: Status) -> Member {
    changed(member, |instance| instance.with_status(status))
}

pub(crate) fn heavier(member: &Member) -> Member {
    changed(member, |instance| instance.with_weight(Weight::MAX))
}

/// The same with another weight.
pub(crate) fn weighing(member: &Member, weight: u32) -> Member {
    let weight = Weight::new(weight).unwrap();
    changed(member, |instance| instance.with_weight(weight))
}

pub(crate) fn suspect(member: &Member) -> Member {
    member.clone().with_standing(Standing::Suspect {
        since: Timestamp::ZERO,
    })
}
