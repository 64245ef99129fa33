//! Calls whose turn has not come.

use plimsoll_discovery_api::{ErrorKind, Instance};
use tokio::time::{Instant, sleep};

use super::scenarios::{SECOND, live, start_admitted};
use super::world::Script;
use crate::{Admission, Class, Permit, Timings};

/// Everything that there is room for, but for what keeps things alive.
async fn occupy(admission: &Admission) -> Vec<Permit> {
    let mut permits = Vec::new();
    for _ in 0..admission.limit() {
        permits.push(admission.enter(Class::Claim).await);
    }
    permits
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_timed_and_its_lease_counted_from_when_it_is_sent() {
    let script = Script::new();
    let admission = script.admission();
    let occupied = occupy(&admission).await;
    let registration = start_admitted(&script, admission);
    // Longer than the time of a call, and than a lease.
    sleep(60 * SECOND).await;
    assert_eq!(script.count("claim"), 0);
    let sent = Instant::now();
    drop(occupied);
    live(&registration).await;
    assert!(sent.elapsed() < SECOND);
    sleep(8 * SECOND).await;
    assert!(registration.state().is_live());
    assert_eq!(script.count("claim"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_before_its_turn_was_never_sent() {
    let script = Script::new();
    let admission = script.admission();
    let occupied = occupy(&admission).await;
    let registration = start_admitted(&script, admission);
    sleep(SECOND).await;
    registration.deregister().await.unwrap();
    drop(occupied);
    sleep(60 * SECOND).await;
    assert_eq!(script.world().calls, []);
}

/// Renewals go on for as long as the update waits, which is then made of what is wanted by then.
#[tokio::test(start_paused = true)]
async fn an_update_and_a_load_that_wait_for_their_turn_keep_no_renewal_waiting() {
    let script = Script::new();
    let admission = script.admission();
    let registration = start_admitted(&script, admission.clone());
    live(&registration).await;
    let occupied = occupy(&admission).await;
    for weight in [2, 3, 4] {
        let instance = Instance::builder("s", "10.0.0.1", 1).with_id("a");
        let instance = instance.with_weight(weight).build();
        registration.update(instance.unwrap()).unwrap();
        registration.load().set(u64::from(weight) * 100);
        for _ in 0..200 {
            sleep(SECOND / 10).await;
            assert!(registration.state().is_live());
        }
    }
    assert!(script.count("renew") >= 15, "{}", script.count("renew"));
    assert_eq!((script.count("update"), script.count("publish")), (0, 0));
    drop(occupied);
    sleep(SECOND).await;
    assert_eq!((script.count("update"), script.count("publish")), (1, 1));
    let standing = script.visible().unwrap();
    assert_eq!((standing.instance.weight().get(), standing.load), (4, 400));
}

/// Whoever flushes is told that it takes too long, and leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_its_turn_no_longer_than_for_an_answer() {
    let script = Script::new();
    let admission = script.admission();
    let registration = start_admitted(&script, admission.clone());
    live(&registration).await;
    let occupied = occupy(&admission).await;
    registration.load().set(7);
    let limit = Timings::default().call_timeout * 2;
    for _ in 0..3 {
        let asked = Instant::now();
        let error = registration.load().flush().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(asked.elapsed() <= limit, "{:?}", asked.elapsed());
    }
    assert_eq!(script.count("publish"), 0);
    drop(occupied);
    registration.load().flush().await.unwrap();
    assert_eq!(script.count("publish"), 1);
}
