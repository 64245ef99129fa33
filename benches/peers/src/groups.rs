//! Who is compared with whom.

use pingora_load_balancing::selection::{
    Consistent, Random as PingoraRandom, RoundRobin as PingoraTurns,
};
use plimsoll::Balancer;
use plimsoll::balancers::{
    BoundedLoadHash, LeastConnections, LeastLoad, LeastRequest, Maglev, PeakEwma, Random,
    Rendezvous, RingHash, RoundRobin, WeightedRandom, WeightedResponseTime, WeightedRoundRobin,
};

use crate::measure::Contestant;
use crate::ours::{Bare, Local, Shared, client};
use crate::peers::{alias, pingora, rings, tower, volo};
use crate::plain::{
    Alias, Array, Cached, Chance, Choose, Least, Noop, OwnTurn, Owned, Ring, SharedTurn, Swap,
    Table, TwoChoices,
};
use crate::set::Set;
use crate::subject::{Kind, Spread, Subject};

/// Subjects of one algorithm.
pub struct Group {
    pub name: &'static str,
    /// Whether its subjects know weights.
    pub by_weight: bool,
    /// How much the yardsticks may be exceeded by a handle and by the shared client.
    pub over_plain: [f64; 2],
    pub make: fn(Set) -> Vec<Contestant>,
}

pub const GROUPS: [Group; 8] = [
    Group {
        name: "turns",
        by_weight: true,
        over_plain: [2.0, 1.2],
        make: turns,
    },
    Group {
        name: "chance",
        by_weight: true,
        over_plain: [2.0, 1.2],
        make: chance,
    },
    Group {
        name: "two-choices",
        by_weight: false,
        over_plain: [1.3, 1.3],
        make: two_choices,
    },
    Group {
        name: "peak-ewma",
        by_weight: false,
        over_plain: [f64::NAN; 2],
        make: peak_ewma,
    },
    Group {
        name: "scan",
        by_weight: false,
        over_plain: [2.0, 1.2],
        make: scan,
    },
    Group {
        name: "ring",
        by_weight: true,
        over_plain: [2.0, 1.2],
        make: ring,
    },
    Group {
        name: "table",
        by_weight: true,
        over_plain: [2.0, 1.2],
        make: table,
    },
    Group {
        name: "others",
        by_weight: true,
        over_plain: [f64::NAN; 2],
        make: others,
    },
];

/// What every group is measured against first and last, to see the machine drift.
pub fn reference(set: Set, name: &str) -> Contestant {
    let set = Set {
        weighted: false,
        ..set
    };
    Contestant::new(
        name,
        Kind::Plain,
        Spread::Free,
        Swap::<SharedTurn, false>::new(set),
    )
}

fn turns(set: Set) -> Vec<Contestant> {
    let mut all = vec![Contestant::new("noop", Kind::Plain, Spread::Free, Noop)];
    if !set.weighted {
        all.extend([
            plain("array-rr", Array::<OwnTurn, false>::new(set), Spread::Turns),
            plain(
                "array-rr+guard",
                Array::<OwnTurn, true>::new(set),
                Spread::Turns,
            ),
            plain(
                "arcswap-cache-rr+guard",
                Cached::<OwnTurn>::new(set),
                Spread::Turns,
            ),
        ]);
    }
    all.extend(yardsticks::<SharedTurn>("rr", set, Spread::Turns));
    all.extend([
        part(
            "pingora/raw-rr",
            pingora::Raw::<PingoraTurns>::new(set),
            Spread::Turns,
        ),
        peer(
            "pingora/lb-rr",
            pingora::Balanced::<PingoraTurns>::new(set),
            Spread::Turns,
        ),
    ]);
    if set.weighted {
        all.extend(ours::<false, false, _>(
            "weighted_round_robin",
            set,
            Spread::Turns,
            WeightedRoundRobin::new,
        ));
    } else {
        all.extend(ours::<false, false, _>(
            "round_robin",
            set,
            Spread::Turns,
            RoundRobin::new,
        ));
    }
    all
}

fn chance(set: Set) -> Vec<Contestant> {
    let mut all = if set.weighted {
        yardsticks::<Alias>("alias", set, Spread::Chance)
    } else {
        yardsticks::<Chance>("random", set, Spread::Chance)
    };
    all.extend([
        part(
            "pingora/raw-random",
            pingora::Raw::<PingoraRandom>::new(set),
            Spread::Chance,
        ),
        peer(
            "pingora/lb-random",
            pingora::Balanced::<PingoraRandom>::new(set),
            Spread::Chance,
        ),
        peer(
            "volo/weighted-random",
            volo::Random::new(set),
            Spread::Chance,
        ),
    ]);
    if set.weighted {
        // An index drawn and nothing touched: a yardstick for the draw, not a peer.
        all.push(plain(
            "weighted_rand/alias",
            alias::Walker::new(set),
            Spread::Free,
        ));
        all.extend(ours::<false, false, _>(
            "weighted_random",
            set,
            Spread::Chance,
            WeightedRandom::new,
        ));
    } else {
        all.extend(ours::<false, false, _>(
            "random",
            set,
            Spread::Chance,
            Random::new,
        ));
    }
    all
}

fn two_choices(set: Set) -> Vec<Contestant> {
    let mut all = yardsticks::<TwoChoices>("p2c", set, Spread::Chance);
    let (exclusive, locked) = (
        tower::Exclusive::<tower::Pending>::new(set),
        tower::Locked::<tower::Pending>::new(set),
    );
    all.extend([
        Contestant::exclusive("tower/p2c-pending", Kind::Peer, Spread::Chance, exclusive),
        plain("tower/p2c-pending+mutex", locked, Spread::Chance),
    ]);
    all.extend(ours::<false, false, _>(
        "least_request",
        set,
        Spread::Chance,
        LeastRequest::new,
    ));
    all
}

fn peak_ewma(set: Set) -> Vec<Contestant> {
    let (exclusive, locked) = (
        tower::Exclusive::<tower::Ewma>::new(set),
        tower::Locked::<tower::Ewma>::new(set),
    );
    let mut all = vec![
        Contestant::exclusive("tower/p2c-peak-ewma", Kind::Peer, Spread::Free, exclusive),
        plain("tower/p2c-peak-ewma+mutex", locked, Spread::Free),
    ];
    all.extend(ours::<false, true, _>(
        "peak_ewma",
        set,
        Spread::Free,
        PeakEwma::new,
    ));
    all
}

fn scan(set: Set) -> Vec<Contestant> {
    let mut all = yardsticks::<Least>("least", set, Spread::Chance);
    all.extend(ours::<false, false, _>(
        "least_connections",
        set,
        Spread::Chance,
        LeastConnections::new,
    ));
    all
}

fn ring(set: Set) -> Vec<Contestant> {
    let mut all = yardsticks::<Ring>("ring", set, Spread::Keys);
    all.extend([
        part("pingora-ketama", pingora::Ketama::new(set), Spread::Keys),
        part(
            "pingora/raw-ketama",
            pingora::Raw::<Consistent>::new(set),
            Spread::Keys,
        ),
        peer(
            "pingora/lb-ketama",
            pingora::Balanced::<Consistent>::new(set),
            Spread::Keys,
        ),
        peer("volo/consistent-hash", volo::Hashed::new(set), Spread::Keys),
    ]);
    if !set.weighted {
        all.extend([
            part("hashring", rings::Points::new(set), Spread::Keys),
            part("consistent_hash_ring", rings::Ring::new(set), Spread::Keys),
        ]);
    }
    all.extend(ours::<true, false, _>(
        "ring_hash",
        set,
        Spread::Keys,
        RingHash::new,
    ));
    all
}

fn table(set: Set) -> Vec<Contestant> {
    let mut all = yardsticks::<Table>("table", set, Spread::Keys);
    // It holds a permutation of the table for each endpoint while it builds: 0.5 GB for 1,000.
    if !set.weighted && set.size <= 1000 {
        all.push(part("maglev", rings::Table::new(set), Spread::Keys));
    }
    all.push(plain(
        "pingora-ketama",
        pingora::Ketama::new(set),
        Spread::Keys,
    ));
    all.extend(ours::<true, false, _>(
        "maglev",
        set,
        Spread::Keys,
        Maglev::new,
    ));
    all
}

fn others(set: Set) -> Vec<Contestant> {
    let mut all = ours::<false, false, _>("least_load", set, Spread::Free, LeastLoad::new);
    all.extend(ours::<false, true, _>(
        "weighted_response_time",
        set,
        Spread::Free,
        WeightedResponseTime::new,
    ));
    all.extend(ours::<true, false, _>(
        "rendezvous",
        set,
        Spread::Keys,
        Rendezvous::new,
    ));
    all.extend(ours::<true, false, _>(
        "bounded_load_hash",
        set,
        Spread::Free,
        BoundedLoadHash::new,
    ));
    all.extend(ours::<true, false, _>(
        "bounded_load_hash_over_ring",
        set,
        Spread::Free,
        || BoundedLoadHash::over(RingHash::new()),
    ));
    all.extend(ours::<true, false, _>(
        "bounded_load_hash_over_rendezvous",
        set,
        Spread::Free,
        || BoundedLoadHash::over(Rendezvous::new()),
    ));
    all
}

fn plain(name: &str, subject: impl Subject, spread: Spread) -> Contestant {
    Contestant::new(name, Kind::Plain, spread, subject)
}

fn part(name: &str, subject: impl Subject, spread: Spread) -> Contestant {
    Contestant::new(name, Kind::Part, spread, subject)
}

fn peer(name: &str, subject: impl Subject, spread: Spread) -> Contestant {
    Contestant::new(name, Kind::Peer, spread, subject)
}

/// The same arithmetic on a bare slice and behind a snapshot, without a guard and with one.
fn yardsticks<C: Choose>(name: &str, set: Set, spread: Spread) -> Vec<Contestant> {
    let named = |prefix: &str, suffix: &str| format!("{prefix}-{name}{suffix}");
    vec![
        Contestant::new(
            named("ptr", ""),
            Kind::Plain,
            spread,
            Array::<C, false>::new(set),
        ),
        Contestant::new(
            named("ptr", "+guard"),
            Kind::PlainLocal,
            spread,
            Array::<C, true>::new(set),
        ),
        Contestant::new(
            named("arcswap", ""),
            Kind::Plain,
            spread,
            Swap::<C, false>::new(set),
        ),
        Contestant::new(
            named("arcswap", "+guard"),
            Kind::PlainShared,
            spread,
            Swap::<C, true>::new(set),
        ),
        Contestant::new(
            named("arcswap", "-owned+guard"),
            Kind::Plain,
            spread,
            Owned::<C>::new(set),
        ),
    ]
}

fn ours<const KEYED: bool, const TIMED: bool, B: Balancer>(
    name: &str,
    set: Set,
    spread: Spread,
    balancer: fn() -> B,
) -> Vec<Contestant> {
    let named = |how: &str| format!("plimsoll/{name} {how}");
    vec![
        Contestant::new(
            named("local"),
            Kind::Local,
            spread,
            Local::<KEYED, TIMED>(client(set, balancer())),
        ),
        Contestant::new(
            named("shared"),
            Kind::Shared,
            spread,
            Shared::<KEYED, TIMED>(client(set, balancer())),
        ),
        Contestant::new(
            named("picker"),
            Kind::Bare,
            spread,
            Bare::<KEYED>::new(set, balancer()),
        ),
    ]
}
