//! pingora-load-balancing and pingora-ketama.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_ketama::{Bucket, Continuum};
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};
use pingora_load_balancing::{Backend, Backends, LoadBalancer};

use crate::runtime::block_on;
use crate::set::{Key, Set, address, number_at};
use crate::subject::Subject;

pub fn backends(set: Set) -> BTreeSet<Backend> {
    let backend = |number| {
        let weight = set.weight(number) as usize;
        Backend::new_with_weight(&address(number).to_string(), weight).unwrap()
    };
    set.numbers().map(backend).collect()
}

fn number(backend: &Backend) -> u64 {
    number_at(backend.as_inet().unwrap())
}

/// A selection alone: neither health nor change.
pub struct Raw<S>(Arc<S>);

impl<S: BackendSelection> Raw<S> {
    pub fn new(set: Set) -> Self {
        Self(Arc::new(S::build(&backends(set))))
    }
}

impl<S: BackendSelection<Iter: BackendIter> + Send + Sync + 'static> Subject for Raw<S> {
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    #[inline]
    fn pick(this: &mut &Self, key: &Key) -> u64 {
        number(this.0.iter(key).next().unwrap())
    }
}

/// Says which backends there are now.
#[derive(Clone)]
pub struct Known(pub Arc<ArcSwap<BTreeSet<Backend>>>);

#[async_trait]
impl ServiceDiscovery for Known {
    async fn discover(&self) -> pingora_error::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        Ok((BTreeSet::clone(&self.0.load()), HashMap::new()))
    }
}

/// What a proxy calls: membership, health and selection.
pub struct Balanced<S: BackendSelection>(LoadBalancer<S>);

/// What the crate's own examples give; it matters only when backends are unhealthy.
const MAX_ITERATIONS: usize = 256;

impl<S: BackendSelection<Iter: BackendIter> + Send + Sync + 'static> Balanced<S> {
    pub fn new(set: Set) -> Self {
        Self::following(&Known(Arc::new(ArcSwap::from_pointee(backends(set)))))
    }

    pub fn following(known: &Known) -> Self {
        let balancer = LoadBalancer::from_backends(Backends::new(Box::new(known.clone())));
        let this = Self(balancer);
        this.update();
        this
    }

    pub fn update(&self) {
        block_on(self.0.update()).unwrap();
    }
}

impl<S> Subject for Balanced<S>
where
    S: BackendSelection<Iter: BackendIter> + Send + Sync + 'static,
    S::Config: 'static,
{
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    #[inline]
    fn pick(this: &mut &Self, key: &Key) -> u64 {
        number(&this.0.select(key, MAX_ITERATIONS).unwrap())
    }
}

/// The ring alone.
pub struct Ketama(Continuum);

impl Ketama {
    pub fn new(set: Set) -> Self {
        let bucket = |number| Bucket::new(address(number), set.weight(number));
        let buckets: Vec<_> = set.numbers().map(bucket).collect();
        Self(Continuum::new(&buckets))
    }
}

impl Subject for Ketama {
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    #[inline]
    fn pick(this: &mut &Self, key: &Key) -> u64 {
        number_at(&this.0.node(key).unwrap())
    }
}
