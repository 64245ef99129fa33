//! What arrives late, and what ends at the wrong time.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_discovery_api::{Instance, RegistrationState, Registry, ServiceName};
use plimsoll_test_servers::consul::{Data, Server, available};
use plimsoll_test_servers::probe::{eventually, life, live, new_life, ready, state};
use tokio::task::block_in_place;

use support::fake::{Answer, Asked, Fake, passed_on};
use support::harness::builder;
use support::operator::{Owned, agent_services, get, key, key_path, owned, put};

fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

fn instance(id: &str) -> Instance {
    let builder = Instance::builder(service(), "10.0.0.7", 8080).with_id(id);
    builder.build().expect("an instance")
}

fn fence(server: &Server, id: &str) -> Option<Owned> {
    block_in_place(|| owned(server, &key(&service(), id)))
}

/// A request that stays on its way, so that nobody is told what became of it.
type Delayed = Arc<Mutex<Option<Asked>>>;

/// Delays the first transaction that takes a key which is not there.
fn delay_the_next_lock(fake: &Fake, agent: SocketAddr) -> Delayed {
    delay_the_next(fake, agent, |asked| asked.body.contains("check-not-exists"))
}

fn delay_the_next(fake: &Fake, agent: SocketAddr, which: fn(&Asked) -> bool) -> Delayed {
    let delayed = Delayed::default();
    let holding = Arc::clone(&delayed);
    fake.set(move |asked| {
        let mut held = holding.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() && which(asked) {
            *held = Some(asked.clone());
            return Answer::raw("");
        }
        drop(held);
        passed_on(agent, asked)
    });
    delayed
}

fn held(delayed: &Delayed) -> Option<Asked> {
    delayed
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// A later attempt of the same life has succeeded, which says nothing of the one before; and the
/// session lives on, for the sake of others. Nor need anybody wait for a beat, which with such a TTL
/// are minutes apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_arrives_after_its_owner_has_left_is_removed() {
    const TTL: Duration = Duration::from_secs(600);
    if !available() {
        return;
    }
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let fake = Fake::start(move |asked| passed_on(agent, asked));
    let registry = builder(fake.address()).with_ttl(TTL).with_session_ttl(TTL);
    let registry = registry.build().unwrap();
    let _other = live(&registry, instance("other")).await;
    for (id, taken_again) in [("claimed", false), ("taken-again", true)] {
        let mut delayed = delay_the_next_lock(&fake, agent);
        let leaving = registry.register(instance(id)).await.unwrap();
        ready(&leaving).await;
        if taken_again {
            // By the next load, as an operator has deleted it.
            delayed = delay_the_next_lock(&fake, agent);
            block_in_place(|| server.call("DELETE", &key_path(&key(&service(), id)), ""));
            leaving.load().set(3);
            eventually("the key to be taken again", || async { fence(&server, id) }).await;
        }
        let late = held(&delayed).expect("a lock that was never answered");
        let own = life(&leaving);
        assert_eq!(fence(&server, id).unwrap().life(), Some(own));
        leaving.deregister().await.unwrap();
        assert!(fence(&server, id).is_none());
        block_in_place(|| put(&server, &late.target, &late.body));
        let arrived = fence(&server, id).expect("the lock that was late");
        assert_eq!(arrived.life(), Some(own));
        eventually("nothing of it", || async {
            fence(&server, id).is_none().then_some(())
        })
        .await;
    }
}

/// Nobody has registered anything: what stands was told to the agent once more, as its key had gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_arrives_after_its_owner_has_left_is_removed() {
    const TTL: Duration = Duration::from_secs(600);
    if !available() {
        return;
    }
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let fake = Fake::start(move |asked| passed_on(agent, asked));
    let registry = builder(fake.address()).with_ttl(TTL).with_session_ttl(TTL);
    let registry = registry.build().unwrap();
    let leaving = live(&registry, instance("a")).await;
    let delayed = delay_the_next(&fake, agent, |asked| {
        asked.target.ends_with("/agent/service/register")
    });
    block_in_place(|| server.call("DELETE", &key_path(&key(&service(), "a")), ""));
    leaving.load().set(3);
    let late = eventually("a repair", || async { held(&delayed) }).await;
    leaving.deregister().await.unwrap();
    let services = || block_in_place(|| agent_services(&server)).len();
    assert_eq!(services(), 0);
    block_in_place(|| put(&server, &late.target, &late.body));
    assert_eq!(services(), 1, "the repair that was late");
    eventually("nothing of it", || async {
        (services() == 0).then_some(())
    })
    .await;
}

const CRITICAL: &str = r#"[{"Node":{"Node":"n"},"Service":{"ID":"x","Service":"orders"},
    "Checks":[{"Status":"critical"}]}]"#;

/// It is checked before it is shown and held afterwards; in between nobody would have been told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_while_a_registration_waits_to_be_seen_is_replaced_for_it_too() {
    if !available() {
        return;
    }
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let good = move |asked: &Asked| passed_on(agent, asked);
    let fake = Fake::start(good);
    let registry = builder(fake.address()).with_request_timeout(Duration::from_secs(20));
    let registry = registry.build().unwrap();
    let first = live(&registry, instance("first")).await;
    let session = fence(&server, "first").unwrap().session;
    let before = life(&first);
    // Whoever looks for one service does not see it yet.
    let looks = |asked: &Asked| asked.query("filter").is_some();
    fake.set(move |asked| match looks(asked) {
        true => Answer::at(1, CRITICAL),
        false => good(asked),
    });
    let second = registry.register(instance("second")).await.unwrap();
    eventually("it to wait for being seen", || async {
        fake.asked()
            .iter()
            .skip_while(|a| !a.body.contains("second"))
            .any(looks)
            .then_some(())
    })
    .await;
    block_in_place(|| put(&server, &format!("/v1/session/destroy/{session}"), ""));
    // The next load of the other finds that out.
    first.load().set(9);
    state(&first, "not Live", |state| !state.is_live()).await;
    fake.set(good);
    new_life(&first, &[before]).await;
    eventually(
        "the second to be held by the session that there is",
        || async {
            let own = fence(&server, "first").filter(|own| own.session != session)?;
            let its = fence(&server, "second").filter(|its| its.session == own.session)?;
            let live = second.state();
            (live.is_live() && live.incarnation() == its.life()).then_some(())
        },
    )
    .await;
}

/// Each attempt opens one, and none of them stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_never_confirmed_is_closed_before_the_next_is_opened() {
    if !available() {
        return;
    }
    let server = block_in_place(|| Server::start(Data::Memory));
    let agent = server.address();
    let sessions = || {
        let sessions = block_in_place(|| get(&server, "/v1/session/list"));
        sessions.as_array().map_or(0, Vec::len)
    };
    let fake = Fake::start(
        move |asked| match asked.target.starts_with("/v1/session/renew/") {
            true => Answer::new(500, "rpc error making call: EOF"),
            false => passed_on(agent, asked),
        },
    );
    let registry = builder(fake.address()).build().unwrap();
    let registration = registry.register(instance("a")).await.unwrap();
    eventually("five attempts", || async {
        assert!(sessions() <= 1, "{} sessions", sessions());
        let asked = fake.asked();
        let opened = asked
            .iter()
            .filter(|a| a.target.starts_with("/v1/session/create"));
        (opened.count() >= 5).then_some(())
    })
    .await;
    fake.set(move |asked| passed_on(agent, asked));
    state(&registration, "Live", RegistrationState::is_live).await;
    assert_eq!(sessions(), 1);
}
