//! Telling one history of a registry from the next.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use plimsoll_discovery_api::{Error, ErrorKind, Result, Revision, ServiceName};

/// The indexes of each watched service. Consul names no history, but its index only grows within
/// one: an index that goes back means that the data was lost, restored, or is another cluster's,
/// and that nothing seen before can be compared with it.
#[derive(Debug)]
pub(crate) struct Histories {
    /// So many older answers in a row are a lagging server; one more is another history.
    tolerated: u32,
    known: Mutex<HashMap<ServiceName, Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    epoch: u64,
    index: u64,
    older: u32,
}

impl Known {
    const fn of(epoch: u64) -> Self {
        Self {
            epoch,
            index: 0,
            older: 0,
        }
    }
}

/// None that was known came before it.
impl Default for Known {
    fn default() -> Self {
        Self::of(1)
    }
}

impl Histories {
    pub(crate) fn new(tolerated: u32) -> Self {
        Self {
            tolerated,
            known: Mutex::default(),
        }
    }

    /// Where an answer with `index` stands, when everything is read anew.
    ///
    /// # Errors
    /// `Unavailable` if it comes from a server that lags behind.
    pub(crate) fn place(&self, service: &ServiceName, index: u64) -> Result<Revision> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(service.clone()).or_default();
        if index >= known.index {
            known.older = 0;
        } else if known.older < self.tolerated {
            known.older += 1;
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the server lags behind what was seen",
            )
            .with_context("index", index.to_string())
            .with_context("seen", known.index.to_string()));
        } else {
            *known = Known::of(known.epoch + 1);
        }
        known.index = index;
        Ok(Revision::new(known.epoch, index))
    }

    /// Where the next answer of a stream stands; `None` if it goes back.
    pub(crate) fn advance(
        &self,
        service: &ServiceName,
        from: Revision,
        index: u64,
    ) -> Option<Revision> {
        if index < from.counter() {
            return None;
        }
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(service.clone()).or_default();
        known.index = known.index.max(index);
        Some(Revision::new(from.epoch(), index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceName {
        "orders".parse().unwrap()
    }

    #[test]
    fn an_index_that_goes_back_begins_another_history() {
        let histories = Histories::new(0);
        let first = histories.place(&service(), 90).unwrap();
        let second = histories.advance(&service(), first, 120).unwrap();
        assert_eq!((second.epoch(), second.counter()), (first.epoch(), 120));
        assert_eq!(histories.advance(&service(), second, 119), None);
        let third = histories.place(&service(), 100).unwrap();
        assert_ne!(third.epoch(), second.epoch());
        assert_eq!(histories.place(&service(), 100).unwrap(), third);
        let other = "other".parse().unwrap();
        assert_eq!(histories.place(&other, 1).unwrap().epoch(), first.epoch());
    }

    #[test]
    fn a_lagging_server_is_asked_again_before_it_is_believed() {
        let histories = Histories::new(2);
        let first = histories.place(&service(), 90).unwrap();
        for _ in 0..2 {
            let lagging = histories.place(&service(), 80).unwrap_err();
            assert_eq!(lagging.kind(), ErrorKind::Unavailable);
        }
        assert_ne!(
            histories.place(&service(), 80).unwrap().epoch(),
            first.epoch()
        );
    }
}
