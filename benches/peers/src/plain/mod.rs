//! The plain baselines: the arithmetic alone, on a bare slice or behind a shared snapshot.

mod choose;
mod hold;

pub use choose::{Alias, Chance, Choose, Least, OwnTurn, Ring, SharedTurn, Table, TwoChoices};
pub use hold::{Array, Cached, Owned, Swap};

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::set::{Key, Set};
use crate::subject::Subject;

/// What is chosen.
#[derive(Debug)]
#[repr(align(128))]
pub struct Node {
    in_flight: AtomicU32,
    number: u64,
}

impl Node {
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

pub type Nodes = Box<[Arc<Node>]>;

pub fn nodes(set: Set) -> Nodes {
    let node = |number| {
        Arc::new(Node {
            in_flight: AtomicU32::new(0),
            number,
        })
    };
    set.numbers().map(node).collect()
}

/// Touches `node`, counted in flight meanwhile if `GUARDED`.
#[inline]
fn touch<const GUARDED: bool>(node: &Node) -> u64 {
    if GUARDED {
        node.in_flight.fetch_add(1, Ordering::Relaxed);
    }
    let number = std::hint::black_box(node.number);
    if GUARDED {
        node.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
    number
}

/// The harness itself.
pub struct Noop;

impl Subject for Noop {
    type Handle<'a> = ();

    fn handle(&self) {}

    #[inline]
    fn pick((): &mut (), key: &Key) -> u64 {
        u64::from(key[0])
    }
}
