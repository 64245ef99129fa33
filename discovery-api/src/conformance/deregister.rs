//! What is given up is gone, for good.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, built, gone, life, ready, state_becomes};
use crate::{ErrorKind, RegistrationState, Rng, Status};

/// A deregistration takes effect at once and is final.
pub async fn deregister_is_immediate_and_final(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let leaving = scene.live(&owner, "leaving").await;
    let _staying = scene.live(&owner, "staying").await;
    let mut view = scene.follow(&other).await;
    let settle = scene.timing.settle;
    view.until(settle, "both", |s| ids(s) == ["leaving", "staying"])
        .await;
    view.never("a departed member held back as suspect", |s| {
        s.members()
            .iter()
            .any(|member| !member.standing().is_registered())
    });
    let watching = view.attend();
    gone(scene.timing.removal, &leaving).await;
    let mut view = watching.report().await;
    assert!(
        matches!(leaving.state(), RegistrationState::Deregistered),
        "{:?}",
        leaving.state()
    );
    scene
        .listed(&owner, settle, "the other alone", |s| ids(s) == ["staying"])
        .await;
    view.until(settle, "the other alone", |s| ids(s) == ["staying"])
        .await;

    leaving.load().set(5);
    let refused = [leaving.set_status(Status::Up), leaving.ready().await];
    for verdict in refused {
        assert_eq!(
            verdict.map_err(|error| error.kind()),
            Err(ErrorKind::Closed)
        );
    }
    view.stays(scene.timing.quiet, "the other alone", |s| {
        ids(s) == ["staying"]
    })
    .await;
    scene
        .list_stays(&other, "the other alone", |s| ids(s) == ["staying"])
        .await;
    assert!(
        matches!(leaving.state(), RegistrationState::Deregistered),
        "{:?}",
        leaving.state()
    );
}

/// A deregistration takes effect at once and is final.
pub async fn an_id_given_up_can_be_taken_anew(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let mut lives = Vec::new();
    for process in [&owner, &other, &owner] {
        let registration = scene.live(process, "same").await;
        let incarnation = life(&registration);
        assert!(
            !lives.contains(&incarnation),
            "an incarnation was used twice"
        );
        lives.push(incarnation);
        gone(scene.timing.removal, &registration).await;
    }
    let settle = scene.timing.settle;
    scene
        .listed(&other, settle, "nobody", |s| s.members().is_empty())
        .await;
}

/// No racing repair undoes a deregistration.
///
/// Each round ends the lease and deregisters at nearly the same moment, the one a random while
/// before the other, so that over all rounds the repair is met at every stage.
pub async fn a_racing_repair_never_undoes_a_deregistration(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let owner = scene.process().await;
    let mut rng = Rng::from_seed(0x5eed);
    for round in 0..scene.timing.rounds {
        let id = format!("r{round}");
        let registration = Arc::new(scene.live(&owner, &id).await);
        let instance = registration.instance();
        let (yields, pause) = jitter(&mut rng, scene.timing.settle.min(LONGEST_PAUSE));
        let leaving = Arc::clone(&registration);
        let task = tokio::spawn(async move {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            if !pause.is_zero() {
                sleep(pause).await;
            }
            leaving.deregister().await
        });
        scene
            .faults()
            .expire(instance.service(), instance.id())
            .await;
        // Confirmed, or else it goes on being tried: either way it must end in absence.
        let bound = scene.timing.settle + scene.timing.removal;
        match timeout(bound, task).await {
            Ok(Ok(Ok(()))) => {}
            other => panic!("round {round}: deregister said {other:?} (a race with the expiry)"),
        }
        let what = format!("nobody, in round {round}");
        scene
            .listed(&owner, scene.timing.settle, &what, |s| {
                s.members().is_empty()
            })
            .await;
        assert!(matches!(
            registration.state(),
            RegistrationState::Deregistered
        ));
    }
    scene
        .list_stays(&owner, "nobody after all rounds", |s| {
            s.members().is_empty()
        })
        .await;
    sleep(scene.timing.recovery).await;
    scene
        .list_stays(&owner, "nobody long after", |s| s.members().is_empty())
        .await;
}

/// Past the first steps of any backoff.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Some yields to hit each step of a repair, or a pause to hit each stage of its backoff.
fn jitter(rng: &mut Rng, longest: Duration) -> (usize, Duration) {
    if rng.below(2) == 0 {
        (rng.below(24), Duration::ZERO)
    } else {
        (0, longest.mul_f64(rng.next_f64()))
    }
}

/// A deregistration is bounded in time, whatever the registry does, and goes on being tried.
pub async fn deregister_is_bounded_in_an_outage(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "leaving").await;
    scene.faults().outage().await;
    let started = Instant::now();
    let bound = scene.timing.removal;
    match timeout(bound, registration.deregister()).await {
        Ok(Err(error)) => assert!(
            matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable),
            "an outage is reported as {error}"
        ),
        Ok(Ok(())) => panic!("a removal was confirmed by a registry that is down"),
        Err(_) => panic!("an outage kept deregister for {:?}", started.elapsed()),
    }
    scene.faults().restore().await;
    let end = scene.timing.recovery + scene.timing.expiry;
    scene
        .listed(&other, end, "nobody", |s| s.members().is_empty())
        .await;
    scene
        .list_stays(&other, "nobody", |s| s.members().is_empty())
        .await;
    let settle = scene.timing.settle;
    state_becomes(settle, &registration, "Deregistered", |state| {
        matches!(state, RegistrationState::Deregistered)
    })
    .await;
}

/// A deregistration is bounded in time, whatever the registry does, and goes on being tried.
pub async fn deregister_while_pending_wins(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    scene.faults().outage().await;
    let registration = scene.register(&owner, &built(scene.builder("early"))).await;
    // Nothing may have been written, so both a confirmation and a timeout are true.
    let answer = timeout(scene.timing.removal, registration.deregister()).await;
    assert!(
        answer.is_ok(),
        "an outage kept deregister for {:?}",
        scene.timing.removal
    );
    scene.faults().restore().await;
    sleep(scene.timing.recovery).await;
    let end = scene.timing.expiry;
    scene
        .listed(&other, end, "nobody", |s| s.members().is_empty())
        .await;
    scene
        .list_stays(&other, "nobody", |s| s.members().is_empty())
        .await;
    assert!(matches!(
        registration.state(),
        RegistrationState::Deregistered
    ));
}

/// A deregistration stands though its future is dropped.
pub async fn a_dropped_deregister_still_stands(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let registration = scene.live(&owner, "leaving").await;
    scene.faults().outage().await;
    let cut_short = timeout(Duration::from_millis(1), registration.deregister()).await;
    assert!(
        !matches!(cut_short, Ok(Ok(()))),
        "a registry that is down confirmed a removal"
    );
    scene.faults().restore().await;
    let end = scene.timing.recovery + scene.timing.expiry;
    scene
        .listed(&other, end, "nobody", |s| s.members().is_empty())
        .await;
    scene
        .list_stays(&other, "nobody", |s| s.members().is_empty())
        .await;
    assert!(matches!(
        registration.state(),
        RegistrationState::Deregistered
    ));
}

/// A deregistration may be repeated.
pub async fn deregister_may_be_repeated(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let owner = scene.process().await;
    let registration = Arc::new(scene.live(&owner, "leaving").await);
    let bound = scene.timing.removal;
    let second = Arc::clone(&registration);
    let at_once = tokio::spawn(async move { gone(bound, &second).await });
    gone(bound, &registration).await;
    assert!(
        at_once.await.is_ok(),
        "of two deregistrations at one time, one failed"
    );
    gone(bound, &registration).await;
    // Nor does a late repetition touch a successor.
    let successor = scene.live(&owner, "leaving").await;
    gone(bound, &registration).await;
    scene
        .list_stays(&owner, "the successor", |s| ids(s) == ["leaving"])
        .await;
    ready(bound, &successor).await;
}

/// Dropping the registration removes the instance.
pub async fn dropping_a_registration_removes_the_instance(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let dropped = scene.live(&owner, "dropped").await;
    let _kept = scene.live(&owner, "kept").await;
    let mut view = scene.follow(&other).await;
    let settle = scene.timing.settle;
    view.until(settle, "both", |s| ids(s) == ["dropped", "kept"])
        .await;
    let mut states = dropped.states();
    drop(dropped);
    view.until(settle, "the other alone", |s| ids(s) == ["kept"])
        .await;
    scene
        .listed(&owner, settle, "the other alone", |s| ids(s) == ["kept"])
        .await;
    view.stays(scene.timing.quiet, "the other alone", |s| {
        ids(s) == ["kept"]
    })
    .await;
    assert!(
        matches!(states.current(), RegistrationState::Deregistered),
        "{:?}",
        states.current()
    );
    let further = timeout(settle, states.wait_for(|_| false)).await;
    assert!(
        matches!(further, Ok(None)),
        "states go on after the end: {further:?}"
    );
}
