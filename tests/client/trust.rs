//! How long the loads that a registry holds are believed.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::balancers::{
    Aperture, LeastLoad, OutlierEjection, PriorityFailover, RandomSubset, SlowStart, Sticky,
    ZoneAware,
};
use plimsoll::{Balancer, Capabilities, Client, ClientBuilder, Clock, ManualClock, Zone};

use crate::support::{ScriptedRegistry, named};
use crate::{ANY, client_of};

const PICKS: u32 = 20_000;

/// Two servers that have just published loads of 100 and 0, which they then have no cause to
/// change, in a registry where that is repeated after this time.
async fn client(
    max_age: Duration,
    build: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> (Client, Arc<ManualClock>) {
    let (clock, members) = (Arc::new(ManualClock::new()), named(2));
    members[0].load().store(100, clock.now());
    members[1].load().store(0, clock.now());
    let registry = ScriptedRegistry::with(&members);
    let mut capabilities = Capabilities::new("slow");
    capabilities.load_interval = Duration::from_secs(15);
    capabilities.load_max_age = max_age;
    registry.set_capabilities(capabilities);
    let builder = client_of(&registry).with_clock(Arc::clone(&clock) as _);
    (build(builder).build().await.unwrap(), clock)
}

/// The part of all picks that go to the busy one.
fn misled(client: &Client) -> f64 {
    let is_busy = || client.pick(&ANY).unwrap().endpoint().id().as_str() == "000";
    f64::from((0..PICKS).map(|_| u32::from(is_busy())).sum::<u32>()) / f64::from(PICKS)
}

/// A pick that does not believe goes to either: (1 - 2^(-(age - 60 s) / 30 s)) / 2 of all go wrong.
/// Binomial, n = 20,000, sigma at most 0.0035: 5 of these at 4 ages fail with p < 3e-6; seeded.
#[tokio::test(start_paused = true)]
async fn a_load_that_is_repeated_each_minute_is_doubted_after_one() {
    let max_age = Duration::from_secs(60);
    let (client, clock) = client(max_age, |builder| builder).await;
    let mut age = 0;
    for (at, part) in [(40, 0.0), (80, 0.184), (120, 0.375), (240, 0.492)] {
        clock.advance(Duration::from_secs(at - age));
        age = at;
        let misled = misled(&client);
        assert!((misled - part).abs() < 0.018, "at {at} s: {misled}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_is_believed_for_as_long_as_the_registry_vouches_for_it() {
    let max_age = Duration::from_secs(600);
    let zone = || Zone::new("a").unwrap();
    let least = LeastLoad::new;
    let balancers: Vec<(&str, Option<Box<dyn Balancer>>)> = vec![
        ("by default", None),
        ("least load", Some(Box::new(least()))),
        (
            "ejection",
            Some(Box::new(OutlierEjection::new(SlowStart::new(least())))),
        ),
        (
            "subset",
            Some(Box::new(RandomSubset::new(least(), 2).unwrap())),
        ),
        (
            "aperture",
            Some(Box::new(Aperture::new(least(), 2, 0, 1).unwrap())),
        ),
        ("zone", Some(Box::new(ZoneAware::new(zone(), least)))),
        ("level", Some(Box::new(PriorityFailover::new(|_| 0, least)))),
    ];
    for (name, balancer) in balancers {
        let (client, clock) = client(max_age, |builder| match balancer {
            Some(balancer) => builder.with_balancer(balancer),
            None => builder,
        })
        .await;
        let mut age = 0;
        for at in [40, 80, 120, 240, 600] {
            clock.advance(Duration::from_secs(at - age));
            age = at;
            assert_eq!(misled(&client), 0.0, "{name}, at {at} s");
        }
        clock.advance(Duration::from_secs(60));
        assert!(misled(&client) > 0.1, "{name}: it is overdue by a minute");
    }
    let keyless = |builder: ClientBuilder| builder.with_balancer(Sticky::new(least()));
    let (client, clock) = client(max_age, keyless).await;
    clock.advance(Duration::from_secs(500));
    assert_eq!(misled(&client), 0.0, "it stays where it went first");
}

#[tokio::test(start_paused = true)]
async fn what_the_user_sets_stands_whatever_the_registry_says() {
    let trust = Duration::from_secs(60);
    let chosen = |builder: ClientBuilder| builder.with_balancer(LeastLoad::new().with_trust(trust));
    let (client, clock) = client(Duration::from_secs(600), chosen).await;
    clock.advance(Duration::from_secs(240));
    assert!(misled(&client) > 0.4);
}
