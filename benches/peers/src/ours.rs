//! plimsoll.

use std::sync::Arc;

use async_trait::async_trait;
use plimsoll::{
    Balancer, Capabilities, Client, Clock, Endpoints, Error, ErrorKind, Incarnation, Instance,
    LocalClient, Member, Outcome, Pick, PickContext, PickRequest, Picker, Registration, Registry,
    Result, Revision, Rng, ServiceName, Snapshot, SystemClock, Watch,
};
use tokio::sync::watch;

use crate::runtime::block_on;
use crate::set::{Key, Set};
use crate::subject::Subject;

/// A registry that says what it is told to.
#[derive(Clone, Debug)]
pub struct Told(Arc<watch::Sender<Option<Arc<Snapshot>>>>);

impl Told {
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(Arc::new(watch::Sender::new(Some(snapshot))))
    }

    pub fn tell(&self, snapshot: &Arc<Snapshot>) {
        self.0.send_replace(Some(Arc::clone(snapshot)));
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::Unavailable, "only watches")
}

#[async_trait]
impl Registry for Told {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("told")
    }

    async fn register(&self, _: Instance) -> Result<Registration> {
        Err(read_only())
    }

    async fn watch(&self, _: &ServiceName) -> Result<Watch> {
        Ok(Watch::new(self.0.subscribe(), Arc::new(())))
    }

    async fn list(&self, _: &ServiceName) -> Result<Snapshot> {
        Err(read_only())
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        Err(read_only())
    }
}

pub fn members(set: Set) -> Vec<Member> {
    let member = |number| {
        let instance = Instance::builder("s", "127.0.0.1", 80)
            .with_id(format!("{number:05}"))
            .with_weight(set.weight(number))
            .build();
        let incarnation = Incarnation::from_bits(u128::from(number));
        Member::new(Arc::new(instance.unwrap()), incarnation, Arc::default())
    };
    set.numbers().map(member).collect()
}

pub fn snapshot(members: &[Member], revision: u64) -> Arc<Snapshot> {
    let service = ServiceName::new("s").unwrap();
    Arc::new(Snapshot::new(
        service,
        members.iter().cloned(),
        Revision::new(1, revision),
    ))
}

pub fn client(set: Set, balancer: impl Balancer) -> Client {
    following(&Told::new(snapshot(&members(set), 1)), balancer)
}

pub fn following(told: &Told, balancer: impl Balancer) -> Client {
    let builder = Client::builder(Arc::new(told.clone()), "s").with_balancer(balancer);
    block_on(builder.build()).unwrap()
}

#[inline]
fn request<const KEYED: bool>(key: &Key) -> PickRequest<'static> {
    if KEYED {
        PickRequest::keyed(key)
    } else {
        PickRequest::new()
    }
}

/// Touches what was picked and releases it; `TIMED` reports how long it took.
#[inline]
fn release<E>(pick: Pick<E>, started: Option<plimsoll::Timestamp>) -> u64
where
    E: std::ops::Deref<Target = plimsoll::Endpoint>,
{
    let number = pick.endpoint().incarnation().to_bits() as u64;
    if let Some(started) = started {
        let now = SystemClock::new().now();
        pick.finish_at(Outcome::Success, now.since(started), now);
    }
    number
}

/// Panics unless the endpoints counted `picks` and all of them have ended.
fn settled(endpoints: &Endpoints, picks: u64) {
    let ended: u64 = endpoints
        .iter()
        .map(|e| e.successes() + e.cancelled())
        .sum();
    assert_eq!(ended, picks, "picks that were counted");
    assert!(
        endpoints.iter().all(|e| e.in_flight() == 0),
        "picks are still held"
    );
}

/// Through the client that all threads share.
pub struct Shared<const KEYED: bool, const TIMED: bool>(pub Client);

impl<const KEYED: bool, const TIMED: bool> Subject for Shared<KEYED, TIMED> {
    type Handle<'a> = &'a Client;

    fn handle(&self) -> &Client {
        &self.0
    }

    #[inline]
    fn pick(client: &mut &Client, key: &Key) -> u64 {
        let started = TIMED.then(|| SystemClock::new().now());
        release(client.pick(&request::<KEYED>(key)).unwrap(), started)
    }

    fn settled(&self, picks: u64) {
        settled(&self.0.endpoints(), picks);
    }
}

/// Through a handle of each thread.
pub struct Local<const KEYED: bool, const TIMED: bool>(pub Client);

impl<const KEYED: bool, const TIMED: bool> Subject for Local<KEYED, TIMED> {
    type Handle<'a> = LocalClient;

    fn handle(&self) -> LocalClient {
        self.0.local()
    }

    #[inline]
    fn pick(client: &mut LocalClient, key: &Key) -> u64 {
        let started = TIMED.then(|| SystemClock::new().now());
        release(client.pick(&request::<KEYED>(key)).unwrap(), started)
    }

    fn settled(&self, picks: u64) {
        settled(&self.0.endpoints(), picks);
    }
}

/// The balancer's picker alone, without client and guard.
pub struct Bare<const KEYED: bool>(Box<dyn Picker>);

impl<const KEYED: bool> Bare<KEYED> {
    pub fn new(set: Set, mut balancer: impl Balancer) -> Self {
        let endpoints = members(set)
            .iter()
            .map(|m| Arc::new(plimsoll::Endpoint::new(m)))
            .collect();
        Self(balancer.build(&endpoints).unwrap())
    }
}

impl<const KEYED: bool> Subject for Bare<KEYED> {
    type Handle<'a> = (&'a dyn Picker, Rng);

    fn handle(&self) -> Self::Handle<'_> {
        (&*self.0, Rng::from_entropy())
    }

    #[inline]
    fn pick((picker, rng): &mut Self::Handle<'_>, key: &Key) -> u64 {
        let clock = SystemClock::new();
        let mut context = PickContext::new(rng, &clock).with_key(request::<KEYED>(key).key());
        picker.pick(&mut context).unwrap().incarnation().to_bits() as u64
    }
}
