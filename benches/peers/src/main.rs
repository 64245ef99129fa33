//! What one pick costs: plimsoll, its peers and plain baselines, in one process and one run.
//!
//! `cargo run --release` prints every table. Words after `--` restrict it to the groups that they
//! name (`turns`, `ring`, …, `rebuild`); `--repetitions 41` measures longer; `--pick NAME SIZE
//! COUNT` makes so many picks of one subject and nothing else, for a profiler.
#![forbid(unsafe_code)]

mod check;
mod groups;
mod measure;
mod ours;
mod peers;
mod plain;
mod rebuild;
mod report;
mod run;
mod runtime;
mod set;
mod subject;

use groups::GROUPS;
use set::{Set, keys};

const REPETITIONS: usize = 21;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--pick") {
        return pick(&arguments[at + 1..]);
    }
    let mut repetitions = REPETITIONS;
    if let Some(at) = arguments
        .iter()
        .position(|argument| argument == "--repetitions")
    {
        repetitions = arguments[at + 1].parse().expect("a number of repetitions");
        arguments.drain(at..at + 2);
    }
    let wanted =
        |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let keys = keys();
    measure::stay_on(0);
    for group in GROUPS.iter().filter(|group| wanted(group.name)) {
        for weighted in [false, true] {
            if group.by_weight || !weighted {
                let results = run::run(group, weighted, repetitions, &keys);
                report::print_group(group, weighted, &results);
            }
        }
    }
    if wanted("rebuild") {
        rebuild::print_rebuilds(repetitions.min(9));
    }
}

/// Makes picks of one subject, so that a profiler sees nothing else.
fn pick(arguments: &[String]) {
    let [name, size, count] = arguments else {
        panic!("--pick NAME SIZE COUNT")
    };
    let (size, count) = (
        size.parse().expect("a size"),
        count.parse().expect("a count"),
    );
    let (keys, mut found) = (keys(), false);
    for group in &GROUPS {
        let subjects = (group.make)(Set {
            size,
            weighted: false,
        });
        for subject in subjects.iter().filter(|subject| subject.name == *name) {
            let elapsed = subject.probe.one(count, &keys);
            println!(
                "{name}: {:.1} ns per pick",
                elapsed.as_secs_f64() * 1e9 / count as f64
            );
            found = true;
        }
    }
    assert!(found, "no subject is named {name:?}");
}
