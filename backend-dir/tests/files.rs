//! What the contract does not say: whose the files are, who may write, and what is left.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use plimsoll_discovery_api::conformance::{Faults, Harness};
use plimsoll_discovery_api::{ErrorKind, Instance, Registry, ServiceName};
use plimsoll_test_servers::probe::{eventually, ids, life, listed, live, shown};
use rustix::fs::{FlockOperation, flock};

use support::{DirHarness, builder, file};

const PATH: &str = "PLIMSOLL_TEST_DIR";

fn instance(id: &str) -> Instance {
    let instance = Instance::builder("orders", "10.0.0.7", 8080).with_id(id);
    instance.build().unwrap()
}

fn service() -> ServiceName {
    "orders".parse().unwrap()
}

fn names(harness: &DirHarness, below: &str) -> Vec<String> {
    let files = fs::read_dir(harness.path(below, "")).unwrap();
    let name = |file: std::io::Result<fs::DirEntry>| file.unwrap().file_name();
    let mut names: Vec<_> = files
        .map(|file| name(file).into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_is_its_owners_alone_and_its_parent_is_not_made() {
    let harness = DirHarness::new(false, false);
    let registry = harness.registry().await;
    let _member = live(&registry, instance("a")).await;
    let mode = fs::metadata(harness.path("", ""))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(names(&harness, ""), ["history", "loads", "lock", "records"]);
    for below in ["records", "loads"] {
        assert_eq!(names(&harness, below), ["orders@a"]);
    }
    let nowhere = builder(&harness.path("no", "parent")).build().unwrap();
    let error = nowhere.list(&service()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no/parent"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_remembered_and_leaves_no_file() {
    let harness = DirHarness::new(false, false);
    let registry = harness.registry().await;
    let leaving = live(&registry, instance("a")).await;
    let left = life(&leaving);
    leaving.deregister().await.unwrap();
    for below in ["records", "loads"] {
        assert!(names(&harness, below).is_empty(), "in {below}");
    }
    let history = fs::read_to_string(harness.path("", "history")).unwrap();
    let departed: Vec<_> = history.lines().skip(1).collect();
    assert_eq!(departed, [left.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_dead_left_is_swept_by_the_next_handle_that_registers() {
    let harness = DirHarness::new(false, false);
    let registry = harness.registry().await;
    let dead = live(&registry, instance("dead")).await;
    let dead = [dead.instance().id().clone()];
    harness.crash(&service(), &dead).await;
    harness.poison(&service()).await;
    let newcomer = harness.registry().await;
    listed(&newcomer, &service(), "nobody", |s| ids(s).is_empty()).await;
    assert_eq!(names(&harness, "records"), ["orders@broken", "orders@dead"]);
    let _member = live(&newcomer, instance("b")).await;
    assert_eq!(names(&harness, "records"), ["orders@b", "orders@broken"]);
    assert_eq!(names(&harness, "loads"), ["orders@b"]);
}

/// As by a process that was stopped while it wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_delays_writes_and_no_reads() {
    let harness = DirHarness::new(false, false);
    let registry = harness.registry().await;
    let _member = live(&registry, instance("a")).await;
    let lock = fs::File::open(harness.path("", "lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let waiting = registry.register(instance("b")).await.unwrap();
    let cause = eventually("a cause", || async { waiting.state().cause().cloned() }).await;
    assert_eq!(cause.kind(), ErrorKind::TimedOut);
    assert!(cause.to_string().contains("plimsoll/lock"), "{cause}");
    assert_eq!(ids(&registry.list(&service()).await.unwrap()), ["a"]);
    // Given up while it waits, it comes to nothing: neither now nor when the lock is free.
    drop(waiting);
    drop(lock);
    let _other = live(&registry, instance("c")).await;
    assert_eq!(names(&harness, "records"), ["orders@a", "orders@c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_symbolic_link_leads_out_of_the_directory() {
    let harness = DirHarness::new(false, false);
    fs::create_dir(harness.path("", "")).unwrap();
    let elsewhere = harness.path("..", "elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, harness.path("", "records")).unwrap();
    let registry = builder(&harness.path("", "")).build().unwrap();
    let registration = registry.register(instance("a")).await.unwrap();
    eventually("a cause", || async {
        registration.state().cause().cloned()
    })
    .await;
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    fs::remove_file(harness.path("", "records")).unwrap();
    symlink(&elsewhere, harness.path("..", "link")).unwrap();
    let linked = builder(&harness.path("..", "link")).build().unwrap();
    assert!(linked.list(&service()).await.is_err());
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    registration.ready().await.unwrap();
}

#[tokio::test]
#[ignore = "a process of the test below"]
async fn process_without_rights() {
    let path = env::var(PATH).unwrap();
    let registry = builder(Path::new(&path)).build().unwrap();
    for result in [
        registry.list(&service()).await.map(drop),
        registry.services().await.map(drop),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains(&path), "{error}");
    }
    let registration = registry.register(instance("a")).await.unwrap();
    let refused = registration.ready().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_system_forbids_is_permission_denied_and_names_the_path() {
    let harness = DirHarness::new(false, false);
    harness.registry().await;
    let path = harness.path("", "");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "process_without_rights", "--ignored"])
        .env(PATH, &path);
    if fs::metadata(&path).unwrap().uid() == 0 {
        // Root may everything.
        command.uid(65_534);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_renamed_or_copied_is_nobody_and_its_owner_returns() {
    let harness = DirHarness::new(false, false);
    let registry = harness.registry().await;
    let owner = live(&registry, instance("a")).await;
    let mut watch = registry.watch(&service()).await.unwrap();
    let record = harness.record(&service(), "a");
    fs::rename(&record, harness.record(&service(), "b")).unwrap();
    let both = |s: &plimsoll_discovery_api::Snapshot| ids(s) == ["a"] && s.skipped() == 1;
    shown(&mut watch, "a new life, and one skipped", both).await;
    let before = life(&owner);
    fs::copy(&record, harness.path("records", &file(&service(), "c"))).unwrap();
    shown(&mut watch, "another skipped", |s| s.skipped() == 2).await;
    assert_eq!(life(&owner), before);
}
