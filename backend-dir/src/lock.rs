//! Liveness: a record lives as long as a process holds the lock of its life's file.

use std::fs::File;

use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, InstanceId, Result, ServiceName};
use rustix::fs::{AtFlags, FlockOperation, flock, fstat, statat};
use rustix::io::Errno;

use crate::codec::{read_owner, write_owner};
use crate::directory::{Directory, Locked};
use crate::error::{corrupt, failed};

/// Whose `life` is; `None` if nobody lives it. Whoever asks holds the lock for a moment, shared with
/// others who ask; nobody else ever wants it, for it is held before the file is seen.
pub(crate) fn owner(
    directory: &Directory,
    life: Incarnation,
) -> Result<Option<(ServiceName, InstanceId)>> {
    let name = life.to_string();
    let Some((bytes, file)) = directory.read(&directory.lives, &name)? else {
        return Ok(None);
    };
    let path = || directory.path.join("lives").join(&name);
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => {
            let owner = read_owner(&bytes);
            owner
                .map(Some)
                .ok_or_else(|| corrupt(&path(), "not an owner"))
        }
        Err(cause) => Err(failed(&path(), cause)),
    }
}

/// Lives `life`, for as long as the file is open; in the place of an earlier attempt.
pub(crate) fn take(
    locked: &Locked<'_>,
    service: &ServiceName,
    id: &InstanceId,
    life: Incarnation,
) -> Result<File> {
    let directory = locked.directory;
    let text = write_owner(service, id, &directory.path);
    let lock = |file: &File| flock(file, FlockOperation::NonBlockingLockExclusive);
    locked.put(&directory.lives, &life.to_string(), text, lock)
}

/// Whether `lock` is still what others ask for.
pub(crate) fn confirm(directory: &Directory, life: Incarnation, lock: &File) -> Result<()> {
    let name = life.to_string();
    let failed = |cause| failed(&directory.path.join("lives").join(&name), cause);
    let found = match statat(&directory.lives, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Some((found.st_dev, found.st_ino)),
        Err(Errno::NOENT) => None,
        Err(cause) => return Err(failed(cause)),
    };
    let own = fstat(lock).map_err(failed)?;
    if found == Some((own.st_dev, own.st_ino)) {
        return Ok(());
    }
    let gone = Error::new(ErrorKind::LeaseExpired, "the lock was removed");
    Err(gone.with_context("incarnation", name))
}
