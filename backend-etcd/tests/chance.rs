//! Faults by chance, while members come, go and publish: what a watch shows afterwards is what there
//! is, and nobody who was there all the time was ever gone.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{KvClient, PutOptions, Txn, TxnOp};
use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{
    Incarnation, Registration, RegistrationState, Registry, Rng, Snapshot, Standing, Watch,
};
use plimsoll_test_servers::etcd::{Server, available};
use plimsoll_test_servers::probe::{PATIENCE, eventually, life, state};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::task::{JoinHandle, JoinSet, block_in_place};
use tokio::time::{sleep, timeout};

use support::harness::{builder, timed};
use support::operator::{Operator, PREFIX, identity, load, record};
use support::stage::{live, register, service};

/// Longer than any cut with what it takes to connect again, on a busy machine too.
const TTL: Duration = Duration::from_secs(15);
const CUTS: usize = 25;
/// Each is a world of its own: a server, its handles, and what happens to them.
const SEEDS: [u64; 4] = [11, 22, 33, 44];
/// Those who never leave.
const STEADY: usize = 3;
/// So many come and go beside them, at the most.
const VISITORS: usize = 9;

/// What an instance is to be shown as.
type Truth = BTreeMap<String, (Incarnation, Option<u64>)>;

struct World {
    rng: Rng,
    /// Before the provider, and before the watcher.
    proxies: [Proxy; 2],
    operator: Operator,
    provider: EtcdRegistry,
    /// Never cut off.
    other: EtcdRegistry,
    watch: Watch,
    record: Recorder,
    members: BTreeMap<String, Registration>,
    /// The lives of those who never leave.
    lives: Vec<Incarnation>,
    leaving: JoinSet<()>,
    number: u64,
    _server: Server,
}

impl World {
    async fn new(seed: u64) -> Self {
        let server = block_in_place(Server::start);
        let proxies = [(); 2].map(|()| Proxy::start(server.address(), Mode::Pass));
        let handle = |address| {
            let suspects = Duration::from_secs(1);
            let builder = builder(address).with_lease_ttl(TTL);
            let builder = builder.with_timings(move |timings| timings.hold_down.grace = suspects);
            builder.build().unwrap()
        };
        let provider = handle(proxies[0].address());
        let watch = handle(proxies[1].address())
            .watch(&service())
            .await
            .unwrap();
        let mut members = BTreeMap::new();
        for number in 0..STEADY {
            let id = format!("steady{number}");
            members.insert(id.clone(), live(&provider, &id).await);
        }
        let lives = members.values().map(life).collect();
        Self {
            rng: Rng::from_seed(seed),
            operator: Operator::new(server.address()).await,
            other: handle(server.address()),
            record: Recorder::of(watch.clone()),
            proxies,
            provider,
            watch,
            members,
            lives,
            leaving: JoinSet::new(),
            number: 0,
            _server: server,
        }
    }

    fn draw(&mut self, least: u64, most: u64) -> u64 {
        least + self.rng.next_u64() % (most - least + 1)
    }

    /// Cuts off one of the two or both, somehow and for some time, while something happens.
    async fn cut(&mut self) -> String {
        let struck: &[usize] = [&[0][..], &[1], &[0, 1]][self.rng.below(3)];
        let bytes = usize::try_from(self.draw(1, 2_000)).unwrap();
        let modes = [
            None,
            Some(Mode::Refuse),
            Some(Mode::Hold),
            Some(Mode::HoldReplies),
            Some(Mode::HoldRequests),
            Some(Mode::BreakAfter(bytes)),
            Some(Mode::BreakAfter(bytes)),
        ];
        let mode = modes[self.rng.below(modes.len())];
        // Now and then longer than requests and watches wait.
        let longest = if self.rng.below(8) == 0 { 4_000 } else { 1_000 };
        let span = Duration::from_millis(self.draw(0, longest));
        let until = Instant::now() + span;
        let acts = self.draw(0, 2);
        self.act(acts).await;
        for index in struck {
            match mode {
                None if self.rng.below(2) == 0 => self.proxies[*index].reset(),
                None => self.proxies[*index].cut(),
                Some(mode) => self.proxies[*index].set(mode),
            }
        }
        let acts = self.draw(1, 6);
        for _ in 0..acts {
            self.act(1).await;
            let left = until.saturating_duration_since(Instant::now());
            sleep(left.mul_f64(self.rng.next_f64() / 2.0)).await;
        }
        sleep(until.saturating_duration_since(Instant::now())).await;
        for index in struck {
            self.proxies[*index].set(Mode::Pass);
        }
        format!("{mode:?} of {struck:?} for {span:?}")
    }

    async fn act(&mut self, count: u64) {
        for _ in 0..count {
            let visitors = self.members.len() - STEADY;
            match self.rng.below(10) {
                0..4 => self.publish(),
                4..7 if visitors < VISITORS => self.join().await,
                _ if visitors > 0 => self.leave(),
                _ => self.join().await,
            }
        }
    }

    fn publish(&mut self) {
        let index = self.rng.below(self.members.len());
        let value = self.draw(0, 1_000);
        let registration = self.members.values().nth(index).unwrap();
        registration.load().set(value);
    }

    /// By either handle, under a new id, or one that another has just had.
    async fn join(&mut self) {
        let id = format!("visitor{}", self.number % (2 * VISITORS as u64));
        self.number += self.draw(0, 1);
        if self.members.contains_key(&id) {
            self.number += 1;
            return;
        }
        let handle = [&self.provider, &self.other][self.rng.below(2)];
        let registration = register(handle, &id).await;
        self.members.insert(id, registration);
    }

    /// Whoever leaves may be unable to say so, and need not be asked again.
    fn leave(&mut self) {
        let visitors = self.members.len() - STEADY;
        let index = STEADY + self.rng.below(visitors);
        let id = self.members.keys().nth(index).unwrap().clone();
        let registration = self.members.remove(&id).unwrap();
        self.leaving.spawn(async move {
            let _told_or_not = registration.deregister().await;
        });
    }

    /// Waits until the watch shows what there is, and that is what is wanted.
    async fn settle(&mut self, what: &str) -> Duration {
        let began = Instant::now();
        while timeout(PATIENCE, self.leaving.join_next())
            .await
            .unwrap()
            .is_some()
        {}
        for registration in self.members.values() {
            // Whoever took over an id may have to wait for the removal of the one before.
            state(registration, "Live", RegistrationState::is_live).await;
        }
        let wanted: Truth = self
            .members
            .iter()
            .map(|(id, r)| (id.clone(), (life(r), Some(r.load().current()))))
            .collect();
        let shown = || {
            let latest = self.watch.latest();
            latest.map(|shown| (shown.freshness().is_live(), truth(&shown)))
        };
        let wanted_to_be_shown = Some((true, wanted.clone()));
        while shown() != wanted_to_be_shown && began.elapsed() < PATIENCE {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(shown(), wanted_to_be_shown, "after {what}");
        eventually(&format!("no other keys after {what}"), || async {
            let keys = self.operator.records().await;
            let keys = keys.iter().filter_map(|kv| kv.key_str().ok());
            let (ids, loads): (Vec<_>, Vec<_>) = keys
                .filter(|key| !key.contains("/fence/"))
                .partition(|key| key.contains("/services/"));
            let wanted: Vec<_> = wanted.keys().map(|id| identity(&service(), id)).collect();
            let wanted_loads: Vec<_> = self.members.keys().map(|id| load(&service(), id)).collect();
            (ids == wanted && loads == wanted_loads).then_some(())
        })
        .await;
        let steady = self.members.values().take(STEADY).map(life);
        assert!(
            steady.eq(self.lives.iter().copied()),
            "a life was lost by {what}"
        );
        self.record.assert(what);
        began.elapsed()
    }
}

/// Everybody shown; a suspect has no life to show.
fn truth(snapshot: &Snapshot) -> Truth {
    let members = snapshot.members().iter();
    members
        .map(|m| {
            let life = match m.standing() {
                Standing::Registered => m.incarnation(),
                _ => Incarnation::from_bits(0),
            };
            (m.id().to_string(), (life, m.load().get()))
        })
        .collect()
}

/// Sees every list that the watch shows, and remembers what must not be.
struct Recorder {
    faults: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Recorder {
    fn of(mut watch: Watch) -> Self {
        let faults = Arc::new(Mutex::new(Vec::new()));
        let found = Arc::clone(&faults);
        let task = tokio::spawn(async move {
            let (mut present, mut gone) = (HashSet::new(), HashSet::new());
            let (mut last, mut steady) = (None, 0);
            while let Some(snapshot) = watch.next().await {
                let registered: HashSet<_> = snapshot
                    .members()
                    .iter()
                    .filter(|m| m.standing().is_registered())
                    .map(|m| m.incarnation())
                    .collect();
                let all: HashSet<_> = snapshot.members().iter().map(|m| m.incarnation()).collect();
                gone.extend(present.difference(&all).copied());
                let mut faults = found.lock().unwrap();
                if !registered.is_disjoint(&gone) {
                    faults.push(format!("resurrected: {snapshot:?}"));
                }
                let is_steady = |m: &&plimsoll_discovery_api::Member| {
                    m.standing().is_registered() && m.id().as_str().starts_with("steady")
                };
                let now = snapshot.members().iter().filter(is_steady).count();
                if now < steady {
                    faults.push(format!("one who never left was not shown: {snapshot:?}"));
                }
                let revision = snapshot.revision();
                if last.is_some_and(|last| {
                    revision.is_before(last) || revision.epoch() != last.epoch()
                }) {
                    faults.push(format!("{revision} after {last:?}"));
                }
                (last, steady, present) = (Some(revision), now, all);
            }
        });
        Self { faults, task }
    }

    fn assert(&self, what: &str) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{what}: {faults:#?}");
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Resets, black holes, one-way cuts and breaks in the middle of an answer, of the watcher's
/// connection, the provider's or both; members that come, go and publish before, meanwhile, and in
/// part through the very connection that is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_cuts_by_chance_miss_nothing_resurrect_nothing_and_cost_no_life() {
    if !available() {
        return;
    }
    let mut worlds = JoinSet::new();
    for seed in SEEDS {
        worlds.spawn(async move {
            let mut world = World::new(seed).await;
            let mut longest = Duration::ZERO;
            for number in 0..CUTS {
                let what = world.cut().await;
                let what = format!("cut {number} of seed {seed}: {what}");
                longest = longest.max(world.settle(&what).await);
            }
            eprintln!("seed {seed}: the watch was right again within {longest:?}");
        });
    }
    while let Some(done) = worlds.join_next().await {
        done.unwrap();
    }
}

const READERS: usize = 100;
const WRITERS: usize = 4;
/// Of each writer, at least; a busy machine takes longer over them.
const CHANGES: usize = 750;
const NAMES: usize = 40;

/// Writes and deletes instances for so long or longer, and returns how often.
async fn change(mut kv: KvClient, lease: i64, span: Duration, mut rng: Rng, first: usize) -> usize {
    let (until, mut count) = (Instant::now() + span, 0);
    while Instant::now() < until || count < CHANGES {
        count += 1;
        let (id, number) = (format!("m{:02}", rng.below(NAMES)), first + count);
        let (key, load_key) = (identity(&service(), &id), load(&service(), &id));
        let put = || Some(PutOptions::new().with_lease(lease));
        let ops = match rng.below(3) {
            0 => vec![TxnOp::delete(key, None), TxnOp::delete(load_key, None)],
            _ => vec![
                TxnOp::put(key, record(&id, number), put()),
                TxnOp::put(load_key, number.to_string(), put()),
            ],
        };
        kv.txn(Txn::new().and_then(ops)).await.unwrap();
    }
    count
}

/// A change may come between the list and the stream, on the way to either, or within a list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_opened_amid_thousands_of_changes_miss_none() {
    if !available() {
        return;
    }
    let server = block_in_place(Server::start);
    let operator = Operator::new(server.address()).await;
    let lease = operator
        .0
        .lease_client()
        .grant(300, None)
        .await
        .unwrap()
        .id();
    let span = Duration::from_secs(8);
    let mut readers = JoinSet::new();
    let mut rng = Rng::from_seed(55);
    for _ in 0..READERS {
        let hosts = [server.address().to_string()];
        let after = span.mul_f64(rng.next_f64());
        readers.spawn(async move {
            let registry = timed(EtcdRegistry::builder(hosts)).with_timings(|timings| {
                timings.hold_down.grace = Duration::from_secs(1);
            });
            let registry = registry.build().unwrap();
            sleep(after).await;
            registry.watch(&service()).await.unwrap()
        });
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (kv, seed) = (operator.0.kv_client(), rng.next_u64());
        writers.spawn(change(
            kv,
            lease,
            span,
            Rng::from_seed(seed),
            writer * 1_000_000,
        ));
    }
    let changes: usize = writers.join_all().await.into_iter().sum();
    let mut wanted = Truth::new();
    for kv in operator.records().await {
        let Some(id) = kv
            .key_str()
            .unwrap()
            .strip_prefix(&format!("{PREFIX}/load/orders/"))
        else {
            continue;
        };
        // One transaction wrote both.
        let number: u64 = kv.value_str().unwrap().parse().unwrap();
        let life = Incarnation::from_bits(number.into());
        wanted.insert(id.to_owned(), (life, Some(number)));
    }
    assert!(wanted.len() > NAMES / 4, "{wanted:?}");
    let watches = readers.join_all().await;
    assert_eq!(watches.len(), READERS);
    for watch in watches {
        eventually("what is left", || async {
            let shown = watch.latest()?;
            (shown.freshness().is_live() && truth(&shown) == wanted).then_some(())
        })
        .await;
    }
    eprintln!("{READERS} watches opened amid {changes} changes");
}
