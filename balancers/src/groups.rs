//! A balancer for each of several groups of endpoints, and the traffic split among them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use plimsoll_discovery_api::{
    Balancer, Capabilities, Endpoint, Endpoints, PickContext, Picker, Result,
};

use crate::repick::chance;
use crate::{hash, left};

/// One balancer for each group: made when the group first gets traffic, and kept for as long as
/// the group exists.
pub(crate) struct Groups<K, F> {
    make: F,
    balancers: BTreeMap<K, Box<dyn Balancer>>,
    capabilities: Option<Capabilities>,
}

impl<K: Ord, B: Balancer, F: FnMut() -> B> Groups<K, F> {
    pub(crate) const fn new(make: F) -> Self {
        Self {
            make,
            balancers: BTreeMap::new(),
            capabilities: None,
        }
    }

    /// Tells the balancers there are, and each that is made from now on.
    pub(crate) fn set_capabilities(&mut self, capabilities: &Capabilities) {
        self.capabilities = Some(*capabilities);
        let balancers = self.balancers.values_mut();
        balancers.for_each(|balancer| balancer.set_capabilities(capabilities));
    }

    pub(crate) fn build(&mut self, group: K, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let make = || {
            let mut balancer = (self.make)();
            if let Some(capabilities) = &self.capabilities {
                balancer.set_capabilities(capabilities);
            }
            Box::new(balancer) as _
        };
        let balancer = self.balancers.entry(group).or_insert_with(make);
        balancer.build(endpoints)
    }

    pub(crate) fn eject(&self) -> bool {
        self.balancers.values().any(|balancer| balancer.ejects())
    }

    /// Forgets the groups that do not exist any more.
    pub(crate) fn retain(&mut self, exists: impl Fn(&K) -> bool) {
        self.balancers.retain(|group, _| exists(group));
    }
}

impl<K: fmt::Debug, F> fmt::Debug for Groups<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.balancers).finish()
    }
}

/// Hands each pick to one of several pickers: at random in fixed shares, or by its key. Where a
/// pick excludes all that one of them has, another takes its place, in the same proportions; and
/// where it excludes all of all, the spare endpoints do, which have no share.
#[derive(Debug)]
pub(crate) struct Split {
    parts: Box<[Part]>,
    spare: Box<[Endpoints]>,
    purpose: u64,
}

#[derive(Debug)]
struct Part {
    share: f64,
    /// The sum of the shares up to and including this one.
    until: f64,
    picker: Box<dyn Picker>,
}

impl Split {
    /// In these shares, which add up to 1 and of which there is at least one; with the groups of
    /// spare endpoints in the order of preference. Keys are drawn for `purpose`, so that splits
    /// within splits are independent.
    pub(crate) fn new(
        shares: impl IntoIterator<Item = (f64, Box<dyn Picker>)>,
        spare: Vec<Endpoints>,
        purpose: u64,
    ) -> Self {
        let mut until = 0.0;
        let part = |(share, picker)| {
            until += share;
            Part {
                share,
                until,
                picker,
            }
        };
        Self {
            parts: shares.into_iter().map(part).collect(),
            spare: spare.into(),
            purpose,
        }
    }
}

impl Picker for Split {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let last = self.parts.len().checked_sub(1)?;
        let mut chosen = 0;
        if last > 0 {
            let drawn = chance(context, self.purpose);
            let part = self.parts[..last]
                .iter()
                .position(|part| drawn < part.until);
            chosen = part.unwrap_or(last);
        }
        let picked = self.parts[chosen].picker.pick(context);
        if picked.is_some() || context.exclusion().is_none() {
            return picked;
        }
        self.elsewhere(chosen, context)
    }
}

impl Split {
    /// From another part than `empty`, all of which is excluded. The order of the others is drawn
    /// by waiting times, so that each is next in proportion to its share; a key has its own order.
    #[cold]
    fn elsewhere(&self, empty: usize, context: &mut PickContext<'_>) -> Option<&Arc<Endpoint>> {
        let seed = hash::mix(hash::key(context) ^ self.purpose);
        let wait = |index: usize| {
            let hash = hash::mix(seed.wrapping_add(index as u64));
            (hash::wait(hash) / self.parts[index].share, index)
        };
        let mut last = (f64::NEG_INFINITY, 0);
        loop {
            let others = (0..self.parts.len()).filter(|&index| index != empty);
            let later = others.map(wait).filter(|wait| *wait > last);
            let Some(next) = later.min_by(|one, other| one.0.total_cmp(&other.0)) else {
                break;
            };
            let picked = self.parts[next.1].picker.pick(context);
            if picked.is_some() {
                return picked;
            }
            last = next;
        }
        let mut spare = self.spare.iter();
        spare.find_map(|spare| {
            let is_left = |index: usize| !context.excludes(&spare[index]);
            spare.get(left::by_key(spare, seed, is_left)?)
        })
    }
}
