//! What the files say.

use std::fmt::Write as _;
use std::path::Path;

use plimsoll_backend_kit::{Decoded, Record, decode, encode, escape, unescape};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result, Revision, ServiceName};

/// So many departures are remembered: more than come to pass between two looks.
const REMEMBERED: usize = 1024;

/// A record: the service, and for people the process and the path it goes by, on a line; then the kit's
/// JSON.
pub(crate) fn write_record(record: &Record, root: &Path) -> Result<Vec<u8>> {
    let service = escape(record.instance.service().as_str());
    let line = format!("{service} {} {root:?}\n", std::process::id());
    Ok([line.into_bytes(), encode(record)?].concat())
}

pub(crate) fn read_record(bytes: &[u8]) -> Result<(ServiceName, Decoded)> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "no line that names the service");
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (line, json) = bytes.split_at(end.ok_or_else(corrupt)? + 1);
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let service = unescape(str::from_utf8(word).map_err(|_| corrupt())?)?;
    let service = service.parse().map_err(|_| corrupt())?;
    let read = decode(&service, json)?;
    Ok((service, read))
}

pub(crate) fn write_load(life: Incarnation, load: u64) -> String {
    format!("{life} {load}\n")
}

pub(crate) fn read_load(bytes: &[u8]) -> Option<(Incarnation, u64)> {
    let (life, load) = str::from_utf8(bytes)
        .ok()?
        .strip_suffix('\n')?
        .split_once(' ')?;
    Some((life.parse().ok()?, load.parse().ok()?))
}

/// Where the history of a directory stands, and the lives that were deregistered last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) revision: Revision,
    pub(crate) departed: Vec<Incarnation>,
}

impl History {
    /// The same, one change later, with `leaving` as the latest departures.
    pub(crate) fn after(mut self, leaving: &[Incarnation]) -> Self {
        let revision = self.revision;
        self.revision = Revision::new(revision.epoch(), revision.counter() + 1);
        self.departed.retain(|life| !leaving.contains(life));
        self.departed.extend(leaving);
        let surplus = self.departed.len().saturating_sub(REMEMBERED);
        self.departed.drain(..surplus);
        self
    }

    pub(crate) fn write(&self) -> String {
        let mut text = format!("{:x} {}\n", self.revision.epoch(), self.revision.counter());
        for life in &self.departed {
            // Writing to a text does not fail.
            let _written = writeln!(text, "{life}");
        }
        text
    }

    /// None, unless every line of it can be understood.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let mut lines = text.split('\n');
        let (epoch, counter) = lines.next()?.split_once(' ')?;
        let epoch = u64::from_str_radix(epoch, 16)
            .ok()
            .filter(|epoch| *epoch != 0)?;
        let revision = Revision::new(epoch, counter.parse().ok()?);
        let departed = lines.map(|line| line.parse().ok()).collect::<Option<_>>()?;
        Some(Self { revision, departed })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use plimsoll_discovery_api::Instance;

    use super::*;

    #[test]
    fn a_record_names_its_service_and_is_whole_or_nothing() {
        let instance = Arc::new(Instance::builder("a b/ü", "h", 1).build().unwrap());
        let life = Incarnation::random();
        let record = Record::new(Arc::clone(&instance), life, UNIX_EPOCH, 0);
        let bytes = write_record(&record, Path::new("/with a\nline")).unwrap();
        // What people are shown must not be taken for anything.
        let line = bytes.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(line, 1, "{}", String::from_utf8_lossy(&bytes));
        let (service, read) = read_record(&bytes).unwrap();
        assert_eq!((&service, read.incarnation), (instance.service(), life));
        for cut in 0..bytes.len() {
            let cause = read_record(&bytes[..cut]).unwrap_err();
            assert_eq!(cause.kind(), ErrorKind::Corrupt, "{cut}");
        }
    }

    #[test]
    fn a_load_or_a_history_is_read_whole_or_not_at_all() {
        let life = Incarnation::random();
        let load = write_load(life, u64::MAX);
        assert_eq!(read_load(load.as_bytes()), Some((life, u64::MAX)));
        let revision = Revision::new(u64::MAX, 7);
        let history = History {
            revision,
            departed: Vec::new(),
        }
        .after(&[life]);
        let text = history.write();
        assert_eq!(History::read(text.as_bytes()), Some(history));
        for cut in 0..load.len() {
            assert_eq!(read_load(&load.as_bytes()[..cut]), None, "{cut}");
        }
        let whole = |cut: &usize| text.as_bytes()[..*cut].ends_with(b"\n");
        for cut in (0..text.len()).filter(|cut| !whole(cut)) {
            assert_eq!(History::read(&text.as_bytes()[..cut]), None, "{cut}");
        }
        for bad in ["0 1\n", "x y\n", "1 -1\n", "1 1\nx\n"] {
            assert_eq!(History::read(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn the_latest_departures_are_remembered_each_once() {
        let life = |number: usize| Incarnation::from_bits(number as u128 + 1);
        let revision = Revision::new(1, 1);
        let mut history = History {
            revision,
            departed: Vec::new(),
        };
        for number in 0..REMEMBERED + 10 {
            history = history.after(&[life(number)]);
        }
        assert_eq!(history.departed.len(), REMEMBERED);
        assert_eq!(history.departed[0], life(10));
        let again = history.after(&[life(10)]);
        assert_eq!(again.departed.len(), REMEMBERED);
        assert_eq!(
            (again.departed[0], again.departed[REMEMBERED - 1]),
            (life(11), life(10))
        );
        assert_eq!(again.revision.counter(), 1 + 1 + 10 + REMEMBERED as u64);
    }
}
