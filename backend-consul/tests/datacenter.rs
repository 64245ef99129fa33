//! Two datacentres that know of each other.

mod support;

use std::time::{Duration, Instant};

use plimsoll_discovery_api::{Error, ErrorKind, Instance, Registry, ServiceName};
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{eventually, ids, life, live, load_of, new_life};
use tokio::task::block_in_place;
use tokio::time::sleep;

use support::counter::Counter;
use support::harness::builder;
use support::operator::{put, service_id};

/// One server of each, which have not met yet.
struct World {
    north: Server,
    south: Server,
}

impl World {
    fn start() -> Self {
        block_in_place(|| {
            let named =
                |name: &str| format!("datacenter = \"{name}\"\nretry_interval_wan = \"1s\"\n");
            let north = Server::start_with(Data::Memory, &named("north"), None);
            // One that comes back is one that asks to be let in.
            let south =
                named("south") + &format!("retry_join_wan = [\"{}\"]\n", north.wan_address());
            let south = Server::start_with(Data::Disk, &south, None);
            Self { north, south }
        })
    }

    /// Until the one knows a server of the other.
    async fn met(&self) {
        for (server, other) in [(&self.north, "south"), (&self.south, "north")] {
            eventually("the datacentres to have met", || async {
                let path = format!("/v1/catalog/services?dc={other}");
                let answer = block_in_place(|| server.try_call("GET", &path, ""));
                answer.filter(|(status, _)| *status == 200).map(drop)
            })
            .await;
        }
    }
}

fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

fn instance(id: &str) -> Instance {
    let builder = Instance::builder(service(), "10.0.0.7", 8080).with_id(id);
    builder.build().expect("an instance")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_datacentre_is_followed_and_registrations_stay_in_the_agents_own() {
    if !available() {
        return;
    }
    let world = World::start();
    world.met().await;
    let southern = builder(world.south.address()).build().unwrap();
    let northern = builder(world.north.address()).build().unwrap();
    let abroad = builder(world.north.address())
        .with_datacenter("south")
        .build()
        .unwrap();
    let there = live(&southern, instance("there")).await;
    let watch = abroad.watch(&service()).await.unwrap();
    // Its owner asks its own datacentre whether it is seen: it would never be live otherwise.
    let here = live(&abroad, instance("here")).await;
    here.load().set(1);
    there.load().set(2);
    eventually("the one there, with its load", || async {
        let seen = watch.latest().filter(|s| load_of(s, "there") == Some(2))?;
        let listed = abroad.list(&service()).await.ok()?;
        (ids(&seen) == ["there"]
            && ids(&listed) == ["there"]
            && load_of(&listed, "there") == Some(2))
        .then_some(())
    })
    .await;
    eventually("the one here, with its load", || async {
        let listed = northern.list(&service()).await.ok()?;
        (ids(&listed) == ["here"] && load_of(&listed, "here") == Some(1)).then_some(())
    })
    .await;
    // The same id may stand in both: they are as two registries.
    let double = live(&northern, instance("there")).await;
    double.deregister().await.unwrap();

    // How somebody left is told by what stands there, not here.
    let before = life(&there);
    let id = service_id(&service(), "there", before);
    let mut seen = watch.clone();
    let witness = tokio::spawn(async move {
        let mut fewest = usize::MAX;
        while let Some(snapshot) = seen.next().await {
            fewest = fewest.min(snapshot.members().len());
            if snapshot
                .get("there")
                .is_some_and(|m| m.incarnation() != before)
            {
                break;
            }
        }
        fewest
    });
    block_in_place(|| {
        put(
            &world.south,
            &format!("/v1/agent/service/deregister/{id}"),
            "",
        )
    });
    new_life(&there, &[before]).await;
    let fewest = tokio::time::timeout(plimsoll_test_servers::probe::PATIENCE, witness)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fewest, 1, "an empty list, though its owner lives");
    there.deregister().await.unwrap();
    let gone = Instant::now();
    eventually("nobody", || async {
        watch.latest().filter(|s| s.members().is_empty())
    })
    .await;
    assert!(
        gone.elapsed() < Duration::from_secs(3),
        "{:?}",
        gone.elapsed()
    );
    assert!(here.state().is_live());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_datacentre_is_named_and_asked_for_no_more_than_once_a_second_until_it_is_known()
{
    if !available() {
        return;
    }
    let world = block_in_place(|| {
        let start = |name: &str| {
            Server::start_with(Data::Memory, &format!("datacenter = \"{name}\"\n"), None)
        };
        World {
            north: start("north"),
            south: start("south"),
        }
    });
    let _there = live(
        &builder(world.south.address()).build().unwrap(),
        instance("there"),
    )
    .await;
    let counter = Counter::start(world.north.address());
    let abroad = builder(counter.address())
        .with_datacenter("south")
        .build()
        .unwrap();
    let is_told = |error: &Error| {
        error.kind() == ErrorKind::InvalidConfig
            && error.context().any(|fact| fact == ("dc", "south"))
    };
    let listed = abroad.list(&service()).await.unwrap_err();
    let named = abroad.services().await.unwrap_err();
    assert!(is_told(&listed) && is_told(&named), "{listed:?} {named:?}");
    let watch = abroad.watch_members(&service()).await.unwrap();
    // Nor does it keep anybody from registering here.
    let here = live(&abroad, instance("here")).await;
    sleep(Duration::from_secs(1)).await;
    let before = counter.count("dc=south");
    sleep(Duration::from_secs(5)).await;
    let asked = counter.count("dc=south") - before;
    assert!((1..=6).contains(&asked), "{asked} queries in 5 s");
    assert!(watch.latest().is_none());
    let join = format!("/v1/agent/join/{}?wan=1", world.south.wan_address());
    block_in_place(|| put(&world.north, &join, ""));
    eventually("the one there", || async {
        watch.latest().filter(|s| ids(s) == ["there"])
    })
    .await;
    assert!(here.state().is_live());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datacentre_that_is_cut_off_keeps_its_last_good_set_and_is_followed_again() {
    if !available() {
        return;
    }
    let mut world = World::start();
    world.met().await;
    let there = live(
        &builder(world.south.address()).build().unwrap(),
        instance("there"),
    )
    .await;
    let abroad = builder(world.north.address())
        .with_datacenter("south")
        .build()
        .unwrap();
    let watch = abroad.watch(&service()).await.unwrap();
    eventually("the one there", || async {
        watch.latest().filter(|s| ids(s) == ["there"])
    })
    .await;
    block_in_place(|| world.south.kill());
    let seen = eventually("a stale list", || async {
        watch.latest().filter(|s| !s.freshness().is_live())
    })
    .await;
    assert_eq!(ids(&seen), ["there"]);
    let refused = abroad.list(&service()).await.unwrap_err();
    assert!(
        matches!(
            refused.kind(),
            ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::InvalidConfig
        ),
        "{refused}"
    );
    block_in_place(|| world.south.restart());
    eventually("a live list of the one there", || async {
        watch.latest().filter(|s| {
            let member = s.get("there").map(|m| m.incarnation());
            s.freshness().is_live() && member.is_some() && member == there.state().incarnation()
        })
    })
    .await;
}
