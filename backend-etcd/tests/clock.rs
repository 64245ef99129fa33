//! A wall clock that jumps.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use etcd_client::Permission;
use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::Registry;
use plimsoll_test_servers::probe::{eventually, load_of};
use plimsoll_test_servers::{Process, WallClock};
use tokio::time::sleep;

use support::harness::{TTL, timed};
use support::operator::{PREFIX, load};
use support::stage::{Stage, instance, service};

/// Where the process finds its server.
const ADDRESS: &str = "PLIMSOLL_TEST_ADDRESS";
const PROCESS: &str = "process_that_registers_and_watches";
const USER: (&str, &str) = ("app", "hunter2");

/// What the process says of itself, all on one line: its time of day, its state, its life, and what
/// it watches.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    unix: i64,
    life: String,
    load: u64,
    view: String,
}

/// Started by the test below, which ends it.
#[tokio::test]
#[ignore = "a process of the other test"]
async fn process_that_registers_and_watches() {
    let handle = || {
        let host = std::env::var(ADDRESS).unwrap();
        let builder = timed(EtcdRegistry::builder([host])).with_user(USER.0, USER.1);
        builder.build().unwrap()
    };
    let (provider, consumer) = (handle(), handle());
    let registration = provider.register(instance("a")).await.unwrap();
    let watch = consumer.watch(&service()).await.unwrap();
    loop {
        sleep(Duration::from_millis(20)).await;
        registration.load().increase(1);
        let state = registration.state();
        let life = state.incarnation().filter(|_| state.is_live());
        let Some(shown) = watch.latest() else {
            continue;
        };
        let members = shown.members().iter();
        let members = members.map(|m| {
            (
                m.id().to_string(),
                m.incarnation(),
                m.standing().is_registered(),
            )
        });
        println!(
            "told {} {life:?} {} {}/{}/{:?}",
            unix(),
            load_of(&shown, "a").unwrap_or_default(),
            shown.freshness().is_live(),
            shown.revision().epoch(),
            members.collect::<Vec<_>>(),
        );
    }
}

fn unix() -> i64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(time.unwrap().as_secs()).unwrap()
}

struct Jumping {
    _process: Process,
    log: PathBuf,
}

impl Jumping {
    fn start(stage: &Stage, clock: &WallClock) -> Self {
        let log = stage.server.dir().join("jumping");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "--nocapture", PROCESS])
            .env(ADDRESS, stage.server.address().to_string())
            .envs(clock.environment());
        let process = Process::spawn(&mut command, &log);
        Self {
            _process: process,
            log,
        }
    }

    /// All that it has said.
    fn told(&self) -> Vec<Told> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be half written.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter_map(|line| line.strip_prefix("told "));
        let told = lines.map(|line| {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            Told {
                unix: words[0].parse().unwrap(),
                life: words[1].to_owned(),
                load: words[2].parse().unwrap(),
                view: words[3].to_owned(),
            }
        });
        told.collect()
    }

    /// Waits until it tells the time that is `offset` seconds off.
    async fn tells(&self, offset: i64) -> Told {
        eventually(&format!("a clock {offset} s off"), || async {
            let last = self.told().pop()?;
            ((last.unix - unix() - offset).abs() <= 2).then_some(last)
        })
        .await
    }
}

/// A user, so that there are tokens to be renewed.
async fn lock_up(stage: &Stage) {
    let mut auth = stage.operator.0.auth_client();
    auth.role_add("registrar").await.unwrap();
    let all = Permission::read_write(PREFIX).with_prefix();
    auth.role_grant_permission("registrar", all).await.unwrap();
    for (user, role) in [(USER.0, "registrar"), ("root", "root")] {
        auth.user_add(user, USER.1, None).await.unwrap();
        auth.user_grant_role(user, role).await.unwrap();
    }
    auth.auth_enable().await.unwrap();
}

fault! {
    /// A process that registers, publishes and watches, whose time of day jumps an hour ahead, two
    /// back, and to where it was. Tokens that nobody uses run out after three seconds.
    async fn a_wall_clock_that_jumps_changes_no_life_lease_load_view_or_token(stage: Stage, "--auth-token-ttl=3") {
        if !WallClock::available() {
            return;
        }
        lock_up(&stage).await;
        let clock = WallClock::start();
        let jumping = Jumping::start(&stage, &clock);
        eventually("the process and its view", || async {
            let last = jumping.told().pop()?;
            (last.life != "None" && last.view.starts_with("true") && last.load > 0).then_some(())
        })
        .await;
        let first = jumping.tells(0).await;
        let tokens = stage.server.calls("Authenticate");
        let began = jumping.told().len();
        for offset in [3_600, -3_600, 0] {
            clock.jump_to(offset);
            let told = jumping.tells(offset).await;
            // Long enough for leases and tokens to run out if nobody cared for them any more.
            let until = Instant::now() + TTL + TTL / 2;
            while Instant::now() < until {
                sleep(Duration::from_millis(100)).await;
            }
            let later = jumping.tells(offset).await;
            assert!(later.load > told.load + 50, "loads went on: {told:?}, {later:?}");
        }
        for told in jumping.told().iter().skip(began) {
            assert_eq!((&told.life, &told.view), (&first.life, &first.view));
        }
        let last = jumping.told().pop().unwrap();
        // Root reads what the process has written in its own name.
        let options = etcd_client::ConnectOptions::new().with_user("root", USER.1);
        let client = etcd_client::Client::connect([stage.server.address().to_string()], Some(options));
        let mut client = client.await.unwrap();
        let kv = client.get(load(&service(), "a"), None).await.unwrap().take_kvs().pop().unwrap();
        assert!(kv.value_str().unwrap().parse::<u64>().unwrap() >= last.load.saturating_sub(20));
        assert_eq!(client.lease_client().leases().await.unwrap().leases().len(), 1);
        // They are in use all the time, and are kept.
        let tokens = stage.server.calls("Authenticate") - tokens;
        assert!(tokens <= 1.0, "{tokens} tokens were asked for, besides root's");
    }
}
