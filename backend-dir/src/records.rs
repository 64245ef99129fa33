//! Records: claimed, held, changed, removed.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use plimsoll_backend_kit::{Record, Release};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result};

use crate::directory::{Directory, LOADS, Locked, RECORDS};
use crate::list::standing;
use crate::{codec, keys};

/// A record that stands for as long as this does.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Of its files.
    name: String,
    life: Incarnation,
    /// The file of the record, which is locked.
    file: Mutex<File>,
}

/// Puts `record` where nobody else lives.
pub(crate) fn claim(
    directory: &Directory,
    record: &Record,
    former: &[Incarnation],
    swept: &AtomicBool,
) -> Result<Claim> {
    let (name, life) = (keys::of(&record.instance), record.incarnation);
    let locked = directory.lock()?;
    if directory
        .history()?
        .is_some_and(|history| history.departed.contains(&life))
    {
        return Err(Error::new(ErrorKind::Closed, "this life was given up"));
    }
    if let Some((owner, true)) = owner(directory, &name)?
        && owner != life
        && !former.contains(&owner)
    {
        let conflict = Error::new(ErrorKind::Conflict, "another live owner holds the id");
        let conflict = conflict.with_context("id", record.instance.id().as_str());
        return Err(conflict.with_context("owner", owner.to_string()));
    }
    if !swept.swap(true, Ordering::Relaxed) {
        sweep(directory, &locked)?;
    }
    locked.put(LOADS, &name, codec::write_load(life, record.load))?;
    let file = locked.put(
        RECORDS,
        &name,
        codec::write_record(record, &directory.path)?,
    )?;
    locked.count(&[])?;
    let file = Mutex::new(file);
    Ok(Claim { name, life, file })
}

/// Whether others see the record, and in it that its owner lives.
pub(crate) fn confirm(directory: &Directory, claim: &Claim) -> Result<()> {
    let inode = |file: &File| file.metadata().map(|data| (data.dev(), data.ino())).ok();
    let seen = match directory.read(RECORDS, &claim.name) {
        Ok(seen) => seen.and_then(|(_, file)| inode(&file)),
        Err(cause) if cause.kind() == ErrorKind::Corrupt => None,
        Err(cause) => return Err(cause),
    };
    if seen.is_some() && seen == inode(&claim.file.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(());
    }
    let gone = Error::new(ErrorKind::LeaseExpired, "the record of this life is gone");
    Err(gone.with_context("file", &claim.name))
}

pub(crate) fn update(directory: &Directory, claim: &Claim, record: &Record) -> Result<()> {
    let locked = directory.lock()?;
    confirm(directory, claim)?;
    let text = codec::write_record(record, &directory.path)?;
    let file = locked.put(RECORDS, &claim.name, text)?;
    *claim.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
    locked.count(&[]).map(drop)
}

pub(crate) fn publish(directory: &Directory, claim: &Claim, load: u64) -> Result<()> {
    let locked = directory.lock()?;
    confirm(directory, claim)?;
    let text = codec::write_load(claim.life, load);
    locked.put(LOADS, &claim.name, text).map(drop)
}

/// Removes what stands in one of the lives; first of all it is said that they depart.
pub(crate) fn release(directory: &Directory, release: &Release) -> Result<()> {
    let locked = directory.lock()?;
    locked.count(&release.incarnations)?;
    let name = keys::file(&release.service, &release.id);
    match owner(directory, &name)? {
        Some((life, _)) if release.incarnations.contains(&life) => remove(&locked, &name),
        _ => Ok(()),
    }
}

/// Whose the record in the file `name` is, if it can be understood, and whether it lives.
fn owner(directory: &Directory, name: &str) -> Result<Option<(Incarnation, bool)>> {
    match standing(directory, name.as_ref()) {
        Ok(found) => Ok(found.map(|(_, read, lives)| (read.incarnation, lives))),
        Err(cause) if cause.kind() == ErrorKind::Corrupt => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Removes what processes that have died left behind. What only a stranger can have written stays.
fn sweep(directory: &Directory, locked: &Locked<'_>) -> Result<()> {
    for name in directory.records()? {
        if let (Some(name), Ok(Some((.., false)))) = (name.to_str(), standing(directory, &name)) {
            remove(locked, name)?;
        }
    }
    Ok(())
}

fn remove(locked: &Locked<'_>, name: &str) -> Result<()> {
    locked.remove(RECORDS, name)?;
    locked.remove(LOADS, name)
}
