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
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, flock, mkdirat, openat, renameat, unlinkat,
};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

use crate::codec::History;
use crate::error::{corrupt, failed};

pub(crate) const RECORDS: &str = "records";
pub(crate) const LOADS: &str = "loads";
const HISTORY: &str = "history";
const DRAFT: &str = "draft";
/// The largest file that is read: no record that can be registered is larger.
pub(crate) const MAX_BYTES: u64 = 256 * 1024;
/// Whoever writes does so within a few milliseconds, unless it is stopped meanwhile. Less than a call
/// may take.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// One directory for one call, whatever takes its place meanwhile: everything is reached from what was
/// opened first. Neither it nor what is in it may be a symbolic link.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    root: OwnedFd,
    awaited: Weak<()>,
}

/// Works with the directory at `path` on a thread that may block. Once this is dropped, nothing is
/// written any more that a later call might have written before.
pub(crate) async fn within<T: Send + 'static>(
    path: &Arc<Path>,
    work: impl FnOnce(&Directory) -> Result<T> + Send + 'static,
) -> Result<T> {
    let awaits = Arc::new(());
    let (path, awaited) = (Arc::clone(path), Arc::downgrade(&awaits));
    let done = spawn_blocking(move || work(&Directory::open(&path, awaited)?)).await;
    drop(awaits);
    done.unwrap_or_else(|cause| {
        let why = "the runtime has ended, or the work has panicked";
        Err(Error::new(ErrorKind::Unexpected, why).with_source(cause))
    })
}

impl Directory {
    /// Opens the directory at `path`, and makes what is missing, of its path the last part alone.
    fn open(path: &Path, awaited: Weak<()>) -> Result<Self> {
        let root = opened(CWD, path, Mode::RWXU).map_err(|cause| failed(path, cause))?;
        let path = path.to_owned();
        let directory = Self {
            path,
            root,
            awaited,
        };
        for below in [RECORDS, LOADS] {
            let mode = Mode::RWXU | Mode::RWXG | Mode::RWXO;
            opened(&directory.root, Path::new(below), mode)
                .map_err(|cause| failed(&directory.path.join(below), cause))?;
        }
        Ok(directory)
    }

    /// What has happened; `None` if there is nothing that can be understood. A directory that was deleted
    /// and made anew has another history. Read after the records: they are removed after it is written.
    pub(crate) fn history(&self) -> Result<Option<History>> {
        match self.read("", HISTORY) {
            Ok(found) => Ok(found.and_then(|(bytes, _)| History::read(&bytes))),
            Err(cause) if cause.kind() == ErrorKind::Corrupt => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// What a file says, which is regular and not too large; `None` if there is none.
    pub(crate) fn read(
        &self,
        below: &str,
        name: impl AsRef<OsStr>,
    ) -> Result<Option<(Vec<u8>, File)>> {
        let name = Path::new(below).join(name.as_ref());
        let path = self.path.join(&name);
        // Without waiting for whoever might write into a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.root, &name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(cause) => return Err(failed(&path, cause)),
        };
        if !file
            .metadata()
            .map_err(|cause| failed(&path, cause))?
            .is_file()
        {
            return Err(corrupt(&path, "not a regular file"));
        }
        let mut bytes = Vec::new();
        let read = (&file).take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|cause| failed(&path, cause))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(corrupt(&path, "larger than 256 KiB"));
        }
        Ok(Some((bytes, file)))
    }

    /// The names of all records in order. A system may pass over one that is replaced while it is
    /// asked, so it is asked twice.
    pub(crate) fn records(&self) -> Result<Vec<OsString>> {
        let failed = |cause| failed(&self.path.join(RECORDS), cause);
        let mut names = Vec::new();
        for _ in 0..2 {
            let records = opened(&self.root, Path::new(RECORDS), Mode::RWXU);
            for entry in Dir::new(records.map_err(failed)?).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
            }
        }
        names.retain(|name| name != "." && name != "..");
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Waits until nobody else writes, and for no longer than somebody waits for the outcome.
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        let path = self.path.join("lock");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = openat(&self.root, "lock", flags, Mode::from_raw_mode(0o666));
        let lock = lock.map_err(|cause| failed(&path, cause))?;
        let began = Instant::now();
        loop {
            let taken = flock(&lock, FlockOperation::NonBlockingLockExclusive);
            if self.awaited.strong_count() == 0 {
                return Err(Error::new(ErrorKind::Closed, "the call was given up"));
            }
            match taken {
                Ok(()) => return Ok(Locked(self, lock)),
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
pub(crate) struct Locked<'a>(&'a Directory, #[expect(dead_code, reason = "held")] OwnedFd);

impl Locked<'_> {
    /// Writes a file, locked for as long as what is returned is open, before anybody sees it.
    pub(crate) fn put(&self, below: &str, name: &str, text: impl AsRef<[u8]>) -> Result<File> {
        let (root, name) = (&self.0.root, Path::new(below).join(name));
        let put = || {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let mut draft = File::from(openat(root, DRAFT, flags, Mode::from_raw_mode(0o666))?);
            flock(&draft, FlockOperation::NonBlockingLockExclusive)?;
            draft.write_all(text.as_ref())?;
            renameat(root, DRAFT, root, &name)?;
            Ok::<_, std::io::Error>(draft)
        };
        self.remove("", DRAFT)?;
        put().map_err(|cause| failed(&self.0.path.join(&name), cause))
    }

    /// Removes a file; nothing to remove is success.
    pub(crate) fn remove(&self, below: &str, name: &str) -> Result<()> {
        let name = Path::new(below).join(name);
        match unlinkat(&self.0.root, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(cause) => Err(failed(&self.0.path.join(name), cause)),
        }
    }

    /// Counts a change, and remembers who leaves, before their records go. Of a directory without a
    /// history it is the first.
    pub(crate) fn count(&self, leaving: &[Incarnation]) -> Result<History> {
        let begun = || History {
            revision: Revision::new(Rng::from_entropy().next_u64() | 1, 0),
            departed: Vec::new(),
        };
        let history = self.0.history()?.unwrap_or_else(begun).after(leaving);
        self.put("", HISTORY, history.write())?;
        Ok(history)
    }
}

/// Opens a directory, or makes it.
fn opened(at: impl AsFd, path: &Path, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match openat(&at, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => match mkdirat(&at, path, mode) {
            Ok(()) | Err(Errno::EXIST) => openat(&at, path, flags, Mode::empty()),
            Err(cause) => Err(cause),
        },
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_call_that_was_dropped_writes_nothing_later() {
        let scratch = tempfile::tempdir().unwrap();
        let path: Arc<Path> = scratch.path().join("plimsoll").into();
        within(&path, |directory| directory.lock().map(drop))
            .await
            .unwrap();
        let held = File::open(path.join("lock")).unwrap();
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        let (outcome, result) = mpsc::channel();
        let work = move |directory: &Directory| {
            outcome.send(None).unwrap();
            let written = directory.lock().map(|locked| locked.put("", "late", ""));
            outcome.send(Some(written.map(drop))).unwrap();
            Ok(())
        };
        let mut call = Box::pin(within(&path, work));
        tokio::select! {
            biased;
            _ = &mut call => panic!("the lock is held"),
            () = tokio::task::yield_now() => {}
        }
        assert!(result.recv().unwrap().is_none(), "it has not begun");
        drop(call);
        drop(held);
        let refused = result.recv().unwrap().unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Closed);
        assert!(!path.join("late").exists());
    }
}
