//! Reading, without a lock.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use plimsoll_backend_kit::{Decoded, Entry, Interest, Listing, Skipped, id_of};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, InstanceId, Result, ServiceName};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::directory::{Directory, LOADS, RECORDS};
use crate::error::{corrupt, failed};
use crate::{codec, keys};

/// A load as it was published, and when: the same one may be published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) life: Incarnation,
    pub(crate) load: u64,
    at: Option<SystemTime>,
}

/// A service, and of each member with a load what it has reported.
pub(crate) type Scan = (Listing, HashMap<InstanceId, Report>);

pub(crate) fn scan(
    directory: &Directory,
    service: &ServiceName,
    interest: Interest,
) -> Result<Scan> {
    let prefix = keys::prefix(service);
    let (mut entries, mut skipped, mut reports) = (Vec::new(), Vec::new(), HashMap::new());
    for name in directory.records()? {
        let Some(key) = name.as_bytes().strip_prefix(prefix.as_bytes()) else {
            continue;
        };
        let read = match standing(directory, &name) {
            Ok(Some((_, read, true))) => read,
            Ok(_) => continue,
            Err(cause) if is_of_one(&cause) => {
                let id = id_of(&String::from_utf8_lossy(key));
                skipped.push(Skipped::new(id, cause));
                continue;
            }
            Err(cause) => return Err(cause),
        };
        let mut entry = Entry::new(read.instance, read.incarnation);
        entry.registered_at = read.registered_at;
        entry.left_out = read.left_out;
        if interest == Interest::Loads
            && let Some(report) = report(directory, &name)?
            && report.life == entry.incarnation
        {
            entry.load = Some(report.load);
            reports.insert(entry.instance.id().clone(), report);
        }
        entries.push(entry);
    }
    let history = match directory.history()? {
        Some(history) => history,
        None => directory.lock()?.count(&[])?,
    };
    let listing = Listing::new(history.revision, entries, skipped);
    Ok((listing.with_departed(history.departed), reports))
}

/// The services of those who live.
pub(crate) fn services(directory: &Directory) -> Result<Vec<ServiceName>> {
    let mut services = Vec::new();
    for name in directory.records()? {
        match standing(directory, &name) {
            Ok(Some((service, _, true))) => services.push(service),
            Err(cause) if !is_of_one(&cause) => return Err(cause),
            _ => {}
        }
    }
    Ok(services)
}

/// The record in the file `name`, and whether its owner lives.
pub(crate) fn standing(
    directory: &Directory,
    name: &OsStr,
) -> Result<Option<(ServiceName, Decoded, bool)>> {
    let path = || directory.path.join(RECORDS).join(name);
    let mut unlocked = None;
    loop {
        let Some((bytes, file)) = directory.read(RECORDS, name)? else {
            return Ok(None);
        };
        let (service, read) = codec::read_record(&bytes)?;
        if *name != *keys::file(&service, read.instance.id()) {
            return Err(corrupt(&path(), "a copy of another record"));
        }
        let is_locked = is_locked(&file).map_err(|cause| failed(&path(), cause))?;
        let inode = file
            .metadata()
            .map_err(|cause| failed(&path(), cause))?
            .ino();
        // One that was replaced while it was read is locked no more; what has replaced it is.
        if is_locked || unlocked.replace(inode) == Some(inode) {
            return Ok(Some((service, read, is_locked)));
        }
    }
}

/// Whether an owner lives, who has locked the file before it was seen and unlocks it by dying. Whoever
/// asks locks it for a moment, shared with others who ask; nobody else ever wants to.
fn is_locked(file: &File) -> Result<bool, Errno> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(cause) => Err(cause),
    }
}

fn report(directory: &Directory, name: &OsStr) -> Result<Option<Report>> {
    let (bytes, file) = match directory.read(LOADS, name) {
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
    use ErrorKind::{Corrupt, PermissionDenied};
    matches!(cause.kind(), Corrupt | PermissionDenied)
}
