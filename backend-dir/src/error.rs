//! What the system's codes mean here.

use std::io;
use std::path::Path;

use plimsoll_discovery_api::{Error, ErrorKind};
use rustix::io::Errno;

/// The failure of what was done to the file or directory at `path`.
pub(crate) fn failed(path: &Path, cause: impl Into<io::Error>) -> Error {
    let cause = cause.into();
    let (kind, why) = match Errno::from_io_error(&cause) {
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            (ErrorKind::PermissionDenied, "the system forbids it")
        }
        Some(
            Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOLCK,
        ) => (
            ErrorKind::ResourceExhausted,
            "the system has no room for it",
        ),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => {
            (ErrorKind::Unavailable, "the directory is not there")
        }
        Some(Errno::IO | Errno::NODEV | Errno::BUSY | Errno::INTR | Errno::TIMEDOUT) => {
            (ErrorKind::Unavailable, "the file system does not serve")
        }
        Some(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
            (ErrorKind::Corrupt, "not a regular file")
        }
        _ => (ErrorKind::Unexpected, "the system call failed"),
    };
    Error::new(kind, why)
        .with_context("path", path.display().to_string())
        .with_source(cause)
}

/// What stands in the file at `path` cannot be used.
pub(crate) fn corrupt(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, why).with_context("path", path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn codes_of_the_system_are_told_apart_and_name_the_path() {
        for (code, kind) in [
            (Errno::ACCESS, ErrorKind::PermissionDenied),
            (Errno::ROFS, ErrorKind::PermissionDenied),
            (Errno::NOSPC, ErrorKind::ResourceExhausted),
            (Errno::MFILE, ErrorKind::ResourceExhausted),
            (Errno::NOENT, ErrorKind::Unavailable),
            (Errno::IO, ErrorKind::Unavailable),
            (Errno::LOOP, ErrorKind::Corrupt),
            (Errno::INVAL, ErrorKind::Unexpected),
        ] {
            let error = failed(Path::new("/run/plimsoll"), code);
            assert_eq!(error.kind(), kind, "{code:?}");
            assert!(error.to_string().contains("/run/plimsoll"), "{error}");
            assert!(error.source().is_some());
        }
    }
}
