//! Crates that look a key up and do nothing else.

use consistent_hash_ring::RingBuilder;
use hashring::HashRing;
use maglev::{ConsistentHasher, Maglev};

use crate::set::{Key, Set};
use crate::subject::Subject;

/// `hashring` with 160 points for each endpoint, made as its document says.
pub struct Points(pub HashRing<Point>);

#[derive(Clone, Copy, Hash)]
pub struct Point {
    number: u64,
    replica: u32,
}

impl Points {
    pub fn new(set: Set) -> Self {
        let mut ring = HashRing::new();
        ring.batch_add(set.numbers().flat_map(Self::of).collect());
        Self(ring)
    }

    pub fn of(number: u64) -> impl Iterator<Item = Point> {
        (0..160).map(move |replica| Point { number, replica })
    }
}

impl Subject for Points {
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    #[inline]
    fn pick(this: &mut &Self, key: &Key) -> u64 {
        this.0.get(key).unwrap().number
    }
}

/// `consistent_hash_ring` with its default of 10 points for each endpoint: inserting takes time
/// quadratic in the points.
pub struct Ring(pub consistent_hash_ring::Ring<u64>);

impl Ring {
    pub fn new(set: Set) -> Self {
        Self(RingBuilder::default().nodes_iter(set.numbers()).build())
    }
}

impl Subject for Ring {
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    #[inline]
    fn pick(this: &mut &Self, key: &Key) -> u64 {
        *this.0.get(key)
    }
}

/// `maglev` with a table as large as ours.
pub struct Table(Maglev<u64>);

impl Table {
    pub fn new(set: Set) -> Self {
        Self(Maglev::with_capacity(set.numbers(), 65_537))
    }
}

impl Subject for Table {
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    #[inline]
    fn pick(this: &mut &Self, key: &Key) -> u64 {
        *this.0.get(key).unwrap()
    }
}
