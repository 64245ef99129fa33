//! What the conformance suite asks of a backend's tests.

#![allow(
    dead_code,
    clippy::future_not_send,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "each test target uses a part, and all of it panics on what it does not expect"
)]
#![allow(unreachable_pub, reason = "a module of each test target")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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

    pub fn life(&self, service: &ServiceName, id: &str) -> Option<Incarnation> {
        let bytes = fs::read(self.path("records", &file(service, id))).ok()?;
        Some(decode(service, &bytes).ok()?.incarnation)
    }

    /// The file of the life that the record of `id` is in.
    pub fn lock(&self, service: &ServiceName, id: &str) -> Option<PathBuf> {
        let life = self.life(service, id)?;
        Some(self.path("lives", &life.to_string()))
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
        if let Some(lock) = self.lock(service, id.as_str()) {
            let _gone = fs::remove_file(lock);
        }
    }

    /// Their processes see nothing of the directory any more, and their locks are gone.
    async fn crash(&self, service: &ServiceName, ids: &[InstanceId]) {
        let locks = ids.iter().filter_map(|id| self.lock(service, id.as_str()));
        let locks: Vec<_> = locks.collect();
        for lock in &locks {
            let owner = fs::read_to_string(lock).unwrap();
            let way = owner.trim_end().rsplit(' ').next().unwrap();
            let _by_another_of_its_ids = fs::remove_file(Path::new(way).parent().unwrap());
        }
        locks.iter().for_each(|lock| fs::remove_file(lock).unwrap());
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
        let entry = |what: &str| Some(Oddity::entry(what));
        let other = |what: &str| Some(Oddity::other(what));
        match number - values.len() {
            0 => {
                fs::write(record("larger"), vec![b' '; 300 * 1024]).unwrap();
                entry("a file larger than any record")
            }
            1 => {
                symlink("/etc/passwd", record("link")).unwrap();
                entry("a symbolic link out of the directory")
            }
            2 => {
                fs::create_dir(record("directory")).unwrap();
                entry("a directory")
            }
            3 => {
                let made = std::process::Command::new("mkfifo")
                    .arg(record("pipe"))
                    .status();
                assert!(made.unwrap().success());
                entry("a pipe that nobody writes into")
            }
            4 => {
                fs::write(record("%zz"), "{}").unwrap();
                entry("an id that is escaped wrongly")
            }
            5 => {
                use std::os::unix::ffi::OsStringExt;
                let mut name = record("").into_os_string().into_vec();
                name.extend(b"\xff\xfe\n");
                fs::write(std::ffi::OsString::from_vec(name), "{}").unwrap();
                entry("a name that is no text")
            }
            6 => {
                fs::write(self.path("loads", &file(service, "first")), b"-1\xff").unwrap();
                other("a load that is none")
            }
            7 => {
                fs::create_dir(self.path("lives", &Incarnation::random().to_string())).unwrap();
                fs::write(self.path("lives", "no life"), "").unwrap();
                other("lives that are none")
            }
            8 => {
                fs::write(self.path("", "departed"), vec![0xff; 300 * 1024]).unwrap();
                other("departures that are none")
            }
            _ => None,
        }
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
        let locked = fs::File::open(self.path("", "lock")).unwrap();
        let lock = || flock(&locked, FlockOperation::NonBlockingLockExclusive).ok();
        eventually("the lock", || async { lock() }).await;
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
