//! The directory, opened: what reads and writes its files, and who may write.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result, Revision, Rng};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat,
    renameat, unlinkat,
};
use rustix::io::Errno;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::codec;
use crate::error::{corrupt, failed};

/// The largest file that is read: no record that can be registered is larger.
pub(crate) const MAX_BYTES: u64 = 256 * 1024;
/// Whoever writes does so within a few milliseconds, unless it is stopped meanwhile. Less than a call
/// may take.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(2);
const HISTORY: &str = "history";
const DEPARTED: &str = "departed";
const DRAFT: &str = "draft";

/// One directory for one call, whatever takes its place meanwhile: everything is reached from what was
/// opened first, and no symbolic link below it is followed.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    root: OwnedFd,
    pub(crate) records: OwnedFd,
    pub(crate) loads: OwnedFd,
    pub(crate) lives: OwnedFd,
    drafts: OwnedFd,
    awaited: Weak<()>,
}

/// Works with the directory at `path` on a thread that may block. Nothing is written any more once
/// `awaited` is gone.
pub(crate) fn begin<T: Send + 'static>(
    path: &Arc<Path>,
    awaited: Weak<()>,
    work: impl FnOnce(&Directory) -> Result<T> + Send + 'static,
) -> JoinHandle<Result<T>> {
    let path = Arc::clone(path);
    spawn_blocking(move || work(&Directory::open(&path, awaited)?))
}

/// The outcome of what was [begun](begin).
pub(crate) fn finish<T>(outcome: Result<Result<T>, JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|cause| {
        let why = "the runtime ended, or the work has panicked";
        Err(Error::new(ErrorKind::Unexpected, why).with_source(cause))
    })
}

impl Directory {
    /// Opens the directory at `path`, and makes what is missing, of its path the last part alone.
    fn open(path: &Path, awaited: Weak<()>) -> Result<Self> {
        let all = OFlags::empty();
        let root = opened(CWD, path, all, Mode::RWXU).map_err(|cause| failed(path, cause))?;
        let below = |name: &str| {
            let mode = Mode::RWXU | Mode::RWXG | Mode::RWXO;
            opened(&root, Path::new(name), OFlags::NOFOLLOW, mode)
                .map_err(|cause| failed(&path.join(name), cause))
        };
        let directory = Self {
            records: below("records")?,
            loads: below("loads")?,
            lives: below("lives")?,
            drafts: below("drafts")?,
            path: path.to_owned(),
            root,
            awaited,
        };
        if directory.history()?.is_none() {
            let locked = directory.lock()?;
            if directory.history()?.is_none() {
                let epoch = Rng::from_entropy().next_u64() | 1;
                locked.begin_history(Revision::new(epoch, 1))?;
            }
        }
        Ok(directory)
    }

    /// Where its history stands. One that was deleted and made anew has another.
    pub(crate) fn revision(&self) -> Result<Revision> {
        let gone = || Error::new(ErrorKind::Unavailable, "the directory has lost its history");
        self.history()?.ok_or_else(gone)
    }

    /// The same; `None` if there is none that can be understood.
    fn history(&self) -> Result<Option<Revision>> {
        let found = self.understood(&self.root, HISTORY)?;
        Ok(found.and_then(|bytes| codec::read_revision(&bytes)))
    }

    /// The latest lives that were deregistered. Read after the records: they are removed after it is
    /// written.
    pub(crate) fn departed(&self) -> Result<Vec<Incarnation>> {
        let found = self.understood(&self.root, DEPARTED)?;
        Ok(found
            .map(|bytes| codec::read_departed(&bytes))
            .unwrap_or_default())
    }

    /// What the file `name` says; `None` also if it is none that we could have written.
    pub(crate) fn understood(&self, within: &OwnedFd, name: &str) -> Result<Option<Vec<u8>>> {
        match self.read(within, name) {
            Ok(found) => Ok(found.map(|(bytes, _)| bytes)),
            Err(cause) if cause.kind() == ErrorKind::Corrupt => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// The file `name`, which is regular and not too large, and what it says; `None` if there is none.
    pub(crate) fn read(
        &self,
        within: &OwnedFd,
        name: impl AsRef<OsStr>,
    ) -> Result<Option<(Vec<u8>, File)>> {
        let name = name.as_ref();
        let path = self.path.join(name);
        // Without waiting for whoever might write into a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(within, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(cause) => return Err(failed(&path, cause)),
        };
        let stat = fstat(&file).map_err(|cause| failed(&path, cause))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(corrupt(&path, "not a regular file"));
        }
        let mut bytes = Vec::new();
        let read = (&file).take(MAX_BYTES + 1).read_to_end(&mut bytes);
        match read.map_err(|cause| failed(&path, cause))? as u64 {
            0..=MAX_BYTES => Ok(Some((bytes, file))),
            _ => Err(corrupt(&path, "larger than 256 KiB")),
        }
    }

    /// The names in a directory. A system may pass over a file that is replaced while it is asked, so
    /// it is asked twice; the names are in order.
    pub(crate) fn names(&self, within: &OwnedFd) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        for _ in 0..2 {
            let entries = Dir::read_from(within).map_err(|cause| failed(&self.path, cause))?;
            for entry in entries {
                let entry = entry.map_err(|cause| failed(&self.path, cause))?;
                names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
            }
        }
        names.retain(|name| name != "." && name != "..");
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Waits until nobody else writes, and for no longer than somebody waits for the outcome: a call
    /// that was given up writes nothing that a later one might have written before it.
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        let path = self.path.join("lock");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = openat(&self.root, "lock", flags, Mode::RUSR | Mode::WUSR);
        let lock = lock.map_err(|cause| failed(&path, cause))?;
        let began = Instant::now();
        loop {
            let taken = flock(&lock, FlockOperation::NonBlockingLockExclusive);
            if self.awaited.strong_count() == 0 {
                return Err(Error::new(ErrorKind::Closed, "the call was given up"));
            }
            match taken {
                Ok(()) => {
                    return Ok(Locked {
                        directory: self,
                        _lock: lock,
                    });
                }
                Err(Errno::WOULDBLOCK) if began.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(Errno::WOULDBLOCK) => {
                    let why = "another process holds the lock; has it been stopped?";
                    let error = Error::new(ErrorKind::TimedOut, why);
                    return Err(error.with_context("path", path.display().to_string()));
                }
                Err(cause) => return Err(failed(&path, cause)),
            }
        }
    }
}

/// The directory, while nobody else writes.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    pub(crate) directory: &'a Directory,
    _lock: OwnedFd,
}

impl Locked<'_> {
    /// Writes a file, and has `prepare` do something to it, before anybody sees it under its name.
    pub(crate) fn put(
        &self,
        within: &OwnedFd,
        name: &str,
        text: impl AsRef<[u8]>,
        prepare: impl FnOnce(&File) -> Result<(), Errno>,
    ) -> Result<File> {
        let failed = |cause: std::io::Error| failed(&self.directory.path.join(name), cause);
        let drafts = &self.directory.drafts;
        self.remove(drafts, DRAFT)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let draft = openat(drafts, DRAFT, flags, Mode::from_raw_mode(0o666));
        let mut draft = File::from(draft.map_err(|cause| failed(cause.into()))?);
        draft.write_all(text.as_ref()).map_err(failed)?;
        prepare(&draft).map_err(|cause| failed(cause.into()))?;
        renameat(drafts, DRAFT, within, name).map_err(|cause| failed(cause.into()))?;
        Ok(draft)
    }

    /// Removes a file; nothing to remove is success.
    pub(crate) fn remove(&self, within: &OwnedFd, name: &str) -> Result<()> {
        match unlinkat(within, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(cause) => Err(failed(&self.directory.path.join(name), cause)),
        }
    }

    /// Counts a change.
    pub(crate) fn count(&self) -> Result<()> {
        let at = self.directory.revision()?;
        self.begin_history(Revision::new(at.epoch(), at.counter() + 1))
    }

    fn begin_history(&self, at: Revision) -> Result<()> {
        self.put_in_root(HISTORY, &codec::write_revision(at))
    }

    /// Remembers who leaves, before the records go.
    pub(crate) fn remember(&self, lives: &[Incarnation]) -> Result<()> {
        let known = self.directory.departed()?;
        self.put_in_root(DEPARTED, &codec::write_departed(&known, lives))
    }

    fn put_in_root(&self, name: &str, text: &str) -> Result<()> {
        self.put(&self.directory.root, name, text, |_| Ok(()))
            .map(drop)
    }
}

/// Opens a directory, or makes it.
fn opened(at: impl AsFd, path: &Path, more: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
    match openat(&at, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => match mkdirat(&at, path, mode) {
            Ok(()) | Err(Errno::EXIST) => openat(&at, path, flags, Mode::empty()),
            Err(cause) => Err(cause),
        },
        opened => opened,
    }
}
