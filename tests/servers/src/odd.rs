//! What strangers may have written: a corpus, and mutations of it.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// So many mutations are tried.
const CASES: u32 = 1_000;

/// What a stranger's program gets wrong.
const ODD: [&[u8]; 16] = [
    b"-1",
    b"5000000000",
    b"18446744073709551616",
    b"1e999",
    b"1.5",
    b"null",
    b"true",
    b"\"\"",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"\n",
    b"%zz",
];

#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Cut(Index, usize),
    Insert(Index, &'static [u8]),
    /// What stands from the one place to the other, again.
    Repeat(Index, Index),
    /// The rest of another member of the corpus.
    Splice(Index, Index, Index),
}

/// Checks every member of the corpus of `target` in `fuzz/corpus`, and mutations of them, always the
/// same ones. The check panics where something does not hold.
pub fn holds_of_all(target: &str, check: impl Fn(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|member| check(member));
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let place = any::<Index>;
    let change = prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (place(), 1..40_usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (place(), select(&ODD[..])).prop_map(|(at, odd)| Change::Insert(at, odd)),
        (place(), place()).prop_map(|(from, to)| Change::Repeat(from, to)),
        (place(), place(), place()).prop_map(|(of, from, at)| Change::Splice(of, from, at)),
    ];
    let mutated = (place(), vec(change, 1..6));
    let held = runner.run(&mutated, |(member, changes)| {
        let mut bytes = member.get(&corpus).clone();
        for change in changes {
            apply(&change, &mut bytes, &corpus);
        }
        check(&bytes);
        Ok(())
    });
    if let Err(failed) = held {
        panic!("{target}: {failed}");
    }
}

fn apply(change: &Change, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let length = bytes.len();
    let within = |place: &Index| place.index(length + 1);
    match change {
        Change::Set(at, byte) if length > 0 => bytes[at.index(length)] = *byte,
        Change::Set(_, byte) => bytes.push(*byte),
        Change::Cut(at, most) => {
            let at = within(at);
            bytes.drain(at..(at + most).min(length));
        }
        Change::Insert(at, odd) => {
            let at = within(at);
            bytes.splice(at..at, odd.iter().copied());
        }
        Change::Repeat(from, to) => {
            let (from, to) = (within(from), within(to));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.splice(from..from, part);
        }
        Change::Splice(of, from, at) => {
            let other = of.get(corpus);
            let from = from.index(other.len() + 1);
            bytes.truncate(within(at));
            bytes.extend(&other[from..]);
        }
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let folder = folder.join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() >= 3, "too few in {}", folder.display());
    let read = |path: &std::path::PathBuf| fs::read(path).expect("a member of the corpus");
    paths.iter().map(read).collect()
}
