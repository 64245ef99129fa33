//! Records: claimed, held, changed, removed.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_backend_kit::{Record, Release, decode, encode};
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, InstanceId, Result, ServiceName};

use crate::directory::{Directory, Locked};
use crate::{codec, keys, lock};

/// A record that stands for as long as this does.
#[derive(Debug)]
pub(crate) struct Claim {
    service: ServiceName,
    id: InstanceId,
    life: Incarnation,
    lock: File,
}

/// Puts `record` where nobody else lives.
pub(crate) fn claim(
    directory: &Directory,
    record: &Record,
    former: &[Incarnation],
    swept: &AtomicBool,
) -> Result<Claim> {
    let (service, id) = (record.instance.service(), record.instance.id());
    let life = record.incarnation;
    let locked = directory.lock()?;
    if directory.departed()?.contains(&life) {
        return Err(Error::new(ErrorKind::Closed, "this life was given up"));
    }
    let name = keys::file(service, id);
    if let Some(standing) = standing(directory, service, &name)?
        && standing != life
        && !former.contains(&standing)
        && lock::owner(directory, standing)?.is_some_and(|(s, i)| (&s, &i) == (service, id))
    {
        let conflict = Error::new(ErrorKind::Conflict, "another live owner holds the id");
        let conflict = conflict.with_context("id", id.as_str());
        return Err(conflict.with_context("owner", standing.to_string()));
    }
    if !swept.swap(true, Ordering::Relaxed) {
        sweep(&locked)?;
    }
    let claim = Claim {
        service: service.clone(),
        id: id.clone(),
        life,
        lock: lock::take(&locked, service, id, life)?,
    };
    put(
        &locked,
        &directory.loads,
        &name,
        codec::write_load(life, record.load),
    )?;
    put(&locked, &directory.records, &name, encode(record)?)?;
    for life in former {
        locked.remove(&directory.lives, &life.to_string())?;
    }
    locked.count()?;
    Ok(claim)
}

/// Whether the record of `claim` stands, and its owner is seen to live.
pub(crate) fn confirm(directory: &Directory, claim: &Claim) -> Result<()> {
    lock::confirm(directory, claim.life, &claim.lock)?;
    let name = keys::file(&claim.service, &claim.id);
    if standing(directory, &claim.service, &name)? == Some(claim.life) {
        return Ok(());
    }
    let gone = Error::new(ErrorKind::LeaseExpired, "the record of this life is gone");
    Err(gone.with_context("id", claim.id.as_str()))
}

pub(crate) fn update(directory: &Directory, claim: &Claim, record: &Record) -> Result<()> {
    let locked = directory.lock()?;
    confirm(directory, claim)?;
    let name = keys::file(&claim.service, &claim.id);
    put(&locked, &directory.records, &name, encode(record)?)?;
    locked.count()
}

pub(crate) fn publish(directory: &Directory, claim: &Claim, load: u64) -> Result<()> {
    let locked = directory.lock()?;
    confirm(directory, claim)?;
    let name = keys::file(&claim.service, &claim.id);
    put(
        &locked,
        &directory.loads,
        &name,
        codec::write_load(claim.life, load),
    )
}

/// Removes what stands in one of the lives; first of all it is said that they depart.
pub(crate) fn release(directory: &Directory, release: &Release) -> Result<()> {
    let locked = directory.lock()?;
    locked.remember(&release.incarnations)?;
    let name = keys::file(&release.service, &release.id);
    let standing = standing(directory, &release.service, &name)?;
    if standing.is_some_and(|life| release.incarnations.contains(&life)) {
        locked.remove(&directory.records, &name)?;
        locked.remove(&directory.loads, &name)?;
    }
    for life in &release.incarnations {
        locked.remove(&directory.lives, &life.to_string())?;
    }
    locked.count()
}

/// The life of the record under `name`, if there is one that can be understood.
fn standing(
    directory: &Directory,
    service: &ServiceName,
    name: &str,
) -> Result<Option<Incarnation>> {
    let found = directory.understood(&directory.records, name)?;
    let read = found.and_then(|bytes| decode(service, &bytes).ok());
    Ok(read.map(|read| read.incarnation))
}

/// Removes what processes that have died left behind. What only a stranger can have written stays.
fn sweep(locked: &Locked<'_>) -> Result<()> {
    let directory = locked.directory;
    for file in directory.names(&directory.lives)? {
        let Some(life) = file.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if !matches!(lock::owner(directory, life), Ok(None)) {
            continue;
        }
        let left = directory.read(&directory.lives, &file)?;
        if let Some((service, id)) = left.and_then(|(bytes, _)| codec::read_owner(&bytes)) {
            let name = keys::file(&service, &id);
            if standing(directory, &service, &name)? == Some(life) {
                locked.remove(&directory.records, &name)?;
                locked.remove(&directory.loads, &name)?;
            }
        }
        locked.remove(&directory.lives, &life.to_string())?;
    }
    Ok(())
}

fn put(
    locked: &Locked<'_>,
    within: &std::os::fd::OwnedFd,
    name: &str,
    text: impl AsRef<[u8]>,
) -> Result<()> {
    locked.put(within, name, text, |_| Ok(())).map(drop)
}
