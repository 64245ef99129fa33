//! Hashing by a table.

use std::sync::Arc;

use plimsoll_discovery_api::{
    Balancer, Endpoint, Endpoints, Error, Exclusion, PickContext, Picker, Result,
};

use crate::eligible::weighed;
use crate::hash;
use crate::keyed::{KeyedBalancer, KeyedPicker, MAX_TRIES};
use crate::left::by_key;

mod table;
mod turns;

use table::Table;

/// Sends equal keys to one endpoint, by a table that all clients lay out alike
/// ([Eisenbud et al. 2016, Maglev, section 3.4](https://www.usenix.org/conference/nsdi16/technical-sessions/presentation/eisenbud)).
///
/// Each endpoint claims slots of the table in an order of its own, in turns by weight, so slots
/// are shared out to within one: keys spread more evenly than on any ring. When an endpoint
/// leaves, its keys move, and of the others about as many again. A request without a key goes
/// anywhere, by weight.
///
/// Endpoints are known by their ids: an instance that moves to another address keeps its keys.
/// The choice depends on ids, weights and table size alone, so clients that see the same members
/// agree.
///
/// *Pick*: O(1), one hash and one look-up; writes nothing shared. *Rebuild*: O(size log size) on
/// average: for the default size and 1,000 endpoints about 1 ms with up to some dozens of different
/// weights, and 2 ms where no two are equal; 4 bytes for each slot.
///
/// *Use it* for caches and other per-key state, with many keys of which none dominates. *Not* when
/// one key may carry more than an endpoint can: see [`BoundedLoadHash`](crate::BoundedLoadHash).
/// Where the fewest possible keys may move, see [`Rendezvous`](crate::Rendezvous).
#[derive(Clone, Debug)]
pub struct Maglev {
    size: usize,
}

/// The paper's small table: shares are exact to 1 % up to about 650 endpoints.
const DEFAULT_SIZE: usize = 65_537;

/// 20 MB; a rebuild takes most of a second.
const MAX_SIZE: usize = 5_000_011;

impl Maglev {
    /// With a table of 65,537 slots.
    #[must_use]
    pub const fn new() -> Self {
        Self { size: DEFAULT_SIZE }
    }

    /// With a table of this many slots: a prime from 2 to 5,000,011. Default: 65,537.
    ///
    /// It should be at least 100 times the number of endpoints, for shares to be exact to 1 %.
    ///
    /// # Errors
    /// [`InvalidArgument`](plimsoll_discovery_api::ErrorKind::InvalidArgument) outside the range
    /// or if it is not prime.
    pub fn with_table_size(mut self, size: usize) -> Result<Self> {
        self.size = table_size(size)?;
        Ok(self)
    }
}

/// Validates the size of a table.
fn table_size(size: usize) -> Result<usize> {
    if !(2..=MAX_SIZE).contains(&size) {
        return Err(Error::invalid(
            "table_size",
            size,
            "is not between 2 and 5000011",
        ));
    }
    let divisible = |divisor: usize| size.is_multiple_of(divisor);
    if (2..)
        .take_while(|divisor| divisor * divisor <= size)
        .any(divisible)
    {
        return Err(Error::invalid("table_size", size, "is not prime"));
    }
    Ok(size)
}

impl Default for Maglev {
    fn default() -> Self {
        Self::new()
    }
}

impl Balancer for Maglev {
    fn name(&self) -> &'static str {
        "maglev"
    }

    fn reads_load(&self) -> bool {
        false
    }

    /// # Errors
    /// Also if there are more endpoints than slots.
    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        Ok(Box::new(self.build_keyed(endpoints)?))
    }
}

impl KeyedBalancer for Maglev {
    type Picker = MaglevPicker;

    fn build_keyed(&mut self, endpoints: &Endpoints) -> Result<MaglevPicker> {
        let (endpoints, weights) = weighed(endpoints)?;
        let table = Table::new(&endpoints, &weights, self.size)?;
        Ok(MaglevPicker { endpoints, table })
    }
}

/// What [`Maglev`] builds.
#[derive(Debug)]
pub struct MaglevPicker {
    endpoints: Endpoints,
    table: Table,
}

impl Picker for MaglevPicker {
    #[inline]
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let key = hash::key(context);
        let index = match context.exclusion() {
            None => self.find(key, |_| true),
            Some(exclusion) => self.other(key, exclusion),
        };
        self.endpoints.get(index?)
    }
}

impl MaglevPicker {
    /// The next for `key` that is left. Apart, so that picks without exclusion stay small.
    #[cold]
    #[inline(never)]
    fn other(&self, key: u64, exclusion: &Exclusion<'_>) -> Option<usize> {
        let is_left = |index: usize| !exclusion.excludes(&self.endpoints[index]);
        self.find(key, is_left)
            .or_else(|| by_key(&self.endpoints, key, is_left))
    }
}

impl KeyedPicker for MaglevPicker {
    fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The table in jumps that look random, rather than its next slot: what one endpoint refuses
    /// then falls on all others alike.
    #[inline]
    fn find(&self, key: u64, mut accept: impl FnMut(usize) -> bool) -> Option<usize> {
        if self.endpoints.len() < 2 {
            return (0..self.endpoints.len()).find(|&only| accept(only));
        }
        let mut place = hash::mix(key);
        for jump in 1..=MAX_TRIES {
            let index = self.table.get(place);
            if accept(index) {
                return Some(index);
            }
            place = hash::mix(place.wrapping_add(jump));
        }
        None
    }
}

#[cfg(test)]
mod tests;
