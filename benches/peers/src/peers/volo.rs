//! volo's balancers.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use faststr::FastStr;
use metainfo::{METAINFO, MetaInfo};
use volo::context::Endpoint;
use volo::discovery::{Change, Discover, Instance, StaticDiscover};
use volo::loadbalance::consistent_hash::{ConsistentHashBalance, ConsistentHashOption};
use volo::loadbalance::random::WeightedRandomBalance;
use volo::loadbalance::{LoadBalance, RequestHash};
use volo::net::Address;

use crate::set::{Key, Set, address, hash, number_at};
use crate::subject::Subject;

pub fn instances(set: Set) -> Vec<Arc<Instance>> {
    let instance = |number| {
        let (address, weight) = (Address::Ip(address(number)), set.weight(number));
        Arc::new(Instance {
            address,
            weight,
            tags: Default::default(),
        })
    };
    set.numbers().map(instance).collect()
}

/// A balancer, the set it discovers and the callee it picks for.
pub struct Balanced<B> {
    balance: B,
    discover: StaticDiscover,
    callee: Endpoint,
}

impl<B: LoadBalance<StaticDiscover>> Balanced<B> {
    fn with(balance: B, set: Set) -> Self {
        let callee = Endpoint::new(FastStr::from_static_str("s"));
        Self {
            balance,
            discover: StaticDiscover::new(instances(set)),
            callee,
        }
    }

    #[inline]
    fn pick(&self) -> u64 {
        let picker = pin!(self.balance.get_picker(&self.callee, &self.discover));
        let Poll::Ready(picker) = picker.poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("discovers at once");
        };
        let address = picker
            .unwrap_or_else(|_| panic!("a picker"))
            .next()
            .unwrap();
        number_at(address.ip_addr().unwrap())
    }

    pub fn rebalance(&self, all: Vec<Arc<Instance>>) {
        let key = self.discover.key(&self.callee);
        let (added, updated, removed) = (Vec::new(), Vec::new(), Vec::new());
        self.balance.rebalance(Change {
            key,
            all,
            added,
            updated,
            removed,
        });
    }
}

pub type Random = Balanced<WeightedRandomBalance<()>>;

impl Random {
    pub fn new(set: Set) -> Self {
        let this = Self::with(WeightedRandomBalance::new(), set);
        this.pick();
        this
    }
}

impl Subject for Random {
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    #[inline]
    fn pick(this: &mut &Self, _: &Key) -> u64 {
        Balanced::pick(this)
    }
}

pub type Hashed = Balanced<ConsistentHashBalance<()>>;

impl Hashed {
    pub fn new(set: Set) -> Self {
        let this = Self::with(
            ConsistentHashBalance::new(ConsistentHashOption::default()),
            set,
        );
        this.around(&mut || {
            <Self as Subject>::pick(&mut &this, &Key::default());
        });
        this
    }
}

impl Subject for Hashed {
    type Handle<'a> = &'a Self;

    fn handle(&self) -> &Self {
        self
    }

    /// The hash of each request is put where volo looks for it; one request's information serves
    /// all, which spares the peer making it.
    fn around(&self, picks: &mut dyn FnMut()) {
        METAINFO.sync_scope(RefCell::new(MetaInfo::new()), picks);
    }

    #[inline]
    fn pick(this: &mut &Self, key: &Key) -> u64 {
        METAINFO.with(|info| info.borrow_mut().insert(RequestHash(hash(key))));
        Balanced::pick(this)
    }
}
