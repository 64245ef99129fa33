//! Cuts by chance: of what kind, how long, and in the middle of what.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_backend_zk::ZkRegistry;
use plimsoll_discovery_api::{Instance, Registration, Registry, Rng};
use plimsoll_test_servers::probe::{eventually, life, live};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::task::JoinSet;
use tokio::time::sleep;

use support::bench::{Bench, fault};
use support::harness::{builder, load};

/// Longer than any cut with what it takes to connect again, on a busy machine too.
const SESSION: Duration = Duration::from_secs(20);
/// With each, so many cuts; what fails names the seed and the cut.
const SEEDS: [u64; 4] = [1, 2, 3, 4];
const CUTS: usize = 30;

/// A handle behind a proxy that is cut off by chance.
struct Cuts {
    rng: Rng,
    proxy: Proxy,
}

impl Cuts {
    fn new(bench: &Bench, seed: u64) -> (Self, ZkRegistry) {
        let proxy = Proxy::start(bench.server.address(), Mode::Pass);
        let handle = builder(proxy.address()).with_session_timeout(SESSION);
        let cuts = Self {
            rng: Rng::from_seed(seed),
            proxy,
        };
        (cuts, handle.build().unwrap())
    }

    /// Cuts it off, somehow.
    fn begin(&mut self) -> String {
        let bytes = 1 + self.rng.below(600);
        let modes = [
            Mode::Refuse,
            Mode::Hold,
            Mode::HoldReplies,
            Mode::HoldReplies,
            Mode::HoldRequests,
            Mode::BreakAfter(bytes),
            Mode::BreakAfter(bytes),
        ];
        match self.rng.below(modes.len() + 2) {
            0 => self.proxy.cut(),
            1 => self.proxy.reset(),
            other => {
                let mode = modes[other - 2];
                self.proxy.set(mode);
                return format!("{mode:?}");
            }
        }
        "once".to_owned()
    }

    /// For up to so many milliseconds.
    async fn pause(&mut self, most: usize) {
        let span = self.rng.below(most);
        sleep(Duration::from_millis(span.try_into().unwrap())).await;
    }

    fn end(&self) {
        self.proxy.set(Mode::Pass);
    }
}

fault! {
    /// Whether a write that nobody confirmed was carried out does not matter: it was of the whole.
    async fn a_load_is_exact_after_a_hundred_cuts_by_chance(bench: Bench) {
        let mut worlds = JoinSet::new();
        for seed in SEEDS {
            let (mut cuts, provider) = Cuts::new(&bench, seed);
            let id = format!("i{seed}");
            let instance = bench.instance(&id);
            let (path, operator) = (load(&bench.service, &id), bench.operator.clone());
            worlds.spawn(async move {
                let registration = live(&provider, instance).await;
                let began = life(&registration);
                let mut open = Vec::new();
                for number in 0..CUTS {
                    let mut act = |rng: &mut Rng| match rng.below(2) {
                        0 if !open.is_empty() => drop(open.swap_remove(rng.below(open.len()))),
                        _ => open.push(registration.load().acquire()),
                    };
                    act(&mut cuts.rng);
                    let mode = cuts.begin();
                    for _ in 0..cuts.rng.below(4) {
                        cuts.pause(100).await;
                        act(&mut cuts.rng);
                    }
                    cuts.end();
                    let true_count = u64::try_from(open.len()).unwrap();
                    assert_eq!(registration.load().current(), true_count);
                    let what = format!("the true count {true_count} after cut {number}, {mode}, of seed {seed}");
                    eventually(&what, || async {
                        let (text, _) = operator.get_data(&path).await.ok()?;
                        (text == true_count.to_string().into_bytes()).then_some(())
                    })
                    .await;
                }
                drop(open);
                eventually("nobody", || async {
                    let (text, _) = operator.get_data(&path).await.ok()?;
                    (text == b"0").then_some(())
                })
                .await;
                assert_eq!(life(&registration), began, "seed {seed}");
            });
        }
        while let Some(done) = worlds.join_next().await {
            done.unwrap();
        }
    }
}

fault! {
    /// Whatever came, went or published meanwhile is shown, once the connection is back.
    async fn a_watch_misses_nothing_over_a_hundred_cuts_by_chance(bench: Bench) {
        let mut worlds = JoinSet::new();
        for seed in SEEDS {
            let (mut cuts, consumer) = Cuts::new(&bench, seed);
            let (provider, service) = (bench.provider.clone(), format!("orders{seed}"));
            worlds.spawn(async move {
                let watch = consumer.watch(&service.parse().unwrap()).await.unwrap();
                let mut present = BTreeMap::new();
                for number in 0..CUTS {
                    let mode = cuts.begin();
                    for _ in 0..=cuts.rng.below(3) {
                        let id = format!("i{}", cuts.rng.below(7));
                        come_go_or_publish(&mut cuts.rng, &provider, &service, id, &mut present).await;
                        cuts.pause(50).await;
                    }
                    cuts.end();
                    eventually(&format!("the truth after cut {number}, {mode}, of seed {seed}"), || async {
                        let shown = watch.latest().filter(|snapshot| snapshot.freshness().is_live())?;
                        let registered = shown.members().iter().filter(|m| m.standing().is_registered());
                        let registered = registered.map(|m| (m.id().as_str(), Some(m.incarnation()), m.load().get()));
                        let truth = present.iter().map(|(id, r)| {
                            (id.as_str(), r.state().incarnation(), Some(r.load().current()))
                        });
                        registered.eq(truth).then_some(())
                    })
                    .await;
                }
            });
        }
        while let Some(done) = worlds.join_next().await {
            done.unwrap();
        }
    }
}

async fn come_go_or_publish(
    rng: &mut Rng,
    provider: &ZkRegistry,
    service: &str,
    id: String,
    present: &mut BTreeMap<String, Registration>,
) {
    match present.remove(&id) {
        Some(registration) if rng.below(2) == 0 => {
            registration.load().set(rng.next_u64() % 1_000);
            present.insert(id, registration);
        }
        Some(registration) => registration.deregister().await.unwrap(),
        None => {
            let instance = Instance::builder(service, "10.0.0.7", 8080).with_id(&id);
            let registration = live(provider, instance.build().unwrap()).await;
            present.insert(id, registration);
        }
    }
}
