//! What the conformance suite asks of a backend's tests.

#![allow(
    dead_code,
    clippy::future_not_send,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "each test target uses a part, and all of it panics on what it does not expect"
)]
#![allow(unreachable_pub, reason = "a module of each test target")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, io};

use async_trait::async_trait;
use plimsoll_backend_dir::{DirBuilder, DirRegistry};
use plimsoll_backend_kit::{decode, escape};
use plimsoll_discovery_api::conformance::{Faults, Harness, Oddity, Timing, odd_values};
use plimsoll_discovery_api::{
    Error, ErrorKind, Incarnation, InstanceId, Registry, Result, ServiceName,
};
use plimsoll_test_servers::harness;
use plimsoll_test_servers::probe::eventually;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// A directory, which each handle reaches by a way of its own: a symbolic link to its parent.
pub struct DirHarness {
    scratch: TempDir,
    handles: AtomicUsize,
    /// Whether there is something else in its place in an outage.
    replaced: bool,
    nested: bool,
}

pub fn builder(path: &Path) -> DirBuilder {
    let builder = DirRegistry::builder(path);
    builder.with_timings(|timings| {
        harness::hasten(timings, timing().grace);
        timings.lease = Some(Duration::from_secs(3));
    })
}

fn timing() -> Timing {
    harness::timing(Duration::from_secs(4)).with_recovery(Duration::from_secs(10))
}

/// The name of the files of an instance.
pub fn file(service: &ServiceName, id: &str) -> String {
    format!("{}@{}", escape(service.as_str()), escape(id))
}

impl DirHarness {
    pub fn new(replaced: bool, nested: bool) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("parent")).unwrap();
        Self {
            scratch,
            handles: AtomicUsize::new(0),
            replaced,
            nested,
        }
    }

    fn parent(&self) -> PathBuf {
        self.scratch.path().join("parent")
    }

    /// The path of a file, while there is no outage.
    pub fn path(&self, below: &str, name: &str) -> PathBuf {
        self.parent().join("plimsoll").join(below).join(name)
    }

    fn away(&self) -> PathBuf {
        self.scratch.path().join("away")
    }

    pub fn record(&self, service: &ServiceName, id: &str) -> PathBuf {
        self.path("records", &file(service, id))
    }

    pub fn life(&self, service: &ServiceName, id: &str) -> Option<Incarnation> {
        let bytes = fs::read(self.record(service, id)).ok()?;
        let json = bytes.splitn(2, |byte| *byte == b'\n').nth(1)?;
        Some(decode(service, json).ok()?.incarnation)
    }

    /// Keeps everybody else from writing.
    async fn locked(&self) -> fs::File {
        let lock = fs::File::open(self.path("", "lock")).unwrap();
        let take = || flock(&lock, FlockOperation::NonBlockingLockExclusive).ok();
        eventually("the lock", || async { take() }).await;
        lock
    }

    /// Puts a file of the same words in the place of the record, which nobody has locked.
    async fn unlock(&self, service: &ServiceName, id: &str) {
        let _locked = self.locked().await;
        let (record, copy) = (self.record(service, id), self.path("", "unlocked"));
        if fs::copy(&record, &copy).is_ok() {
            fs::rename(copy, record).unwrap();
        }
    }
}

#[async_trait]
impl Harness for DirHarness {
    async fn registry(&self) -> Arc<dyn Registry> {
        let number = self.handles.fetch_add(1, Ordering::Relaxed);
        let way = self.scratch.path().join(format!("way-{number}"));
        symlink("parent", &way).unwrap();
        let registry = builder(&way.join("plimsoll")).build().unwrap();
        if self.parent().is_dir() {
            eventually("an answer", || async { registry.services().await.ok() }).await;
        }
        let registry: Arc<dyn Registry> = Arc::new(registry);
        if self.nested {
            harness::nested(registry)
        } else {
            registry
        }
    }

    fn timing(&self) -> Timing {
        timing()
    }

    fn faults(&self) -> &dyn Faults {
        self
    }
}

#[async_trait]
impl Faults for DirHarness {
    async fn expire(&self, service: &ServiceName, id: &InstanceId) {
        self.unlock(service, id.as_str()).await;
    }

    /// Their processes see nothing of the directory any more, and their locks are gone.
    async fn crash(&self, service: &ServiceName, ids: &[InstanceId]) {
        for id in ids {
            let Ok(text) = fs::read_to_string(self.record(service, id.as_str())) else {
                continue;
            };
            let way = text.lines().next().unwrap().rsplit('"').nth(1).unwrap();
            let _by_another_of_its_ids = fs::remove_file(Path::new(way).parent().unwrap());
        }
        for id in ids {
            self.unlock(service, id.as_str()).await;
        }
    }

    async fn outage(&self) {
        fs::rename(self.parent(), self.away()).unwrap();
        if self.replaced {
            fs::write(self.parent(), "a file").unwrap();
        }
    }

    async fn restore(&self) {
        if self.replaced {
            fs::remove_file(self.parent()).unwrap();
        }
        fs::rename(self.away(), self.parent()).unwrap();
    }

    async fn wipe(&self) {
        self.outage().await;
        fs::remove_dir_all(self.away().join("plimsoll")).unwrap();
        self.restore().await;
    }

    async fn poison(&self, service: &ServiceName) {
        let broken = self.path("records", &file(service, "broken"));
        fs::write(broken, "{\"not\": an instance").unwrap();
    }

    async fn oddity(&self, service: &ServiceName, number: usize) -> Option<Oddity> {
        let values = odd_values();
        let record = |key: &str| self.path("records", &(file(service, "") + key));
        if let Some((what, bytes)) = values.get(number) {
            fs::write(record(&format!("odd-{number}")), bytes).unwrap();
            return Some(Oddity::entry(*what));
        }
        let no_text = OsStr::from_bytes(b"\xff\xfe\n");
        let pipe = || Command::new("mkfifo").arg(record("pipe")).status();
        let load = self.path("loads", &file(service, "first"));
        let large = vec![b' '; 300 * 1024];
        let done: [(&str, &dyn Fn() -> io::Result<()>); 8] = [
            ("a large file", &|| fs::write(record("large"), &large)),
            ("a link", &|| symlink("/etc/passwd", record("link"))),
            ("a directory", &|| fs::create_dir(record("directory"))),
            ("a pipe", &|| pipe().map(|made| assert!(made.success()))),
            ("an id of no escape", &|| fs::write(record("%zz"), "{}")),
            ("a name of no text", &|| {
                let mut name = record("").into_os_string();
                name.push(no_text);
                fs::write(name, "{}")
            }),
            ("no load", &|| fs::write(&load, b"-1\xff")),
            ("a large lock", &|| fs::write(self.path("", "lock"), &large)),
        ];
        let (what, write) = done.get(number - values.len())?;
        write().unwrap();
        let is_entry = !matches!(*what, "no load" | "a large lock");
        Some(if is_entry {
            Oddity::entry(*what)
        } else {
            Oddity::other(*what)
        })
    }

    /// `cp`.
    async fn copy(&self, service: &ServiceName, id: &InstanceId, other: &ServiceName) -> bool {
        for below in ["records", "loads"] {
            let [from, to] = [service, other].map(|service| file(service, id.as_str()));
            fs::copy(self.path(below, &from), self.path(below, &to)).unwrap();
        }
        true
    }

    async fn write_load(
        &self,
        service: &ServiceName,
        id: &InstanceId,
        incarnation: Incarnation,
        load: u64,
    ) -> Result<()> {
        let _locked = self.locked().await;
        if self.life(service, id.as_str()) != Some(incarnation) {
            return Err(Error::new(
                ErrorKind::LeaseExpired,
                "another life stands there",
            ));
        }
        let draft = self.path("", "draft-of-a-test");
        fs::write(&draft, format!("{incarnation} {load}\n")).unwrap();
        fs::rename(draft, self.path("loads", &file(service, id.as_str()))).unwrap();
        Ok(())
    }
}
