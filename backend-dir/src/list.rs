//! Reading a whole service, without a lock.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use plimsoll_backend_kit::{Entry, Interest, Listing, Skipped, decode, unescape};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, InstanceId, Result, ServiceName};
use rustix::fs::{AtFlags, statat};

use crate::directory::Directory;
use crate::error::corrupt;
use crate::{codec, keys, lock};

/// A load as it was published, and when: the same one may be published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) life: Incarnation,
    pub(crate) load: u64,
    at: Option<SystemTime>,
}

/// What is there of a service.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) listing: Listing,
    pub(crate) reports: HashMap<InstanceId, Report>,
}

pub(crate) fn scan(
    directory: &Directory,
    service: &ServiceName,
    interest: Interest,
) -> Result<Scan> {
    let revision = directory.revision()?;
    let prefix = keys::prefix(service);
    let (mut entries, mut skipped, mut reports) = (Vec::new(), Vec::new(), HashMap::new());
    for name in directory.names(&directory.records)? {
        let Some(key) = name.as_bytes().strip_prefix(prefix.as_bytes()) else {
            continue;
        };
        // An owner that follows on another may have replaced the record while it was read.
        let mut read = entry(directory, service, &name);
        if matches!(read, Ok(None)) {
            read = entry(directory, service, &name);
        }
        match read {
            Ok(None) => {}
            Ok(Some(mut entry)) => {
                if interest == Interest::Loads
                    && let Some(report) = report(directory, &name)?
                    && report.life == entry.incarnation
                {
                    entry.load = Some(report.load);
                    reports.insert(entry.instance.id().clone(), report);
                }
                entries.push(entry);
            }
            Err(cause) if is_of_one(&cause) => {
                let key = String::from_utf8_lossy(key);
                let id = unescape(&key).unwrap_or_else(|_| key.into_owned());
                skipped.push(Skipped::new(id, cause));
            }
            Err(cause) => return Err(cause),
        }
    }
    let departed = directory.departed()?;
    if directory.revision()?.epoch() != revision.epoch() {
        let why = "the directory was exchanged while it was read";
        return Err(Error::new(ErrorKind::Unavailable, why));
    }
    let listing = Listing::new(revision, entries, skipped).with_departed(departed);
    Ok(Scan { listing, reports })
}

/// The services of those who live and have a record.
pub(crate) fn services(directory: &Directory) -> Result<Vec<ServiceName>> {
    let mut services = Vec::new();
    for name in directory.names(&directory.lives)? {
        let Some(life) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match lock::owner(directory, life) {
            Ok(Some((service, id))) => {
                let record = keys::file(&service, &id);
                if statat(&directory.records, record, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                    services.push(service);
                }
            }
            Ok(None) => {}
            Err(cause) if is_of_one(&cause) => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(services)
}

/// The record in the file `name`; `None` if nobody lives it any more.
fn entry(directory: &Directory, service: &ServiceName, name: &OsStr) -> Result<Option<Entry>> {
    let Some((bytes, _)) = directory.read(&directory.records, name)? else {
        return Ok(None);
    };
    let read = decode(service, &bytes)?;
    let Some(owner) = lock::owner(directory, read.incarnation)? else {
        return Ok(None);
    };
    let id = read.instance.id();
    let is_own = owner == (service.clone(), id.clone());
    if !is_own || *name != *keys::file(service, id) {
        return Err(corrupt(
            &directory.path.join(name),
            "a copy of another record",
        ));
    }
    let mut entry = Entry::new(read.instance, read.incarnation);
    entry.registered_at = read.registered_at;
    entry.left_out = read.left_out;
    Ok(Some(entry))
}

fn report(directory: &Directory, name: &OsStr) -> Result<Option<Report>> {
    let (bytes, file) = match directory.read(&directory.loads, name) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(cause) if is_of_one(&cause) => return Ok(None),
        Err(cause) => return Err(cause),
    };
    let at = file.metadata().and_then(|data| data.modified()).ok();
    Ok(codec::read_load(&bytes).map(|(life, load)| Report { life, load, at }))
}

/// Whether it says something of one file, and nothing of the next.
fn is_of_one(cause: &Error) -> bool {
    matches!(
        cause.kind(),
        ErrorKind::Corrupt | ErrorKind::PermissionDenied
    )
}
