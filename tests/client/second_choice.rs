//! What a retry chooses: by the rule of the first choice, among those that are left.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::balancers::{
    BoundedLoadHash, LeastLoad, Maglev, OutlierEjection, Rendezvous, RingHash, Sticky,
};
use plimsoll::{Balancer, Client, Clock, ManualClock, PickRequest};

use crate::client_of;
use crate::support::{ByKey, ScriptedRegistry, named, weighing};

/// Of 1,000 retries of keyed requests that failed where they first went, how many go to each of
/// three endpoints, of which the last is ejected.
async fn second_choices(balancer: impl Balancer) -> [u32; 3] {
    let registry = ScriptedRegistry::with(&named(3));
    let clock = Arc::new(ManualClock::new());
    let client = client_of(&registry)
        .with_balancer(OutlierEjection::new(balancer))
        .with_clock(Arc::clone(&clock) as _)
        .build()
        .await
        .unwrap();
    client.endpoints()[2].eject(clock.now().after(Duration::from_secs(30)));
    let mut counts = [0; 3];
    for user in 0..1_000 {
        let request = PickRequest::keyed(&user);
        let first = Arc::clone(client.pick(&request).unwrap().endpoint());
        assert_ne!(first.id().as_str(), "002", "a first choice is not ejected");
        let tried = [first];
        let second = client.pick(&request.with_excluded(&tried)).unwrap();
        counts[index(&client, second.endpoint().id().as_str())] += 1;
    }
    counts
}

fn index(client: &Client, id: &str) -> usize {
    let endpoints = client.endpoints();
    endpoints
        .iter()
        .position(|e| e.id().as_str() == id)
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_no_more_to_an_ejected_endpoint_than_a_first_attempt() {
    for (name, counts) in [
        ("maglev", second_choices(Maglev::new()).await),
        ("ring", second_choices(RingHash::new()).await),
        ("rendezvous", second_choices(Rendezvous::new()).await),
        ("bounded", second_choices(BoundedLoadHash::new()).await),
        (
            "sticky",
            second_choices(Sticky::new(LeastLoad::new())).await,
        ),
    ] {
        assert_eq!(counts[2], 0, "{name}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_ignores_exclusions_is_replaced_by_chance_by_weight() {
    let members: Vec<_> = [100, 200, 400, 300]
        .iter()
        .zip(named(4))
        .map(|(&weight, member)| weighing(&member, weight))
        .collect();
    let client = client_of(&ScriptedRegistry::with(&members))
        .with_balancer(ByKey::default())
        .build()
        .await
        .unwrap();
    let endpoints = client.endpoints();
    let request = PickRequest::new().with_key(2);
    assert_eq!(
        index(
            &client,
            client.pick(&request).unwrap().endpoint().id().as_str()
        ),
        2
    );
    let request = request.with_excluded(&endpoints[2..3]);
    let mut seen = [0; 4];
    for _ in 0..6_000 {
        let pick = client.pick(&request).unwrap();
        seen[index(&client, pick.endpoint().id().as_str())] += 1;
    }
    assert_eq!(seen[2], 0);
    // Binomial, n = 6,000, p = 1/6, 1/3 and 1/2, sigma at most 38.8: 6 of these at 3 places fail
    // with p < 6e-9; seeded.
    for (count, due) in [(seen[0], 1_000), (seen[1], 2_000), (seen[3], 3_000)] {
        assert!(i32::abs(count - due) < 233, "{seen:?}");
    }
}
