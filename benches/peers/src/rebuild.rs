//! What a change of membership costs: one endpoint leaves, or comes back.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::volo::discovery::{Instance, StaticDiscover};
use ::volo::loadbalance::LoadBalance;
use arc_swap::ArcSwap;
use pingora_load_balancing::Backend;
use pingora_load_balancing::selection::{
    BackendIter, BackendSelection, Consistent, RoundRobin as PingoraTurns,
};
use plimsoll::balancers::{
    BoundedLoadHash, LeastConnections, LeastLoad, LeastRequest, Maglev, PeakEwma, Random,
    Rendezvous, RingHash, RoundRobin, WeightedRandom, WeightedResponseTime, WeightedRoundRobin,
};
use plimsoll::{Balancer, Endpoint, Endpoints};

use crate::measure::median;
use crate::ours::{Told, following, members, snapshot};
use crate::peers::{alias, pingora, rings, tower, volo};
use crate::plain::{Alias, Choose, Nodes, Ring, nodes};
use crate::report::number;
use crate::runtime::block_on;
use crate::set::Set;

const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// Longer than a run of picks: some changes take that long alone.
const RUN: Duration = Duration::from_millis(5);

/// Makes the change; told whether the endpoint leaves, which alternates, beginning with true.
type Change = Box<dyn FnMut(bool)>;

pub fn print_rebuilds(repetitions: usize) {
    println!("\n### One endpoint leaves or comes back, µs\n");
    println!(
        "| weights 1 to 10, n = | {} |",
        SIZES.map(|size| size.to_string()).join(" | ")
    );
    println!("|---|{}", "---:|".repeat(SIZES.len()));
    let mut rows: Vec<(String, [String; SIZES.len()])> = Vec::new();
    for (place, &size) in SIZES.iter().enumerate() {
        for (name, mut change) in changes(Set {
            size,
            weighted: true,
        }) {
            let micros = number(micros(&mut change, repetitions));
            match rows.iter_mut().find(|row| row.0 == name) {
                Some(row) => row.1[place] = micros,
                None => {
                    let mut cells: [String; SIZES.len()] = Default::default();
                    cells[place] = micros;
                    rows.push((name, cells));
                }
            }
        }
    }
    for (name, cells) in rows {
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn micros(change: &mut Change, repetitions: usize) -> f64 {
    let mut pairs = |count: u64| {
        let start = Instant::now();
        for _ in 0..count {
            change(true);
            change(false);
        }
        start.elapsed()
    };
    let once = pairs(1).max(Duration::from_nanos(100));
    let count = (RUN.as_secs_f64() / once.as_secs_f64()).clamp(1.0, 1e5) as u64;
    // What takes seconds is steady enough at three.
    let repetitions = if once > 20 * RUN { 3 } else { repetitions };
    median((0..repetitions).map(|_| pairs(count).as_secs_f64() * 1e6 / (2 * count) as f64))
}

fn changes(set: Set) -> Vec<(String, Change)> {
    let mut all = plain(set);
    all.extend(peers(set));
    all.extend(ours(set));
    all
}

fn plain(set: Set) -> Vec<(String, Change)> {
    let list = || {
        let all: Nodes = nodes(set);
        let swap = ArcSwap::from_pointee(all.to_vec());
        move |leaves: bool| {
            let now: Vec<_> = all[usize::from(leaves)..].iter().map(Arc::clone).collect();
            swap.store(Arc::new(now));
        }
    };
    let alias = || {
        let (weights, swap) = (set.weights(), ArcSwap::from_pointee(Alias::new(set)));
        move |leaves: bool| swap.store(Arc::new(Alias::of(&weights[usize::from(leaves)..])))
    };
    let ring = || {
        let (weights, swap) = (set.weights(), ArcSwap::from_pointee(Ring::new(set)));
        move |leaves: bool| swap.store(Arc::new(Ring::of(&weights[usize::from(leaves)..])))
    };
    vec![
        ("arcswap-list".into(), Box::new(list())),
        ("arcswap-alias".into(), Box::new(alias())),
        ("arcswap-ring".into(), Box::new(ring())),
    ]
}

fn peers(set: Set) -> Vec<(String, Change)> {
    let mut all: Vec<(String, Change)> = vec![
        ("pingora/lb-rr".into(), pingora_change::<PingoraTurns>(set)),
        (
            "pingora/lb-ketama".into(),
            pingora_change::<Consistent>(set),
        ),
        (
            "volo/weighted-random".into(),
            volo_change(volo::Random::new(set), set),
        ),
        (
            "volo/consistent-hash".into(),
            volo_change(volo::Hashed::new(set), set),
        ),
    ];
    let mut pending = tower::Balanced::<tower::Pending>::new(set);
    let in_place = move |leaves| {
        if leaves {
            pending.leave(0)
        } else {
            pending.join(0)
        }
    };
    all.push(("tower/p2c-pending".into(), Box::new(in_place)));
    let mut ewma = tower::Balanced::<tower::Ewma>::new(set);
    let in_place = move |leaves| if leaves { ewma.leave(0) } else { ewma.join(0) };
    all.push(("tower/p2c-peak-ewma".into(), Box::new(in_place)));
    let equal = Set {
        weighted: false,
        ..set
    };
    let mut points = rings::Points::new(equal).0;
    let change = move |leaves| {
        if leaves {
            rings::Points::of(0).for_each(|point| assert!(points.remove(&point).is_some()));
        } else {
            points.batch_add(rings::Points::of(0).collect());
        }
    };
    all.push(("hashring (equal weights)".into(), Box::new(change)));
    let mut ring = rings::Ring::new(equal).0;
    let change = move |leaves| {
        assert!(if leaves {
            ring.remove(&0)
        } else {
            ring.insert(0)
        })
    };
    all.push((
        "consistent_hash_ring (equal weights)".into(),
        Box::new(change),
    ));
    if set.size <= 1000 {
        let change = move |leaves| {
            let size = equal.size - usize::from(leaves);
            drop(black_box(rings::Table::new(Set { size, ..equal })));
        };
        all.push(("maglev (equal weights)".into(), Box::new(change)));
    }
    let change = move |leaves| {
        let size = set.size - usize::from(leaves);
        drop(black_box(alias::Walker::new(Set { size, ..set })));
    };
    all.push(("weighted_rand/alias".into(), Box::new(change)));
    all
}

fn pingora_change<S>(set: Set) -> Change
where
    S: BackendSelection<Iter: BackendIter> + Send + Sync + 'static,
    S::Config: 'static,
{
    let all: BTreeSet<Backend> = pingora::backends(set);
    let mut rest = all.clone();
    rest.pop_first();
    let (all, rest) = (Arc::new(all), Arc::new(rest));
    let known = pingora::Known(Arc::new(ArcSwap::new(Arc::clone(&all))));
    let balanced = pingora::Balanced::<S>::following(&known);
    Box::new(move |leaves| {
        known.0.store(Arc::clone(if leaves { &rest } else { &all }));
        balanced.update();
    })
}

fn volo_change<B>(balanced: volo::Balanced<B>, set: Set) -> Change
where
    B: LoadBalance<StaticDiscover>,
{
    let all: Vec<Arc<Instance>> = volo::instances(set);
    Box::new(move |leaves| balanced.rebalance(all[usize::from(leaves)..].to_vec()))
}

fn ours(set: Set) -> Vec<(String, Change)> {
    let mut all = vec![
        picker(set, RoundRobin::new()),
        picker(set, WeightedRoundRobin::new()),
        picker(set, Random::new()),
        picker(set, WeightedRandom::new()),
        picker(set, LeastRequest::new()),
        picker(set, LeastConnections::new()),
        picker(set, LeastLoad::new()),
        picker(set, PeakEwma::new()),
        picker(set, WeightedResponseTime::new()),
        picker(set, RingHash::new()),
        picker(set, Maglev::new()),
        picker(set, Rendezvous::new()),
        picker(set, BoundedLoadHash::new()),
    ];
    all.push((
        "plimsoll client, snapshot to view (least_request)".into(),
        view(set),
    ));
    all
}

/// The list and the picker, as the client has them made.
fn picker(set: Set, mut balancer: impl Balancer) -> (String, Change) {
    let name = format!("plimsoll/{}", balancer.name());
    let all: Endpoints = members(set)
        .iter()
        .map(|member| Arc::new(Endpoint::new(member)))
        .collect();
    let change = move |leaves| {
        let now: Endpoints = all[usize::from(leaves)..].iter().map(Arc::clone).collect();
        drop(black_box(balancer.build(&now).unwrap()));
    };
    (name, Box::new(change))
}

/// From the registry's word to what picks see.
fn view(set: Set) -> Change {
    let all = members(set);
    let (all, rest) = (snapshot(&all, 1), snapshot(&all[1..], 2));
    let told = Told::new(Arc::clone(&all));
    let client = following(&told, LeastRequest::new());
    Box::new(move |leaves| {
        let now = if leaves { &rest } else { &all };
        told.tell(now);
        block_on(async {
            while client.stats().eligible != now.members().len() {
                tokio::task::yield_now().await;
            }
        });
    })
}
