//! Balancers whose every step is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use plimsoll::{Balancer, Endpoint, Endpoints, Error, ErrorKind, PickContext, Picker, Result};

/// Picks the first; counts how often it was built.
#[derive(Clone, Debug, Default)]
pub(crate) struct First {
    pub(crate) built: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Nth(Endpoints);

impl Picker for Nth {
    fn pick<'a>(&'a self, context: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        let key = usize::try_from(context.key().unwrap_or(0) % 1_000).unwrap_or(0);
        self.0.get(key % self.0.len().max(1))
    }
}

impl Balancer for First {
    fn name(&self) -> &'static str {
        "first"
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        self.built.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Nth(Arc::clone(endpoints))))
    }
}

/// Sends equal keys to one endpoint: the key modulo the number of endpoints.
#[derive(Debug, Default)]
pub(crate) struct ByKey(First);

impl Balancer for ByKey {
    fn name(&self) -> &'static str {
        "by_key"
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        self.0.build(endpoints)
    }
}

/// What [`Moody`] does when it is told to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    Good,
    Refuse,
    Panic,
    PickNone,
}

/// Does as it is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moody(Arc<AtomicU8>);

impl Moody {
    pub(crate) fn set(&self, mood: Mood) {
        self.0.store(mood as u8, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Never;

impl Picker for Never {
    fn pick<'a>(&'a self, _: &mut PickContext<'_>) -> Option<&'a Arc<Endpoint>> {
        None
    }
}

impl Balancer for Moody {
    fn name(&self) -> &'static str {
        "moody"
    }

    fn build(&mut self, endpoints: &Endpoints) -> Result<Box<dyn Picker>> {
        match self.0.load(Ordering::SeqCst) {
            0 => First::default().build(endpoints),
            1 => Err(Error::new(ErrorKind::InvalidArgument, "not in the mood")),
            2 => panic!("in a very bad mood"),
            _ => Ok(Box::new(Never)),
        }
    }
}
