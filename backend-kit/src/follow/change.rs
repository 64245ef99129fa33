//! What a driver tells of a service: everything, and then what changes.

use std::fmt;

use async_trait::async_trait;
use plimsoll_discovery_api::{Incarnation, InstanceId, Result, Revision};

use crate::{Entry, Skipped};

/// What those who watch a service want to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Interest {
    /// Who is there. Loads may be told or not, whichever is cheaper.
    Members,
    /// That, and how loaded they are.
    Loads,
}

/// All entries of a service at one revision.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listing {
    /// Where in the registry's history it was read.
    pub revision: Revision,
    /// What could be understood, in any order.
    pub entries: Vec<Entry>,
    /// What could not.
    pub skipped: Vec<Skipped>,
    /// The lives of which the registry still knows that they were deregistered, where it keeps
    /// such a memory: what is missing and named here has not been lost.
    pub departed: Vec<Incarnation>,
}

impl Listing {
    /// The entries at `revision`.
    #[must_use]
    pub fn new(revision: Revision, entries: Vec<Entry>, skipped: Vec<Skipped>) -> Self {
        Self {
            revision,
            entries,
            skipped,
            departed: Vec::new(),
        }
    }

    /// The same, with the lives that are known to have been deregistered.
    #[must_use]
    pub fn with_departed(mut self, departed: Vec<Incarnation>) -> Self {
        self.departed = departed;
        self
    }
}

/// A listing, and what changes from there on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Subscription {
    /// Where it starts.
    pub listing: Listing,
    /// What follows.
    pub updates: Box<dyn Updates>,
}

impl Subscription {
    /// `updates` to follow on `listing`.
    #[must_use]
    pub fn new(listing: Listing, updates: Box<dyn Updates>) -> Self {
        Self { listing, updates }
    }
}

/// A stream of changes. Dropping it ends what serves it.
#[async_trait]
pub trait Updates: fmt::Debug + Send + 'static {
    /// The next one; `None` or an error ends the subscription, and a new one is made. Cancel safe.
    ///
    /// # Errors
    /// Why the subscription ended.
    async fn next(&mut self) -> Option<Result<Update>>;
}

/// A change, and its place in the registry's history.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Update {
    /// The counter of the revision that the change follows, where the registry tells: if it is
    /// not the one last seen, something was lost on the way, and everything is read again.
    pub follows: Option<u64>,
    /// The revision with the change.
    pub revision: Revision,
    /// What changed.
    pub change: Change,
}

impl Update {
    /// `change` at `revision`, from a registry whose streams have no gaps.
    #[must_use]
    pub fn new(revision: Revision, change: Change) -> Self {
        Self {
            follows: None,
            revision,
            change,
        }
    }

    /// The same, following on the revision with this counter.
    #[must_use]
    pub fn following(mut self, counter: u64) -> Self {
        self.follows = Some(counter);
        self
    }
}

/// What changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Everything: a registry that answers with whole lists.
    Listed(Listing),
    /// An entry came or changed.
    Put(Entry),
    /// An entry went.
    Removed {
        /// Its key below the service: the instance id, or the key of a skipped entry.
        key: String,
        /// How.
        departure: Departure,
    },
    /// An entry came, or changed into one, that cannot be understood.
    Skipped(Skipped),
    /// An instance published its load.
    Load {
        /// The instance.
        id: InstanceId,
        /// The life that published it; a load of another life is dropped.
        incarnation: Incarnation,
        /// The load.
        load: u64,
    },
    /// Nothing, but the stream is alive.
    Progress,
}

/// How an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Departure {
    /// It was deregistered.
    Graceful,
    /// Its lease ended, or the registry does not say how it went.
    Unannounced,
}
