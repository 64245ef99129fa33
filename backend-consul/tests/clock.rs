//! A process whose wall clock jumps.

mod support;

use std::env;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use plimsoll_discovery_api::{Instance, Registry};
use plimsoll_test_servers::consul::{Data, available};
use plimsoll_test_servers::probe::{eventually, ids, load_of};
use plimsoll_test_servers::{Process, WallClock};
use tokio::time::sleep;

use support::bench::Bench;
use support::harness::{TTL, builder};

const AGENT: &str = "PLIMSOLL_TEST_CLOCK_AGENT";
/// What its load is, on either side of every jump.
const LOAD: u64 = 7;

fn seconds() -> i64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(time.expect("after 1970").as_secs()).expect("before the sun goes out")
}

/// Is a provider and a consumer, if this process was started as one: tells what time it takes it for
/// and what it makes of the registry, twenty times a second, and never returns.
#[expect(clippy::print_stdout, reason = "what it tells is read")]
async fn be_a_process() {
    let Ok(address) = env::var(AGENT) else {
        return;
    };
    let registry = builder(address.parse().expect("an address"))
        .build()
        .expect("good settings");
    let instance = Instance::builder("orders", "10.0.0.7", 8080).with_id("jumping");
    let registration = registry
        .register(instance.build().expect("an instance"))
        .await
        .expect("a registration");
    registration.load().set(LOAD);
    let watch = registry
        .watch(registration.instance().service())
        .await
        .expect("a watch");
    loop {
        let view = watch.latest().map(|s| {
            let members: Vec<_> = s
                .members()
                .iter()
                .map(|m| {
                    format!(
                        "{}={}/{:?}/{:?}",
                        m.id(),
                        m.incarnation(),
                        m.load().get(),
                        m.standing()
                    )
                })
                .collect();
            format!("{:?} {}", s.freshness(), members.join(" "))
        });
        println!("told {} {:?} {view:?}", seconds(), registration.state());
        sleep(Duration::from_millis(50)).await;
    }
}

/// What a process has told last: by how much its clock is ahead, and what it sees.
fn told(log: &std::path::Path) -> Option<(i64, String)> {
    let text = fs::read_to_string(log).ok()?;
    // The last one may be half written.
    let whole = &text[..=text.rfind('\n')?];
    let line = whole
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("told "))?;
    let (time, seen) = line.split_once(' ')?;
    Some((time.parse::<i64>().ok()? - seconds(), seen.to_owned()))
}

/// By an hour, either way, for longer than a check lives each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_of_the_wall_clock_changes_no_registration_no_life_no_load_and_no_view() {
    // Before it has an agent of its own, which would outlive it.
    be_a_process().await;
    if !available() || !WallClock::available() {
        return;
    }
    let bench = Bench::set(Data::Memory);
    let steady = bench.live("steady").await;
    steady.load().set(3);
    let clock = WallClock::start();
    let mut command = std::process::Command::new(env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "a_jump_of_the_wall_clock_changes_no_registration_no_life_no_load_and_no_view",
        ])
        .args(["--nocapture", "--test-threads", "1"])
        .env(AGENT, bench.server.address().to_string())
        .envs(clock.environment());
    let log = bench.server.dir().join("clock");
    let _process = Process::spawn(&mut command, &log);
    let listed = bench
        .listed("both, with their loads", |s| {
            ids(s) == ["jumping", "steady"]
                && load_of(s, "jumping") == Some(LOAD)
                && load_of(s, "steady") == Some(3)
        })
        .await;
    let life = listed.get("jumping").map(|m| m.incarnation());
    let before = bench.owned("jumping").unwrap();
    let settled = |seen: &str| {
        let parts = ["Live", "jumping=", "steady=", "Some(7)", "Some(3)"];
        parts.iter().all(|part| seen.contains(part)) && !seen.contains("Stale")
    };
    let expected = eventually("its own view", || async {
        told(&log)
            .map(|(_, seen)| seen)
            .filter(|seen| settled(seen))
    })
    .await;
    let mut index = before.index;
    for ahead in [3_600, -3_600, 0] {
        clock.jump_to(ahead);
        eventually("it to take another time for true", || async {
            told(&log).filter(|(now, _)| (now - ahead).abs() <= 2)
        })
        .await;
        let until = Instant::now() + TTL + Duration::from_secs(2);
        while Instant::now() < until {
            let (now, seen) = told(&log).unwrap();
            assert!(
                (now - ahead).abs() <= 3,
                "its clock is {now} s ahead, not {ahead}"
            );
            assert_eq!(seen, expected, "what the process sees");
            let listed = bench.look().await;
            assert_eq!(ids(&listed), ["jumping", "steady"]);
            assert_eq!(listed.get("jumping").map(|m| m.incarnation()), life);
            assert_eq!(load_of(&listed, "jumping"), Some(LOAD));
            sleep(Duration::from_millis(50)).await;
        }
        let owned = bench.owned("jumping").unwrap();
        assert_eq!(owned.session, before.session, "another session");
        assert!(owned.index > index, "its load was not published any more");
        index = owned.index;
    }
}
