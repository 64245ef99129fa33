//! More than the registry is able to answer.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::server::{Crowd, LIMIT, Server, admission, unbounded};
use crate::admission::Class;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// One that does one thing after the other; one that does many at a time; one that is far away.
fn servers() -> [(&'static str, Server); 3] {
    [
        ("one by one", Server::new(1, MILLI * 5, MILLI / 4)),
        ("many at a time", Server::new(8, MILLI * 40, MILLI)),
        ("far away", Server::new(4, MILLI * 20, MILLI * 40)),
    ]
}

/// So many that all of them at once would wait for ten times the limit.
fn ten_times(server: &Server) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few thousand"
    )]
    let count = (server.capacity() * LIMIT.as_secs_f64()) as usize;
    count * 10
}

#[tokio::test(start_paused = true)]
async fn at_ten_times_the_load_four_fifths_of_the_capacity_come_to_good_use() {
    for (name, server) in servers() {
        let crowd = Crowd::of(ten_times(&server), &admission(), Class::Claim, &server);
        // From the beginning, and for good.
        for _ in 0..5 {
            let goodput = crowd.goodput(&server, SECOND * 10).await;
            assert!(goodput >= 0.8, "{name}: {goodput}");
        }
    }
}

/// That the server of these tests collapses, unless something is done about it.
#[tokio::test(start_paused = true)]
async fn without_admission_the_same_load_comes_to_nothing() {
    let (_, server) = &servers()[0];
    let crowd = Crowd::of(ten_times(server), &unbounded(), Class::Claim, server);
    crowd.goodput(server, SECOND * 20).await;
    let goodput = crowd.goodput(server, SECOND * 20).await;
    assert!(goodput < 0.2, "{goodput}");
}

#[tokio::test(start_paused = true)]
async fn a_server_slowed_to_a_twentieth_is_used_to_the_full_and_so_it_is_when_it_is_back() {
    for (name, server) in servers() {
        let (usual, admission) = (server.service_time(), admission());
        let crowd = Crowd::of(ten_times(&server), &admission, Class::Claim, &server);
        crowd.goodput(&server, SECOND * 5).await;
        server.take(usual * 20);
        // At first it is taken for one that has a queue.
        let at_once = crowd.goodput(&server, SECOND * 30).await;
        sleep(SECOND * 60).await;
        let later = crowd.goodput(&server, SECOND * 60).await;
        assert!(
            at_once >= 0.5 && later >= 0.8,
            "{name}, slowed: {at_once}, {later}"
        );
        server.take(usual);
        sleep(SECOND * 2).await;
        let back = crowd.goodput(&server, SECOND * 5).await;
        assert!(back >= 0.8, "{name}, back: {back}");
    }
}

/// A tenth of a second's work is queued, and what the last doubling was too much.
#[tokio::test(start_paused = true)]
async fn the_queue_at_the_registry_stays_short_however_many_wait() {
    let server = Server::new(1, MILLI * 5, MILLI / 4);
    let _crowd = Crowd::of(ten_times(&server), &admission(), Class::Claim, &server);
    sleep(SECOND * 5).await;
    let _first = server.longest_queue();
    sleep(SECOND * 100).await;
    let longest = server.longest_queue();
    assert!((4..=40).contains(&longest), "{longest}");
}

#[tokio::test(start_paused = true)]
async fn what_keeps_leases_alive_waits_behind_no_claim_and_no_load() {
    for (name, server) in servers() {
        let (usual, admission) = (server.service_time(), admission());
        let _claims = Crowd::of(ten_times(&server), &admission, Class::Claim, &server);
        let _loads = Crowd::of(1_000, &admission, Class::Load, &server);
        for slowdown in [1, 20] {
            server.take(usual * slowdown);
            sleep(SECOND * 10).await;
            for _ in 0..200 {
                let asked = Instant::now();
                let permit = admission.enter(Class::Liveness).await;
                assert_eq!(
                    asked.elapsed(),
                    Duration::ZERO,
                    "{name}: it is sent at once"
                );
                permit.run(LIMIT, server.ask()).await.expect("in time");
                sleep(MILLI * 50).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_keepalives_at_once_go_before_all_claims_that_wait() {
    let server = Server::new(1, MILLI, MILLI / 4);
    let admission = admission();
    let claims = Crowd::of(5_000, &admission, Class::Claim, &server);
    sleep(SECOND).await;
    let before = claims.answered();
    let keepalives = Crowd::of(1_000, &admission, Class::Liveness, &server);
    sleep(SECOND * 2).await;
    let (others, own) = (claims.answered() - before, keepalives.answered());
    assert!(own >= 1_000, "{own}");
    assert!(
        others <= 300,
        "{others} claims went before, beyond those that were under way"
    );
}

#[tokio::test(start_paused = true)]
async fn loads_wait_for_claims_and_have_what_they_leave() {
    let server = Server::new(1, MILLI, MILLI / 4);
    let admission = admission();
    let claims = Crowd::of(2_000, &admission, Class::Claim, &server);
    let loads = Crowd::of(2_000, &admission, Class::Load, &server);
    sleep(SECOND * 10).await;
    assert!(loads.answered() <= 16, "{}", loads.answered());
    drop(claims);
    sleep(SECOND).await;
    assert!(loads.goodput(&server, SECOND * 5).await >= 0.8);
}

#[tokio::test(start_paused = true)]
async fn lists_take_turns_with_claims() {
    let server = Server::new(1, MILLI, MILLI / 4);
    let admission = admission();
    let _claims = Crowd::of(10_000, &admission, Class::Claim, &server);
    sleep(SECOND).await;
    let asked = Instant::now();
    let list = admission.call(Class::Other, LIMIT, server.ask());
    list.await.expect("an answer");
    assert!(asked.elapsed() < SECOND / 2, "{:?}", asked.elapsed());
}

/// Each has a third at least, whoever came first.
#[tokio::test(start_paused = true)]
async fn handles_share_a_registry_without_starving_each_other() {
    let server = Server::new(1, MILLI * 5, MILLI / 4);
    let first = Crowd::of(1_000, &admission(), Class::Claim, &server);
    sleep(SECOND * 20).await;
    let second = Crowd::of(1_000, &admission(), Class::Claim, &server);
    sleep(SECOND * 20).await;
    let before = (first.answered(), second.answered());
    sleep(SECOND * 120).await;
    let (one, other) = (first.answered() - before.0, second.answered() - before.1);
    assert!(one + other >= 19_200, "{one} and {other}");
    assert!(
        one.min(other) * 3 >= (one + other) * 8 / 10,
        "{one} and {other}"
    );
}

/// A fleet that starts as one: two hundred processes at a registry that was just started.
#[tokio::test(start_paused = true)]
async fn two_hundred_handles_at_once_are_answered_at_the_speed_of_the_registry() {
    let server = Server::new(1, MILLI, MILLI / 4);
    let crowds: Vec<_> = (0..200)
        .map(|_| Crowd::of(20, &admission(), Class::Claim, &server))
        .collect();
    sleep(SECOND * 10).await;
    let answered: usize = crowds.iter().map(Crowd::answered).sum();
    assert!(answered >= 8_000, "{answered}");
    assert!(crowds.iter().all(|crowd| crowd.answered() > 0));
}

/// Each claim takes longer than a claim has: with the usual limit none would ever be made.
#[tokio::test(start_paused = true)]
async fn claims_that_take_longer_than_their_limit_are_given_more_time() {
    let server = Server::new(4, LIMIT.mul_f64(1.5), MILLI);
    let admission = admission();
    let crowd = Crowd::of(4, &admission, Class::Claim, &server);
    sleep(SECOND * 60).await;
    assert!(crowd.answered() > 8, "{}", crowd.answered());
    server.take(MILLI);
    sleep(SECOND * 30).await;
    assert_eq!(admission.patience(LIMIT), LIMIT);
}

/// A process that only watches: nothing of what it asks for is judged by its time.
#[tokio::test(start_paused = true)]
async fn lists_alone_come_to_the_capacity_too_and_come_back_to_it() {
    let server = Server::new(64, MILLI * 100, MILLI);
    let crowd = Crowd::of(1_000, &admission(), Class::Other, &server);
    sleep(SECOND * 10).await;
    let goodput = crowd.goodput(&server, SECOND * 10).await;
    assert!(goodput >= 0.8, "{goodput}");
    server.take(LIMIT * 2);
    sleep(SECOND * 60).await;
    server.take(MILLI * 100);
    sleep(SECOND * 20).await;
    let goodput = crowd.goodput(&server, SECOND * 10).await;
    assert!(goodput >= 0.8, "back: {goodput}");
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_waits_for_no_list_and_no_claim() {
    let server = Server::new(1, MILLI * 50, MILLI);
    let admission = admission();
    let _lists = Crowd::of(2_000, &admission, Class::Other, &server);
    let _claims = Crowd::of(2_000, &admission, Class::Claim, &server);
    sleep(SECOND * 10).await;
    let asked = Instant::now();
    let removal = admission.call(Class::Removal, LIMIT, server.ask());
    removal.await.expect("an answer");
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
}
