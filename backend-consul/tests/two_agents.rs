//! One id on two agents of one cluster, and what the agents tell the servers.

mod support;

use std::time::{Duration, Instant};

use plimsoll_backend_consul::ConsulRegistry;
use plimsoll_discovery_api::{ErrorKind, Instance, Registry, ServiceName, Snapshot};
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, life, live, load_of, state};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use support::harness::{TTL, builder};
use support::operator::{get, owned, put, service_id};
use support::provider::{be_a_provider, provider};

/// A server, two agents that are its clients, and somebody who looks on.
struct Agents {
    server: Server,
    one: Server,
    other: Server,
    consumer: ConsulRegistry,
    service: ServiceName,
}

impl Agents {
    fn start() -> Self {
        block_in_place(|| {
            let server = Server::start(Data::Disk);
            Self {
                one: Server::start_client(&server),
                other: Server::start_client(&server),
                consumer: builder(server.address()).build().expect("good settings"),
                service: "orders".parse().expect("a name"),
                server,
            }
        })
    }

    fn instance(&self, id: &str) -> Instance {
        let builder = Instance::builder(&self.service, "10.0.0.7", 8080).with_id(id);
        builder.build().expect("an instance")
    }

    async fn list(&self) -> Snapshot {
        plimsoll_test_servers::probe::listed(&self.consumer, &self.service, "an answer", |_| true)
            .await
    }

    /// How many services of any life are in the catalog, usable or not.
    fn catalogued(&self) -> usize {
        let services = block_in_place(|| get(&self.server, "/v1/catalog/service/orders"));
        services.as_array().map_or(0, Vec::len)
    }

    fn owner(&self, id: &str) -> Option<plimsoll_discovery_api::Incarnation> {
        let key = support::operator::key(&self.service, id);
        block_in_place(|| owned(&self.server, &key))?.life()
    }

    /// Waits until the one `a` has this load; until then there is never a second of it.
    async fn until_loaded(&self, wanted: u64) {
        eventually("the one with this load", || async {
            let listed = self.list().await;
            assert!(listed.members().len() <= 1, "{:?}", ids(&listed));
            (load_of(&listed, "a") == Some(wanted)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_id_on_two_agents_one_owns_it_and_they_never_take_turns() {
    be_a_provider().await;
    if !available() {
        return;
    }
    let name = "of_two_processes_with_one_id_on_two_agents_one_owns_it_and_they_never_take_turns";
    let agents = Agents::start();
    let mut first = provider(&agents.one, name, "a");
    let one = u64::from(first.id());
    agents.until_loaded(one).await;
    let second = provider(&agents.other, name, "a");
    let two = u64::from(second.id());
    let owner = agents.owner("a");
    // A third, whose verdict can be asked for.
    let third = builder(agents.other.address()).build().unwrap();
    let third = third.register(agents.instance("a")).await.unwrap();
    let verdict = timeout(PATIENCE, third.ready()).await.unwrap().unwrap_err();
    assert_eq!(verdict.kind(), ErrorKind::Conflict, "{verdict}");
    drop(third);
    let until = Instant::now() + TTL * 2;
    while Instant::now() < until {
        let listed = agents.list().await;
        assert_eq!(listed.get("a").map(|m| m.incarnation()), owner);
        assert_eq!(
            (ids(&listed), load_of(&listed, "a")),
            (vec!["a"], Some(one))
        );
        assert_eq!((agents.owner("a"), agents.catalogued()), (owner, 1));
        sleep(Duration::from_millis(100)).await;
    }
    block_in_place(|| first.kill());
    agents.until_loaded(two).await;
    assert_ne!(agents.owner("a"), owner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_one_agent_and_comes_to_another_is_there_once_and_at_once() {
    if !available() {
        return;
    }
    let agents = Agents::start();
    let watch = agents.consumer.watch(&agents.service).await.unwrap();
    let handles =
        [&agents.one, &agents.other].map(|agent| builder(agent.address()).build().unwrap());
    let mut present = live(&handles[0], agents.instance("a")).await;
    for round in 1..=6 {
        present.deregister().await.unwrap();
        let moved = Instant::now();
        present = live(&handles[round % 2], agents.instance("a")).await;
        assert!(moved.elapsed() < TTL / 2, "{:?}", moved.elapsed());
        assert_eq!(agents.catalogued(), 1, "a ghost on the agent that was left");
        let life = life(&present);
        eventually("it in its new life", || async {
            watch
                .latest()
                .filter(|s| ids(s) == ["a"] && s.get("a").is_some_and(|m| m.incarnation() == life))
        })
        .await;
    }
}

/// The id is free when the session has ended; what Consul keeps of the dead one for people to see goes
/// when it was told that it should.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_on_one_agent_and_returns_on_another_is_never_there_twice_and_leaves_no_ghost()
 {
    be_a_provider().await;
    if !available() {
        return;
    }
    let name = "a_process_that_dies_on_one_agent_and_returns_on_another_is_never_there_twice_and_leaves_no_ghost";
    let agents = Agents::start();
    let mut first = provider(&agents.one, name, "a");
    agents.until_loaded(u64::from(first.id())).await;
    let former = agents.owner("a");
    block_in_place(|| first.kill());
    let killed = Instant::now();
    let second = provider(&agents.other, name, "a");
    agents.until_loaded(u64::from(second.id())).await;
    let taken = killed.elapsed();
    assert!(taken < TTL * 2 + Duration::from_secs(5), "{taken:?}");
    let owner = agents.owner("a");
    assert_ne!(owner, former);
    assert_eq!(agents.catalogued(), 2, "the dead one, for people to see");
    // Its check turned critical when its TTL was over; a minute later it is to go, and the agent
    // looks twice a minute.
    let most = TTL + Duration::from_secs(60 + 30 + 10);
    while agents.catalogued() > 1 {
        assert!(
            killed.elapsed() < most,
            "a ghost after {:?}",
            killed.elapsed()
        );
        let listed = agents.list().await;
        assert_eq!(ids(&listed), ["a"]);
        assert_eq!(listed.get("a").map(|m| m.incarnation()), owner);
        sleep(Duration::from_millis(100)).await;
    }
    println!(
        "taken over after {taken:?}, removed after {:?}",
        killed.elapsed()
    );
    let listed = agents.list().await;
    assert_eq!(
        listed.get("a").map(|m| m.incarnation()),
        owner,
        "the wrong one has gone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_died_with_its_provider_brings_nothing_back_when_it_returns() {
    if !available() {
        return;
    }
    let mut agents = Agents::start();
    let gone = live(
        &builder(agents.one.address()).build().unwrap(),
        agents.instance("a"),
    )
    .await;
    let former = life(&gone);
    block_in_place(|| agents.one.kill());
    drop(gone);
    let heir = builder(agents.other.address()).build().unwrap();
    let heir = heir.register(agents.instance("a")).await.unwrap();
    let mut states = heir.states();
    let reached = timeout(PATIENCE, states.wait_for(|state| state.is_live()));
    tokio::pin!(reached);
    loop {
        tokio::select! {
            reached = &mut reached => {
                assert!(matches!(reached, Ok(Some(_))), "{:?}", heir.state());
                break;
            }
            () = sleep(Duration::from_millis(100)) => {
                let listed = agents.list().await;
                assert!(listed.members().len() <= 1, "{:?}", ids(&listed));
            }
        }
    }
    let owner = life(&heir);
    block_in_place(|| agents.one.restart());
    eventually("one service in all the catalog", || async {
        (agents.catalogued() == 1).then_some(())
    })
    .await;
    let until = Instant::now() + TTL;
    while Instant::now() < until {
        let listed = agents.list().await;
        assert_eq!(listed.get("a").map(|m| m.incarnation()), Some(owner));
        assert_ne!(owner, former);
        sleep(Duration::from_millis(100)).await;
    }
    state(
        &heir,
        "Live",
        plimsoll_discovery_api::RegistrationState::is_live,
    )
    .await;
}

/// Which it makes every minute or two, and whenever a server is new to it: what the catalog has of
/// its node and it has not is removed, and what it has and the catalog has not is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_outlasts_its_agents_comparison_with_the_catalog() {
    if !available() {
        return;
    }
    let agents = Agents::start();
    let registry = builder(agents.one.address()).build().unwrap();
    let staying = live(&registry, agents.instance("staying")).await;
    let removed = live(&registry, agents.instance("removed")).await;
    let lives = [life(&removed), life(&staying)];
    let node = agents.one.node();
    let uuid = block_in_place(|| get(&agents.server, &format!("/v1/catalog/node/{node}")));
    let uuid = uuid["Node"]["ID"].as_str().expect("an id").to_owned();
    let stranger = format!(
        r#"{{"Node":"{node}","Address":"127.0.0.1","ID":"{uuid}","Service":{{"ID":"x","Service":"stranger","Port":1}}}}"#
    );
    let missing = service_id(&agents.service, "removed", lives[0]);
    let missing = format!(r#"{{"Node":"{node}","ServiceID":"{missing}"}}"#);
    block_in_place(|| {
        put(&agents.server, "/v1/catalog/register", &stranger);
        put(&agents.server, "/v1/catalog/deregister", &missing);
    });
    let strangers = || {
        let found = block_in_place(|| get(&agents.server, "/v1/catalog/service/stranger"));
        found.as_array().map_or(0, Vec::len)
    };
    assert_eq!(
        (strangers(), ids(&agents.list().await)),
        (1, vec!["staying"])
    );
    let _new_to_it = block_in_place(|| Server::start_beside(&agents.server));
    eventually("the comparison", || async {
        (strangers() == 0).then_some(())
    })
    .await;
    eventually("both, in the lives that they had", || async {
        let listed = agents.list().await;
        let seen: Vec<_> = listed.members().iter().map(|m| m.incarnation()).collect();
        assert!(listed.get("staying").is_some(), "{:?}", ids(&listed));
        (seen == lives).then_some(())
    })
    .await;
    assert!(staying.state().is_live() && removed.state().is_live());
    assert_eq!([life(&removed), life(&staying)], lives);
}
