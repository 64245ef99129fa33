//! The crate `weighted_rand`.

use weighted_rand::builder::{NewBuilder, WalkerTableBuilder};
use weighted_rand::table::WalkerTable;

use crate::set::{Key, Set};
use crate::subject::Subject;

/// Draws an index; there is nothing else in it to touch.
pub struct Walker(WalkerTable);

impl Walker {
    pub fn new(set: Set) -> Self {
        Self(WalkerTableBuilder::new(&set.weights()).build())
    }
}

impl Subject for Walker {
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    #[inline]
    fn pick(this: &mut &Self, _: &Key) -> u64 {
        this.0.next() as u64
    }
}
