//! The tables, in Markdown.

use crate::groups::Group;
use crate::measure::{median, ratio};
use crate::run::{Results, Row, SIZES};
use crate::subject::Kind;

pub fn print_group(group: &Group, weighted: bool, results: &Results) {
    println!("\n### {}\n", title(group, weighted));
    let sizes = SIZES.map(|size| format!("{size}"));
    println!(
        "| ns per pick, n = | {} | allocations | 2 threads: × throughput at n = {} |",
        sizes.join(" | "),
        sizes.join(", ")
    );
    println!("|---|{}---:|---|", "---:|".repeat(SIZES.len()));
    for row in &results.rows {
        let nanos: Vec<_> = row
            .one
            .iter()
            .map(|times| number(median(times.iter().copied())))
            .collect();
        println!(
            "| {} | {} | {:.2} | {} |",
            row.name,
            nanos.join(" | "),
            row.allocations,
            throughput(row)
        );
    }
    verdict(group, results);
}

pub fn title(group: &Group, weighted: bool) -> String {
    let weights = match (group.by_weight, weighted) {
        (true, true) => ", weights 1 to 10",
        (true, false) => ", equal weights",
        (false, _) => "",
    };
    format!("{}{weights}", group.name)
}

fn throughput(row: &Row) -> String {
    if row.two.iter().all(Vec::is_empty) {
        return "one thread at a time".into();
    }
    let gain = |place: usize| number(ratio(&row.one[place], &row.two[place]));
    (0..SIZES.len()).map(gain).collect::<Vec<_>>().join(", ")
}

/// Those that follow changes of membership, as ours do; and all.
const PEERS: [(&str, &[Kind]); 2] = [
    ("whole peer", &[Kind::Peer]),
    ("peer or part", &[Kind::Peer, Kind::Part]),
];

/// What a ratio is called, how large it may be, and what it is at a size.
type Goal<'a> = (String, f64, Box<dyn Fn(usize) -> Option<f64> + 'a>);

fn verdict(group: &Group, results: &Results) {
    println!(
        "\n| goal | {} |",
        SIZES.map(|size| format!("n = {size}")).join(" | ")
    );
    println!("|---|{}", "---:|".repeat(SIZES.len()));
    let mut goals: Vec<Goal<'_>> = Vec::new();
    for (what, kinds) in PEERS {
        for (how, kind, bound) in [("local", Kind::Local, 0.5), ("shared", Kind::Shared, 1.0)] {
            let over_best = move |place: usize| {
                let (ours, peer) = (results.of(kind)?, results.fastest(kinds, place)?);
                Some(ratio(&ours.one[place], &peer.one[place]))
            };
            goals.push((
                format!("{how} ÷ fastest {what}"),
                bound,
                Box::new(over_best),
            ));
        }
    }
    let [local, shared] = group.over_plain;
    for (how, ours, plain, bound) in [
        ("local", Kind::Local, Kind::PlainLocal, local),
        ("shared", Kind::Shared, Kind::PlainShared, shared),
    ] {
        let over_plain = move |place: usize| {
            let (ours, plain) = (results.of(ours)?, results.of(plain)?);
            Some(ratio(&ours.one[place], &plain.one[place]))
        };
        let name = results.of(plain).map_or("", |row| &row.name);
        goals.push((format!("{how} ÷ {name}"), bound, Box::new(over_plain)));
    }
    for (goal, bound, at) in goals {
        let cells: Vec<_> = (0..SIZES.len()).map(at).collect();
        if cells.iter().any(Option::is_some) {
            let marked = |cell: &Option<f64>| match *cell {
                Some(ratio) if ratio > bound => format!("**{ratio:.2}**"),
                Some(ratio) => format!("{ratio:.2}"),
                None => "".into(),
            };
            println!(
                "| {goal} ≤ {bound} | {} |",
                cells.iter().map(marked).collect::<Vec<_>>().join(" | ")
            );
        }
    }
    for (what, kinds) in PEERS {
        let names: Vec<_> = (0..SIZES.len())
            .map(|place| results.fastest(kinds, place).map_or("", |row| &row.name))
            .collect();
        if !names[0].is_empty() {
            println!("| fastest {what} | {} |", names.join(" | "));
        }
    }
    let drift = results
        .drift
        .iter()
        .map(|(drift, spread)| format!("{drift:.2}, ±{:.0} %", spread * 50.0));
    println!(
        "| reference: last ÷ first, quartiles | {} |",
        drift.collect::<Vec<_>>().join(" | ")
    );
}

/// Three digits.
pub fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "".into(),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}
