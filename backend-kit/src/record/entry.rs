//! What a registry holds of an instance, as it is read.

use std::time::SystemTime;

use plimsoll_discovery_api::{Error, Incarnation, Instance};

use crate::log::one_line;

/// One entry of the registry, understood.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// What the instance says of itself.
    pub instance: Instance,
    /// The life it was written for.
    pub incarnation: Incarnation,
    /// When that life began, where the entry says so.
    pub registered_at: Option<SystemTime>,
    /// The load beside it, where one is published.
    pub load: Option<u64>,
    /// What it says beyond the limits of [`Metadata`](plimsoll_discovery_api::Metadata).
    pub left_out: LeftOut,
}

impl Entry {
    /// An entry without registration time or load.
    #[must_use]
    pub fn new(instance: Instance, incarnation: Incarnation) -> Self {
        Self {
            instance,
            incarnation,
            registered_at: None,
            load: None,
            left_out: LeftOut::default(),
        }
    }
}

/// What was left out of the metadata of an entry, as it is beyond the limits. Shows the first keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    count: usize,
    keys: Vec<String>,
}

impl LeftOut {
    /// So many keys are kept, and of each so many characters: a stranger wrote them.
    const KEPT: usize = 5;
    const KEPT_CHARS: usize = 60;

    /// Counts a pair.
    pub fn note(&mut self, key: &str) {
        self.count += 1;
        if self.keys.len() < Self::KEPT {
            let shown: String = key.chars().take(Self::KEPT_CHARS).collect();
            self.keys.push(one_line(&shown).into_owned());
        }
    }

    /// How many pairs.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The first keys, as far as they are shown.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }
}

/// An entry that could not be understood.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// Its key below the service: the instance id, as far as it can be read.
    pub key: String,
    /// What is wrong with it.
    pub cause: Error,
}

impl Skipped {
    /// The entry under `key`, which failed with `cause`.
    #[must_use]
    pub fn new(key: impl Into<String>, cause: Error) -> Self {
        Self {
            key: key.into(),
            cause,
        }
    }
}
