//! A registry that holds one record and does what the script says, watching the actor for calls
//! that it must not make.

use std::collections::HashSet;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_discovery_api::{
    Capabilities, Error, ErrorKind, Incarnation, Instance, Result, ServiceName, Weight,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::{Admission, Driver, Interest, Listing, Record, Release, Subscription, Timings};

/// How long a call that "arrives late" takes to do so: longer than the caller waits.
const LATE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mode {
    Up,
    Refuse(ErrorKind),
    Hang,
}

#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) incarnation: Incarnation,
    pub(super) instance: Arc<Instance>,
    pub(super) load: u64,
    lease_end: Instant,
    /// The number of the call that last wrote the attributes, and the load: versions, so that a
    /// call that arrives late is refused.
    written_by: usize,
    load_written_by: usize,
}

#[derive(Debug)]
pub(super) struct World {
    record: Option<Standing>,
    pub(super) mode: Mode,
    pub(super) replies_to_lose: u32,
    /// So many calls are carried out only after their caller has stopped waiting.
    pub(super) calls_to_delay: u32,
    /// How long a call takes that nothing happens to.
    pub(super) wire: Duration,
    pub(super) timings: Timings,
    /// No record with this weight.
    pub(super) cannot_hold: Option<Weight>,
    /// No load is taken.
    pub(super) refuses_loads: Option<ErrorKind>,
    /// How long the dead hold an id.
    pub(super) id_release: Option<Duration>,
    /// Less than was asked for.
    pub(super) granted: Option<Duration>,
    own: HashSet<Incarnation>,
    current: Option<Incarnation>,
    released: HashSet<Incarnation>,
    lifecycle_calls: u32,
    /// Set once `deregister` has returned `Ok`: nothing may ever be visible again.
    pub(super) must_stay_gone: bool,
    pub(super) calls: Vec<(Instant, &'static str)>,
    pub(super) violations: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Script {
    world: Arc<Mutex<World>>,
    removals: Arc<watch::Sender<u64>>,
}

/// Counts a lifecycle call for as long as it is under way.
struct UnderWay(Script);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.world().lifecycle_calls -= 1;
    }
}

impl Script {
    pub(super) fn new() -> Self {
        let world = World {
            record: None,
            mode: Mode::Up,
            replies_to_lose: 0,
            calls_to_delay: 0,
            // Something, so that calls can overlap with orders.
            wire: Duration::from_millis(2),
            timings: Timings::default(),
            cannot_hold: None,
            id_release: None,
            refuses_loads: None,
            granted: None,
            own: HashSet::new(),
            current: None,
            released: HashSet::new(),
            lifecycle_calls: 0,
            must_stay_gone: false,
            calls: Vec::new(),
            violations: Vec::new(),
        };
        Self {
            world: Arc::new(Mutex::new(world)),
            removals: Arc::new(watch::Sender::new(0)),
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// One that nobody else is admitted by.
    pub(super) fn admission(&self) -> Admission {
        Admission::new(&self.world().timings)
    }

    /// The record that watchers would see now.
    pub(super) fn visible(&self) -> Option<Standing> {
        self.world().look()
    }

    /// The registry ends the lease; the owner is told if it can be reached.
    pub(super) fn expire(&self) {
        self.world().record = None;
        self.removals.send_modify(|n| *n += 1);
    }

    /// A foreign owner takes the id, if it is free. Returns whether it was.
    pub(super) fn foreign_takes(&self, instance: &Arc<Instance>) -> bool {
        let mut world = self.world();
        if world.look().is_some() {
            return false;
        }
        world.record = Some(Standing {
            incarnation: Incarnation::random(),
            instance: Arc::clone(instance),
            load: 0,
            lease_end: Instant::now() + Duration::from_secs(1_000_000),
            written_by: 0,
            load_written_by: 0,
        });
        true
    }

    /// The foreign owner leaves, if there is one.
    pub(super) fn foreign_leaves(&self) {
        let mut world = self.world();
        if world
            .record
            .as_ref()
            .is_some_and(|r| !world.own.contains(&r.incarnation))
        {
            world.record = None;
        }
    }

    pub(super) fn count(&self, call: &str) -> usize {
        self.world()
            .calls
            .iter()
            .filter(|(_, name)| *name == call)
            .count()
    }

    /// The most calls in any minute.
    pub(super) fn busiest_minute(&self) -> usize {
        let world = self.world();
        let starts = |from: Instant| {
            let end = from + Duration::from_secs(60);
            world
                .calls
                .iter()
                .filter(|(at, _)| *at >= from && *at < end)
                .count()
        };
        world
            .calls
            .iter()
            .map(|(at, _)| starts(*at))
            .max()
            .unwrap_or(0)
    }

    /// Notes a write in the name of `life`: the actor must know that an earlier one has ended.
    fn issued(&self, life: Incarnation, name: &str) {
        let mut world = self.world();
        if world.current != Some(life) {
            world
                .violations
                .push(format!("{name} for a former incarnation"));
        }
    }

    /// Passes a call through the faults of the hour to `apply`.
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        apply: impl FnOnce(&mut World, usize) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (mode, late, lost, number, wire) = {
            let mut world = self.world();
            world.calls.push((Instant::now(), name));
            let up = world.mode == Mode::Up;
            let take = |count: &mut u32| {
                let taken = up && *count > 0;
                *count -= u32::from(taken);
                taken
            };
            let late = take(&mut world.calls_to_delay);
            let lost = !late && take(&mut world.replies_to_lose);
            (world.mode, late, lost, world.calls.len(), world.wire)
        };
        match mode {
            Mode::Refuse(kind) => {
                sleep(wire).await;
                return Err(Error::new(kind, "scripted"));
            }
            Mode::Hang => pending().await,
            Mode::Up => {}
        }
        if late {
            let script = self.clone();
            tokio::spawn(async move {
                sleep(LATE).await;
                let _unheard = apply(&mut script.world(), number);
            });
            return pending().await;
        }
        sleep(wire).await;
        let result = apply(&mut self.world(), number);
        if lost { pending().await } else { result }
    }

    async fn lifecycle<T: Send + 'static>(
        &self,
        name: &'static str,
        apply: impl FnOnce(&mut World, usize) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        {
            let mut world = self.world();
            world.lifecycle_calls += 1;
            if world.lifecycle_calls > 1 {
                world
                    .violations
                    .push(format!("{name} while another lifecycle call is under way"));
            }
        }
        let _under_way = UnderWay(self.clone());
        self.call(name, apply).await
    }
}

impl World {
    /// Gives the last record its full lease again, as etcd does when it restarts.
    pub(super) fn revive(&mut self) {
        if let Some(record) = &mut self.record {
            record.lease_end = Instant::now() + lease();
        }
    }

    fn look(&mut self) -> Option<Standing> {
        if self
            .record
            .as_ref()
            .is_some_and(|record| record.lease_end <= Instant::now())
        {
            self.record = None;
        }
        if self.must_stay_gone
            && let Some(record) = &self.record
            && self.own.contains(&record.incarnation)
        {
            self.violations
                .push("visible after deregister had resolved".to_owned());
        }
        self.record.clone()
    }

    fn owned(&mut self, incarnation: Incarnation) -> Result<&mut Standing> {
        self.look();
        match &mut self.record {
            Some(record) if record.incarnation == incarnation => Ok(record),
            _ => Err(Error::new(ErrorKind::LeaseExpired, "scripted: gone")),
        }
    }
}

fn lease() -> Duration {
    Timings::default().lease.unwrap()
}

#[async_trait]
impl Driver for Script {
    type Claim = Incarnation;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new("script");
        capabilities.id_release = self.world().id_release;
        capabilities
    }

    fn timings(&self) -> Timings {
        self.world().timings
    }

    fn check(&self, record: &Record) -> Result<()> {
        let weight = record.instance.weight();
        if self.world().cannot_hold == Some(weight) {
            let why = "is more than the script can hold";
            return Err(Error::invalid("weight", weight.get(), why));
        }
        Ok(())
    }

    async fn claim(&self, record: &Record, former: &[Incarnation]) -> Result<Incarnation> {
        let Record {
            instance,
            incarnation,
            load,
            ..
        } = record.clone();
        let former = former.to_vec();
        {
            let mut world = self.world();
            if !former.iter().all(|life| world.own.contains(life)) {
                world
                    .violations
                    .push("claims a life that it never had".to_owned());
            }
            world.own.insert(incarnation);
            world.current = Some(incarnation);
        }
        self.lifecycle("claim", move |world, number| {
            if world.released.contains(&incarnation) {
                return Err(Error::new(ErrorKind::Unavailable, "scripted: fenced"));
            }
            if let Some(standing) = world.look()
                && standing.incarnation != incarnation
                && !former.contains(&standing.incarnation)
            {
                return Err(Error::new(ErrorKind::Conflict, "scripted: foreign owner"));
            }
            let mut standing = Standing {
                incarnation,
                instance,
                load,
                lease_end: Instant::now() + lease(),
                written_by: number,
                load_written_by: number,
            };
            if let Some(before) = world.look()
                && before.incarnation == incarnation
            {
                if before.written_by > number {
                    standing.instance = before.instance;
                    standing.written_by = before.written_by;
                }
                if before.load_written_by > number {
                    standing.load = before.load;
                    standing.load_written_by = before.load_written_by;
                }
            }
            world.record = Some(standing);
            world.look();
            Ok(incarnation)
        })
        .await
    }

    async fn renew(&self, claim: &Incarnation) -> Result<()> {
        let life = *claim;
        self.issued(life, "renew");
        self.lifecycle("renew", move |world, _| {
            world.owned(life)?.lease_end = Instant::now() + lease();
            Ok(())
        })
        .await
    }

    fn granted_lease(&self, _claim: &Incarnation) -> Option<Duration> {
        self.world().granted
    }

    async fn lost(&self, claim: &Incarnation) -> Error {
        let mut removals = self.removals.subscribe();
        loop {
            let gone = {
                let mut world = self.world();
                let stands = world
                    .look()
                    .is_some_and(|record| record.incarnation == *claim);
                !stands && world.mode == Mode::Up
            };
            if gone {
                return Error::new(ErrorKind::LeaseExpired, "scripted: removed");
            }
            let _unreachable_by_drop = removals.changed().await;
        }
    }

    async fn update(&self, claim: &Incarnation, record: &Record) -> Result<()> {
        let (life, instance) = (*claim, Arc::clone(&record.instance));
        self.issued(life, "update");
        self.lifecycle("update", move |world, number| {
            let record = world.owned(life)?;
            if record.written_by > number {
                return Err(Error::new(ErrorKind::Unexpected, "scripted: late"));
            }
            record.instance = instance;
            record.written_by = number;
            Ok(())
        })
        .await
    }

    async fn publish(&self, claim: &Incarnation, load: u64) -> Result<()> {
        let life = *claim;
        self.issued(life, "publish");
        let refused = self.world().refuses_loads;
        if let Some(kind) = refused {
            return Err(Error::new(kind, "scripted: no load"));
        }
        self.call("publish", move |world, number| {
            let record = world.owned(life)?;
            if record.load_written_by > number {
                return Err(Error::new(ErrorKind::Unexpected, "scripted: late"));
            }
            record.load = load;
            record.load_written_by = number;
            Ok(())
        })
        .await
    }

    async fn release(&self, release: &Release, _claim: Option<&Incarnation>) -> Result<()> {
        let lives = release.incarnations.clone();
        self.lifecycle("release", move |world, _| {
            world.released.extend(&lives);
            if world
                .look()
                .is_some_and(|record| lives.contains(&record.incarnation))
            {
                world.record = None;
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, _service: &ServiceName) -> Result<Listing> {
        Err(Error::new(ErrorKind::Unsupported, "scripted: no listing"))
    }

    async fn subscribe(&self, _: &ServiceName, _: Interest) -> Result<Subscription> {
        Err(Error::new(ErrorKind::Unsupported, "scripted: no listing"))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        Err(Error::new(ErrorKind::Unsupported, "scripted: no listing"))
    }
}
