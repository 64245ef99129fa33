//! The texts beside the records, which are the kit's JSON: words on a line.

use std::fmt::Write as _;
use std::path::Path;

use plimsoll_backend_kit::{escape, unescape};
use plimsoll_discovery_api::{Incarnation, InstanceId, Revision, ServiceName};

/// So many departures are remembered: more than come to pass between two looks.
const REMEMBERED: usize = 1024;

/// Whose a life is, and for people by whom and through which path it is lived.
pub(crate) fn write_owner(service: &ServiceName, id: &InstanceId, root: &Path) -> String {
    let [service, id] = [service.as_str(), id.as_str()].map(escape);
    format!("{service} {id} {} {}\n", std::process::id(), root.display())
}

pub(crate) fn read_owner(bytes: &[u8]) -> Option<(ServiceName, InstanceId)> {
    let mut words = str::from_utf8(bytes).ok()?.split(' ');
    let mut name = || unescape(words.next()?).ok();
    Some((name()?.parse().ok()?, name()?.parse().ok()?))
}

pub(crate) fn write_load(life: Incarnation, load: u64) -> String {
    format!("{life} {load}\n")
}

pub(crate) fn read_load(bytes: &[u8]) -> Option<(Incarnation, u64)> {
    let (life, load) = words(bytes)?;
    Some((life.parse().ok()?, load.parse().ok()?))
}

pub(crate) fn write_revision(revision: Revision) -> String {
    format!("{:x} {}\n", revision.epoch(), revision.counter())
}

pub(crate) fn read_revision(bytes: &[u8]) -> Option<Revision> {
    let (epoch, counter) = words(bytes)?;
    let epoch = u64::from_str_radix(epoch, 16)
        .ok()
        .filter(|epoch| *epoch != 0)?;
    Some(Revision::new(epoch, counter.parse().ok()?))
}

/// The departures, oldest first, with `added` at the end.
pub(crate) fn write_departed(known: &[Incarnation], added: &[Incarnation]) -> String {
    let all = known
        .iter()
        .filter(|life| !added.contains(life))
        .chain(added);
    let surplus = all.clone().count().saturating_sub(REMEMBERED);
    all.skip(surplus).fold(String::new(), |mut text, life| {
        // Writing to a text does not fail.
        let _written = writeln!(text, "{life}");
        text
    })
}

/// Whatever cannot be read is not known.
pub(crate) fn read_departed(bytes: &[u8]) -> Vec<Incarnation> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn words(bytes: &[u8]) -> Option<(&str, &str)> {
    str::from_utf8(bytes)
        .ok()?
        .strip_suffix('\n')?
        .split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_everything_else_is_nothing() {
        let life = Incarnation::random();
        let (service, id) = ("a b/ü".parse().unwrap(), " @+".trim().parse().unwrap());
        let owner = write_owner(&service, &id, Path::new("/with a space"));
        assert_eq!(read_owner(owner.as_bytes()), Some((service, id)));
        let load = write_load(life, u64::MAX);
        assert_eq!(read_load(load.as_bytes()), Some((life, u64::MAX)));
        let revision = Revision::new(u64::MAX, 7);
        let text = write_revision(revision);
        assert_eq!(read_revision(text.as_bytes()), Some(revision));
        for cut in 0..text.len() {
            assert_eq!(read_revision(&text.as_bytes()[..cut]), None);
        }
        for bad in ["", " ", "\n", "x y\n", "1 -1\n", "0 1\n", "\u{0}"] {
            assert_eq!(read_owner(bad.as_bytes()), None, "{bad:?}");
            assert_eq!(read_load(bad.as_bytes()), None, "{bad:?}");
            assert_eq!(read_revision(bad.as_bytes()), None, "{bad:?}");
            assert_eq!(read_departed(bad.as_bytes()), [], "{bad:?}");
        }
    }

    #[test]
    fn the_latest_departures_are_remembered_each_once() {
        let life = |number: usize| Incarnation::from_bits(number as u128 + 1);
        let mut known = Vec::new();
        for number in 0..REMEMBERED + 10 {
            let text = write_departed(&known, &[life(number), life(number)][..1]);
            known = read_departed(text.as_bytes());
        }
        assert_eq!(known.len(), REMEMBERED);
        assert_eq!(
            (known[0], known[REMEMBERED - 1]),
            (life(10), life(REMEMBERED + 9))
        );
        let again = write_departed(&known, &[life(10)]);
        let again = read_departed(again.as_bytes());
        assert_eq!((again.len(), again[0]), (REMEMBERED, life(11)));
    }
}
