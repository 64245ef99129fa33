use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng, TestRunner};

use super::*;

impl Label {
    pub(in super::super) fn new(id: &str, authority: Option<&str>) -> Self {
        Self {
            id: InstanceId::new(id).unwrap(),
            authority: authority.map(str::to_owned),
        }
    }
}

fn labels(weights: &[u32]) -> Vec<(Label, u32)> {
    weights
        .iter()
        .enumerate()
        .map(|(i, &w)| (Label::new(&format!("10.0.1.{}:11211", i + 1), None), w))
        .collect()
}

fn count(layout: &Layout, owner: u32) -> usize {
    layout.points.iter().filter(|p| p.owner == owner).count()
}

#[test]
fn points_are_those_of_ketama() {
    // Laid out by an independent program, with another MD5, from the rule of libketama.
    let points = Layout::default().next(labels(&[1; 8])).points;
    let point = |place, owner| Point { place, owner };
    assert_eq!(points.len(), 1280);
    assert_eq!(
        points[..5],
        [
            point(762_113, 4),
            point(2_322_555, 4),
            point(3_967_256, 5),
            point(4_398_564, 3),
            point(4_826_654, 1),
        ]
    );
    assert_eq!(
        points[1278..],
        [point(4_290_842_419, 6), point(4_293_620_028, 4)]
    );
}

#[test]
fn points_are_numbered_by_weight() {
    let layout = Layout::default().next(labels(&[1, 2, 5]));
    assert_eq!([0, 1, 2].map(|owner| count(&layout, owner)), [60, 120, 300]);
    let skewed = Layout::default().next(labels(&[1, 1_000_000]));
    assert_eq!(count(&skewed, 0), 4);
}

/// By the rule alone: every digest of every label, sorted.
fn by_the_rule(labels: &[(Label, u32)]) -> Vec<Point> {
    let sum: u64 = labels.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut points = Vec::new();
    for ((label, weight), owner) in labels.iter().zip(0..) {
        let digests = 40 * labels.len() as u64 * u64::from(*weight) / sum;
        label.lay_out(0..digests.max(1), owner, &mut points);
    }
    points.sort();
    points
}

/// A set as weights by number: `None` is not there. All share three authorities, so points of
/// several fall on one place everywhere.
type Set = Vec<Option<(u32, u8)>>;

fn set() -> impl Strategy<Value = Set> {
    // Mostly the usual weight, so that most stay from one set to the next.
    let weight = prop_oneof![4 => Just(100_u32), 1 => 1..1000_u32, 1 => Just(1_000_000_u32)];
    let authority = prop_oneof![6 => Just(0_u8), 1 => 1..3_u8];
    proptest::collection::vec(
        prop_oneof![3 => (weight, authority).prop_map(Some), 1 => Just(None)],
        0..12,
    )
}

fn labels_of(set: &Set, by_authority: bool) -> Vec<(Label, u32)> {
    let label = |(number, member): (usize, &Option<(u32, u8)>)| {
        member.map(|(weight, moved)| {
            let authority = by_authority.then(|| format!("h{}:1", (number + moved as usize) % 3));
            let label = Label::new(&format!("{number:02}"), authority.as_deref());
            (label, weight)
        })
    };
    set.iter().enumerate().filter_map(label).collect()
}

#[test]
fn any_history_of_joins_leaves_weights_and_moves_gives_the_ring_laid_out_from_scratch() {
    let config = Config {
        cases: 256,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let history = (any::<bool>(), proptest::collection::vec(set(), 1..8));
    let outcome = TestRunner::new_with_rng(config, rng).run(&history, |(by_authority, sets)| {
        let mut layout = Layout::default();
        for set in &sets {
            let labels = labels_of(set, by_authority);
            let expected = by_the_rule(&labels);
            layout = layout.next(labels.clone());
            prop_assert_eq!(&*layout.points, &*expected);
            let kept = layout.members.iter().map(|member| &member.label);
            prop_assert!(kept.eq(labels.iter().map(|(label, _)| label)));
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn labels_out_of_order_still_give_the_ring_laid_out_from_scratch() {
    let mut turned = labels(&[1, 2, 5, 2, 3]);
    let mut layout = Layout::default();
    for _ in 0..5 {
        turned.rotate_left(2);
        turned.swap(0, 1);
        layout = layout.next(turned.clone());
        assert_eq!(*layout.points, *by_the_rule(&turned));
    }
}

#[test]
fn an_unchanged_set_shares_its_points() {
    let first = Layout::default().next(labels(&[1, 2, 5]));
    let second = first.next(labels(&[1, 2, 5]));
    assert!(Arc::ptr_eq(&first.points, &second.points));
}
