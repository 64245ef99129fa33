//! Leaving out what has just been seen to fail.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::balancers::{
    LeastLoad, LeastRequest, Maglev, OutlierEjection, PeakEwma, Random, RoundRobin,
    WeightedRoundRobin,
};
use plimsoll::{
    Admission, Attempt, AttemptExt, Balancer, Client, ClientBuilder, Endpoint, ErrorKind,
    FailureAccrual, Outcome, PickRequest,
};
use tokio::time::{Instant, sleep};

use crate::support::{ScriptedRegistry, TokioClock, member, named, settle};
use crate::{ANY, client_of};

const MS: Duration = Duration::from_millis(1);

type Answer = Result<(), Attempt<io::Error>>;

fn builder(registry: &ScriptedRegistry) -> ClientBuilder {
    client_of(registry).with_clock(Arc::new(TokioClock))
}

async fn client(members: usize) -> Client {
    let registry = ScriptedRegistry::with(&named(members));
    builder(&registry).build().await.unwrap()
}

fn endpoint(client: &Client, index: usize) -> Arc<Endpoint> {
    Arc::clone(&client.endpoints()[index])
}

/// Makes `count` calls, one after the other, which take 1 ms each; those of an endpoint in `dead`
/// fail as `outcome` says. Returns how many first attempts went to each.
async fn calls(
    client: &Client,
    count: u64,
    dead: &[&str],
    error: fn() -> io::Error,
) -> BTreeMap<String, u64> {
    let mut first = BTreeMap::new();
    for key in 0..count {
        let mut attempts = 0;
        let call = |endpoint: Arc<Endpoint>| {
            attempts += 1;
            let id = endpoint.id().to_string();
            let fails = dead.contains(&id.as_str());
            if attempts == 1 {
                *first.entry(id).or_default() += 1;
            }
            async move {
                sleep(MS).await;
                if fails {
                    Err(error()).or_retry()
                } else {
                    Answer::Ok(())
                }
            }
        };
        let request = PickRequest::keyed(&key);
        let _answered_or_not = client.call(&request, call).await;
    }
    first
}

fn refused() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionRefused)
}

fn wrong() -> io::Error {
    io::Error::other("500")
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_wastes_few_first_attempts_with_any_balancer() {
    let balancers: [Box<dyn Balancer>; 7] = [
        Box::new(LeastLoad::new()),
        Box::new(LeastRequest::new()),
        Box::new(PeakEwma::new()),
        Box::new(Random::new()),
        Box::new(RoundRobin::new()),
        Box::new(WeightedRoundRobin::new()),
        Box::new(Maglev::new()),
    ];
    for balancer in balancers {
        let name = balancer.name();
        let registry = ScriptedRegistry::with(&named(3));
        let client = builder(&registry)
            .with_balancer(balancer)
            .build()
            .await
            .unwrap();
        let first = calls(&client, 10_000, &["001"], refused).await;
        let wasted = first.get("001").copied().unwrap_or(0);
        // 10 s: at once, and after pauses of 2, 4 and 4.5 s.
        assert!((1..=4).contains(&wasted), "{name}: {first:?}");
        assert!(
            first["000"] > 3_000 && first["002"] > 3_000,
            "{name}: {first:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_back_has_its_share_within_five_seconds() {
    for seed in 0..10 {
        let registry = ScriptedRegistry::with(&named(3));
        let builder = builder(&registry)
            .with_seed(seed)
            .with_balancer(RoundRobin::new());
        let client = builder.build().await.unwrap();
        calls(&client, 4_000 + 500 * seed, &["001"], refused).await;
        assert_ne!(endpoint(&client, 1).admission(), Admission::Admitted);
        let start = Instant::now();
        while endpoint(&client, 1).admission() != Admission::Admitted {
            calls(&client, 1, &[], refused).await;
        }
        assert!(
            start.elapsed() <= Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        let first = calls(&client, 3_000, &[], refused).await;
        assert!((990..=1_010).contains(&first["001"]), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_are_enough_and_four_are_not() {
    let client = client(3).await;
    let sick = endpoint(&client, 1);
    for (failures, admission) in [(4, Admission::Admitted), (1, Admission::LeftOut)] {
        for _ in 0..failures {
            plimsoll::Pick::new(&*sick).finish(Outcome::Failure);
        }
        settle().await;
        assert_eq!(sick.admission(), admission);
    }
    assert_eq!(client.stats().eligible, 2);
}

#[tokio::test(start_paused = true)]
async fn a_success_between_failures_starts_the_count_anew() {
    let client = client(3).await;
    let shaky = endpoint(&client, 1);
    for _ in 0..100 {
        for outcome in [
            Outcome::Failure,
            Outcome::Failure,
            Outcome::TimedOut,
            Outcome::Success,
        ] {
            plimsoll::Pick::new(&*shaky).finish(outcome);
        }
        settle().await;
        assert_eq!(shaky.admission(), Admission::Admitted);
    }
}

#[tokio::test(start_paused = true)]
async fn one_trial_at_a_time_and_it_decides() {
    let client = client(3).await;
    let sick = endpoint(&client, 1);
    plimsoll::Pick::new(&*sick).finish(Outcome::Unreachable);
    settle().await;
    assert_eq!(sick.admission(), Admission::LeftOut);
    for outcome in [
        Outcome::TimedOut,
        Outcome::Failure,
        Outcome::Unreachable,
        Outcome::Success,
    ] {
        sleep(4_501 * MS).await;
        assert_eq!(sick.admission(), Admission::OnOffer);
        let trial = client.pick(&ANY).unwrap();
        assert!(
            Arc::ptr_eq(trial.endpoint(), &sick),
            "the next request tries it"
        );
        for _ in 0..1_000 {
            assert!(!Arc::ptr_eq(client.pick(&ANY).unwrap().endpoint(), &sick));
        }
        trial.finish(outcome);
        settle().await;
        let expected = match outcome {
            Outcome::Success => Admission::Admitted,
            _ => Admission::LeftOut,
        };
        assert_eq!(sick.admission(), expected, "{outcome:?}");
    }
    assert_eq!(client.stats().eligible, 3);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_nobody_reports_is_offered_again() {
    let client = client(3).await;
    let sick = endpoint(&client, 1);
    plimsoll::Pick::new(&*sick).finish(Outcome::Unreachable);
    sleep(2_001 * MS).await;
    let mut local = client.local();
    drop(local.pick(&ANY).unwrap());
    assert_eq!(sick.admission(), Admission::OnOffer);
    let trial = local.pick(&ANY).unwrap();
    assert_eq!(trial.endpoint().id(), sick.id());
    trial.finish(Outcome::Success);
    settle().await;
    assert_eq!(client.stats().eligible, 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_leads_elsewhere_tries_nobody() {
    let registry = ScriptedRegistry::with(&named(3));
    let client = builder(&registry)
        .with_balancer(Maglev::new())
        .build()
        .await
        .unwrap();
    let owner = |key: u64| {
        let pick = client.pick(&PickRequest::keyed(&key)).unwrap();
        (pick.endpoint().id().to_string(), pick)
    };
    let before: Vec<_> = (0..300).map(|key| owner(key).0).collect();
    plimsoll::Pick::new(&*endpoint(&client, 1)).finish(Outcome::Unreachable);
    sleep(2_001 * MS).await;
    assert_eq!(endpoint(&client, 1).admission(), Admission::OnOffer);
    let mut trials = Vec::new();
    for (key, before) in (0..300).zip(&before) {
        let (id, pick) = owner(key);
        if id == "001" {
            trials.push(pick);
        }
        assert!(before == &id || before == "001", "{key}: {before} {id}");
    }
    assert_eq!(trials.len(), 1, "one of its own keys tries it");
}

#[tokio::test(start_paused = true)]
async fn if_all_are_left_out_all_are_picked_from_and_nobody_waits() {
    let client = client(3).await;
    let start = Instant::now();
    let first = calls(&client, 100, &["000", "001", "002"], wrong).await;
    assert_eq!(first.len(), 3, "{first:?}");
    for index in 0..3 {
        plimsoll::Pick::new(&*endpoint(&client, index)).finish(Outcome::Unreachable);
    }
    settle().await;
    assert_eq!(client.stats().eligible, 3);
    let before = Instant::now();
    assert!(
        client
            .call(&ANY, async |_| -> Answer { Ok(()) })
            .await
            .is_ok()
    );
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_of_all_each_is_back_with_its_first_answer() {
    let client = client(3).await;
    for index in 0..3 {
        plimsoll::Pick::new(&*endpoint(&client, index)).finish(Outcome::Unreachable);
    }
    sleep(20 * MS).await;
    let first = calls(&client, 9, &[], refused).await;
    assert_eq!(first.len(), 3, "{first:?}");
    settle().await;
    assert_eq!(client.stats().eligible, 3);
    assert!((0..3).all(|index| endpoint(&client, index).admission() == Admission::Admitted));
}

#[tokio::test(start_paused = true)]
async fn wrong_answers_leave_out_half_at_most() {
    let client = client(4).await;
    for index in 0..3 {
        for _ in 0..5 {
            plimsoll::Pick::new(&*endpoint(&client, index)).finish(Outcome::Failure);
        }
        settle().await;
    }
    assert_eq!(client.stats().eligible, 2);
    let out = (0..4).filter(|&i| endpoint(&client, i).admission() == Admission::LeftOut);
    assert_eq!(out.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn silence_leaves_out_as_many_as_are_silent() {
    let client = client(10).await;
    for index in 0..9 {
        for _ in 0..2 {
            plimsoll::Pick::new(&*endpoint(&client, index)).finish(Outcome::TimedOut);
        }
    }
    settle().await;
    assert_eq!(client.stats().eligible, 1);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_registers_anew_starts_afresh() {
    let registry = ScriptedRegistry::with(&named(3));
    let client = builder(&registry).build().await.unwrap();
    let former = endpoint(&client, 1);
    plimsoll::Pick::new(&*former).finish(Outcome::Unreachable);
    settle().await;
    assert_eq!(client.stats().eligible, 2);
    registry.publish(&[member("000"), member("001"), member("002")]);
    settle().await;
    assert_eq!(client.stats().eligible, 3);
    assert_eq!(endpoint(&client, 1).admission(), Admission::Admitted);
}

#[tokio::test(start_paused = true)]
async fn a_success_rate_far_below_the_others_is_out_for_a_while() {
    let client = client(6).await;
    for round in 0..200 {
        for (index, endpoint) in client.endpoints().iter().enumerate() {
            let fails = index == 2 && round % 2 == 0;
            let outcome = if fails {
                Outcome::Failure
            } else {
                Outcome::Success
            };
            plimsoll::Pick::new(&**endpoint).finish(outcome);
        }
    }
    sleep(9_900 * MS).await;
    assert_eq!(client.stats().eligible, 6);
    sleep(200 * MS).await;
    assert_eq!(endpoint(&client, 2).admission(), Admission::LeftOut);
    assert_eq!(client.stats().eligible, 5);
    // What was under way there before says nothing new.
    plimsoll::Pick::new(&*endpoint(&client, 2)).finish(Outcome::Success);
    settle().await;
    assert_eq!(client.stats().eligible, 5);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_turned_off() {
    let registry = ScriptedRegistry::with(&named(3));
    let client = builder(&registry)
        .without_failure_accrual()
        .build()
        .await
        .unwrap();
    for _ in 0..100 {
        plimsoll::Pick::new(&*endpoint(&client, 1)).finish(Outcome::Unreachable);
    }
    settle().await;
    assert_eq!(client.stats().eligible, 3);
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_ejects_by_itself_does_so_alone() {
    let zoned = || OutlierEjection::new(LeastLoad::new());
    let level = |_: &plimsoll::Instance| 0;
    let balancers: [Box<dyn Balancer>; 2] = [
        Box::new(OutlierEjection::new(LeastLoad::new())),
        Box::new(plimsoll::balancers::PriorityFailover::new(level, zoned)),
    ];
    for balancer in balancers {
        let registry = ScriptedRegistry::with(&named(3));
        let client = builder(&registry)
            .with_balancer(balancer)
            .build()
            .await
            .unwrap();
        for _ in 0..4 {
            plimsoll::Pick::new(&*endpoint(&client, 1)).finish(Outcome::Unreachable);
        }
        settle().await;
        assert_eq!(endpoint(&client, 1).admission(), Admission::Admitted);
        assert_eq!(client.stats().eligible, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn rules_out_of_range_are_refused_by_name() {
    let registry = ScriptedRegistry::with(&named(1));
    let rules = FailureAccrual::new;
    for (rules, field) in [
        (rules().with_failures(0), "failures"),
        (rules().with_timeouts(0), "timeouts"),
        (rules().with_given_up(0), "given_up"),
        (rules().with_pauses(Duration::ZERO, MS), "first_pause"),
        (rules().with_pauses(2 * MS, MS), "max_pause"),
        (rules().with_interval(Duration::ZERO), "interval"),
        (rules().with_interval(Duration::MAX), "interval"),
        (rules().with_pauses(MS, Duration::MAX), "max_pause"),
    ] {
        let error = builder(&registry)
            .with_failure_accrual(rules)
            .build()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(
            error
                .to_string()
                .contains(&format!("failure_accrual.{field}")),
            "{error}"
        );
    }
    assert_eq!(registry.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_filters_leave_is_what_must_remain() {
    let registry = ScriptedRegistry::with(&named(9));
    let builder = builder(&registry).with_filter(|instance| instance.id().as_str() < "003");
    let client = builder.build().await.unwrap();
    for index in 0..2 {
        for _ in 0..5 {
            plimsoll::Pick::new(&*endpoint(&client, index)).finish(Outcome::Failure);
        }
        settle().await;
    }
    assert_eq!(client.stats().eligible, 2, "two of three, and not one");
}

#[tokio::test(start_paused = true)]
async fn all_that_may_be_picked_being_out_is_an_outage_of_all() {
    let registry = ScriptedRegistry::with(&named(9));
    let builder = builder(&registry).with_filter(|instance| instance.id().as_str() < "003");
    let client = builder.build().await.unwrap();
    for index in 0..3 {
        plimsoll::Pick::new(&*endpoint(&client, index)).finish(Outcome::Unreachable);
    }
    settle().await;
    assert_eq!(client.stats().eligible, 3);
    let first = calls(&client, 9, &[], refused).await;
    assert_eq!(
        first.len(),
        3,
        "each is tried as soon as one is back: {first:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_outlier_that_answers_while_all_others_are_dead_is_back() {
    let client = client(6).await;
    for round in 0..200 {
        for (index, endpoint) in client.endpoints().iter().enumerate() {
            let fails = index == 2 && round % 2 == 0;
            let outcome = if fails {
                Outcome::Failure
            } else {
                Outcome::Success
            };
            plimsoll::Pick::new(&**endpoint).finish(outcome);
        }
    }
    sleep(10_100 * MS).await;
    assert_eq!(endpoint(&client, 2).admission(), Admission::LeftOut);
    for index in [0, 1, 3, 4, 5] {
        plimsoll::Pick::new(&*endpoint(&client, index)).finish(Outcome::Unreachable);
    }
    settle().await;
    let dead = ["000", "001", "003", "004", "005"];
    let first = calls(&client, 1_000, &dead, refused).await;
    assert!(first["002"] >= 990, "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn a_trial_given_up_at_once_is_no_failed_trial() {
    let client = client(3).await;
    calls(&client, 100, &[], refused).await;
    let sick = endpoint(&client, 1);
    plimsoll::Pick::new(&*sick).finish(Outcome::Unreachable);
    sleep(2_001 * MS).await;
    for (waited, admission) in [
        (Duration::ZERO, Admission::OnOffer),
        (MS * 50, Admission::LeftOut),
    ] {
        assert_eq!(sick.admission(), Admission::OnOffer);
        let hang = async |_: Arc<Endpoint>| -> Answer { std::future::pending().await };
        let call = tokio::time::timeout(waited, client.call(&ANY, hang));
        assert!(call.await.is_err());
        settle().await;
        assert_eq!(sick.admission(), admission, "after {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_that_change_nothing_make_no_new_view() {
    let client = client(3).await;
    settle().await;
    let before = client.view();
    let fine = endpoint(&client, 1);
    for _ in 0..100 {
        for outcome in [Outcome::TimedOut, Outcome::Success] {
            plimsoll::Pick::new(&*fine).finish(outcome);
        }
        // Told of, and undecided, as nobody else has answered.
        let now = plimsoll::Clock::now(&TokioClock);
        plimsoll::Pick::new(&*fine).finish_at(Outcome::Cancelled, MS, now);
        sleep(MS).await;
    }
    sleep(11_000 * MS).await;
    assert!(Arc::ptr_eq(&before, &client.view()));
}
