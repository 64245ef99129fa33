//! A balancer for each of several groups of endpoints, and the traffic split among them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use plimsoll_discovery_api::{Balancer, Endpoint, Endpoints, PickContext, Picker, Result};

use crate::repick::chance;

/// One balancer for each group: made when the group first gets traffic, and kept for as long as
/// the group exists.
pub(crate) struct Groups<K, F> {
    make: F,
    balancers: BTreeMap<K, Box<dyn Balancer>>,
}

impl<K: Ord, B: Balancer, F: FnMut() -> B> Groups<K, F> {
    pub(crate) const fn new(make: F) -> Self {
        let balancers = BTreeMap::new();
        Self { make, balancers }
    }

    pub(crate) fn build(&mut self, group: K, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        let balancer = self.balancers.entry(group);
        balancer
            .or_insert_with(|| Box::new((self.make)()))
            .build(endpoints)
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

/// Hands each pick to one of several pickers: at random in fixed shares, or by its key.
#[derive(Debug)]
pub(crate) struct Split {
    parts: Box<[Part]>,
    purpose: u64,
}

#[derive(Debug)]
struct Part {
    /// The sum of the shares up to and including this one.
    until: f64,
    picker: Box<dyn Picker>,
}

impl Split {
    /// In these shares, which add up to 1 and of which there is at least one. Keys are drawn for
    /// `purpose`, so that splits within splits are independent.
    pub(crate) fn new(
        shares: impl IntoIterator<Item = (f64, Box<dyn Picker>)>,
        purpose: u64,
    ) -> Self {
        let mut until = 0.0;
        let part = |(share, picker)| {
            until += share;
            Part { until, picker }
        };
        Self {
            parts: shares.into_iter().map(part).collect(),
            purpose,
        }
    }
}

impl Picker for Split {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let (last, others) = self.parts.split_last()?;
        if others.is_empty() {
            return last.picker.pick(context);
        }
        let drawn = chance(context, self.purpose);
        let part = others.iter().find(|part| drawn < part.until);
        part.unwrap_or(last).picker.pick(context)
    }
}
