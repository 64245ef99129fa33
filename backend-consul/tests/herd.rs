//! Hundreds of handles that lose their agent in one instant, and find it again.

mod support;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_backend_consul::ConsulRegistry;
use plimsoll_discovery_api::{Instance, Registration, Registry, Watch};
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{eventually, ids, life, ready};
use tokio::task::block_in_place;
use tokio::time::sleep;

use support::counter::Counter;
use support::harness::ROOT;

const HERD: usize = 200;
const TTL: Duration = Duration::from_secs(10);
/// Long enough for the delays to have grown to their bound, 5 s.
const OUTAGE: Duration = Duration::from_secs(12);
const WINDOW: Duration = Duration::from_millis(500);

/// An agent for which 200 connections of one address are not too many.
fn agent(data: Data) -> Server {
    block_in_place(|| {
        Server::start_with(data, "limits { http_max_conns_per_client = 4000 }\n", None)
    })
}

/// Each handle with its own connections, timed as users have it.
fn handles(counter: &Counter) -> Vec<ConsulRegistry> {
    let handle = |_| {
        let builder = ConsulRegistry::builder(counter.address().to_string()).with_root(ROOT);
        builder.with_ttl(TTL).build().expect("good settings")
    };
    (0..HERD).map(handle).collect()
}

fn instance(service: &str, id: &str) -> Instance {
    let builder = Instance::builder(service, "10.0.0.7", 8080).with_id(id);
    builder.build().expect("an instance")
}

/// The most requests within any half second, of those whose line holds `part` and not `without`.
struct Peak {
    running: Arc<AtomicBool>,
    most: tokio::task::JoinHandle<(usize, usize)>,
}

impl Peak {
    fn watch(counter: &Arc<Counter>, part: &'static str, without: &'static str) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let (goes_on, counter) = (Arc::clone(&running), Arc::clone(counter));
        let most = tokio::spawn(async move {
            let count = || {
                counter
                    .lines()
                    .iter()
                    .filter(|l| l.contains(part) && !l.contains(without))
                    .count()
            };
            let first = count();
            let mut recent = VecDeque::from([(Instant::now(), first)]);
            let mut most = 0;
            while goes_on.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(20)).await;
                let now = (Instant::now(), count());
                recent.push_back(now);
                while recent.front().is_some_and(|then| now.0 - then.0 > WINDOW) {
                    recent.pop_front();
                }
                let then = recent.front().map_or(now.1, |then| then.1);
                most = most.max(now.1 - then);
            }
            (most, count() - first)
        });
        Self { running, most }
    }

    /// The peak, and all of them.
    async fn end(self) -> (usize, usize) {
        self.running.store(false, Ordering::Relaxed);
        self.most.await.expect("a count")
    }
}

/// A herd that came as one would list as one: 200 lists in the half second in which the agent is back.
/// Those whose delays are drawn from 5 s come with at most a fifth of them in any half second, in
/// the mean; half of them is ten standard deviations off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_watchers_that_lost_their_agent_list_again_one_after_the_other() {
    if !available() {
        return;
    }
    let mut server = agent(Data::Disk);
    let counter = Arc::new(Counter::start(server.address()));
    let owner = support::harness::builder(server.address()).build().unwrap();
    let owner = plimsoll_test_servers::probe::live(&owner, instance("orders", "a")).await;
    let herd = handles(&counter);
    let service = "orders".parse().unwrap();
    let mut watches: Vec<Watch> = Vec::new();
    for handle in &herd {
        watches.push(handle.watch_members(&service).await.unwrap());
    }
    let all = |what: &'static str, live: bool| {
        let watches = &watches;
        eventually(what, move || async move {
            let is = |watch: &Watch| {
                watch
                    .latest()
                    .is_some_and(|s| s.freshness().is_live() == live && ids(&s) == ["a"])
            };
            watches.iter().all(is).then_some(())
        })
    };
    all("a live list in each", true).await;
    block_in_place(|| server.kill());
    all("a stale list in each", false).await;
    sleep(OUTAGE).await;
    let peak = Peak::watch(&counter, "/v1/health/service/orders", "index=");
    block_in_place(|| server.restart());
    let back = Instant::now();
    all("a live list in each", true).await;
    let (took, (most, lists)) = (back.elapsed(), peak.end().await);
    println!("{lists} lists, {most} of them in one half second, all live {took:?} after the agent");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(
        (HERD..=HERD * 2).contains(&lists),
        "{lists} lists of {HERD} watchers"
    );
    assert!(most <= HERD / 2, "{most} lists in one half second");
    assert!(owner.state().incarnation().is_some());
}

/// Each notices when it next tries to pass its check, three quarters of a second to one and a half
/// after it tried last: so 89 of 200 come in any half second, in the mean, and seven tenths of them
/// are seven standard deviations off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_providers_whose_agent_forgot_them_register_again_one_after_the_other() {
    if !available() {
        return;
    }
    let mut server = agent(Data::Memory);
    let counter = Arc::new(Counter::start(server.address()));
    let herd = handles(&counter);
    let mut fleet: Vec<Registration> = Vec::new();
    for (number, handle) in herd.iter().enumerate() {
        let registration = handle
            .register(instance("orders", &format!("i{number:03}")))
            .await
            .unwrap();
        ready(&registration).await;
        fleet.push(registration);
        sleep(TTL / 2 / 200).await;
    }
    let lives: Vec<_> = fleet.iter().map(life).collect();
    block_in_place(|| server.kill());
    sleep(OUTAGE).await;
    let peak = Peak::watch(&counter, "/v1/session/create", "index=");
    block_in_place(|| server.restart_empty());
    let back = Instant::now();
    eventually("each in a new life", || async {
        let new = fleet.iter().filter(|r| {
            let state = r.state();
            state.is_live()
                && state
                    .incarnation()
                    .is_some_and(|life| !lives.contains(&life))
        });
        (new.count() == HERD).then_some(())
    })
    .await;
    let (took, (most, sessions)) = (back.elapsed(), peak.end().await);
    println!(
        "{sessions} sessions, {most} of them in one half second, all live {took:?} after the agent"
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(
        (HERD..=HERD * 3).contains(&sessions),
        "{sessions} sessions for {HERD} handles"
    );
    assert!(most <= HERD * 7 / 10, "{most} sessions in one half second");
}
