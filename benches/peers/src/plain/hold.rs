//! What stands between the thread and the slice.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

use super::{Choose, Nodes, nodes, touch};
use crate::set::{Key, Set};
use crate::subject::Subject;

pub struct Snapshot<C> {
    nodes: Nodes,
    choose: C,
}

impl<C: Choose> Snapshot<C> {
    fn new(set: Set) -> Self {
        Self {
            nodes: nodes(set),
            choose: C::new(set),
        }
    }

    fn assert_idle(&self) {
        assert!(
            self.nodes.iter().all(|node| node.in_flight() == 0),
            "guards are still held"
        );
    }
}

/// Nothing: a bare slice that can never change.
pub struct Array<C, const GUARDED: bool>(Snapshot<C>);

impl<C: Choose, const GUARDED: bool> Array<C, GUARDED> {
    pub fn new(set: Set) -> Self {
        Self(Snapshot::new(set))
    }
}

impl<C: Choose, const GUARDED: bool> Subject for Array<C, GUARDED> {
    type Handle<'a> = (&'a Self, C::State);

    fn handle(&self) -> Self::Handle<'_> {
        (self, self.0.choose.state())
    }

    #[inline]
    fn pick((this, state): &mut Self::Handle<'_>, key: &Key) -> u64 {
        let Snapshot { nodes, choose } = &this.0;
        touch::<GUARDED>(&nodes[choose.choose(nodes, state, key)])
    }

    fn settled(&self, _: u64) {
        self.0.assert_idle();
    }
}

/// A snapshot behind a shared atomic pointer, loaded at each pick.
pub struct Swap<C, const GUARDED: bool>(ArcSwap<Snapshot<C>>);

impl<C: Choose, const GUARDED: bool> Swap<C, GUARDED> {
    pub fn new(set: Set) -> Self {
        Self(ArcSwap::from_pointee(Snapshot::new(set)))
    }
}

impl<C: Choose, const GUARDED: bool> Subject for Swap<C, GUARDED> {
    type Handle<'a> = (&'a Self, C::State);

    fn handle(&self) -> Self::Handle<'_> {
        (self, self.0.load().choose.state())
    }

    #[inline]
    fn pick((this, state): &mut Self::Handle<'_>, key: &Key) -> u64 {
        let snapshot = this.0.load();
        let Snapshot { nodes, choose } = &**snapshot;
        touch::<GUARDED>(&nodes[choose.choose(nodes, state, key)])
    }

    fn settled(&self, _: u64) {
        self.0.load().assert_idle();
    }
}

/// The same through a cache of one owner.
pub struct Cached<C>(ArcSwap<Snapshot<C>>);

impl<C: Choose> Cached<C> {
    pub fn new(set: Set) -> Self {
        Self(ArcSwap::from_pointee(Snapshot::new(set)))
    }
}

impl<C: Choose> Subject for Cached<C> {
    type Handle<'a> = (Cache<&'a ArcSwap<Snapshot<C>>, Arc<Snapshot<C>>>, C::State);

    fn handle(&self) -> Self::Handle<'_> {
        (Cache::new(&self.0), self.0.load().choose.state())
    }

    #[inline]
    fn pick((cache, state): &mut Self::Handle<'_>, key: &Key) -> u64 {
        let Snapshot { nodes, choose } = &**cache.load();
        touch::<true>(&nodes[choose.choose(nodes, state, key)])
    }

    fn settled(&self, _: u64) {
        self.0.load().assert_idle();
    }
}

/// Behind a shared atomic pointer, and the pick owns its endpoint, so that it can be kept.
pub struct Owned<C>(Swap<C, true>);

impl<C: Choose> Owned<C> {
    pub fn new(set: Set) -> Self {
        Self(Swap::new(set))
    }
}

impl<C: Choose> Subject for Owned<C> {
    type Handle<'a> = (&'a Self, C::State);

    fn handle(&self) -> Self::Handle<'_> {
        (self, self.0.0.load().choose.state())
    }

    #[inline]
    fn pick((this, state): &mut Self::Handle<'_>, key: &Key) -> u64 {
        let node = {
            let snapshot = this.0.0.load();
            let Snapshot { nodes, choose } = &**snapshot;
            Arc::clone(&nodes[choose.choose(nodes, state, key)])
        };
        touch::<true>(&node)
    }

    fn settled(&self, picks: u64) {
        self.0.settled(picks);
    }
}
