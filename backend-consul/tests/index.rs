//! What a watch makes of indexes that no agent of sound mind would give.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plimsoll_backend_consul::Consistency;
use plimsoll_discovery_api::{ErrorKind, Registry, ServiceName};
use plimsoll_test_servers::probe::{eventually, ids};
use tokio::time::sleep;

use support::fake::{Answer, Asked, Fake};
use support::harness::builder;

fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

/// The entries of these instances, which plimsoll will take for those of another program.
fn entries(ids: &[&str]) -> String {
    let entry = |id: &&str| {
        format!(
            r#"{{"Node":{{"Node":"n","Address":"10.0.0.1"}},"Checks":[{{"Status":"passing"}}],
                "Service":{{"ID":"{id}","Service":"orders","Port":80,"ModifyIndex":1,"CreateIndex":1}}}}"#
        )
    };
    let entries: Vec<_> = ids.iter().map(entry).collect();
    format!("[{}]", entries.join(","))
}

fn blocks(asked: &Asked) -> bool {
    asked.query("index").is_some()
}

/// Holds the answer back for a second, as an agent does while nothing changes.
fn after_a_while(answer: Answer) -> Answer {
    std::thread::sleep(Duration::from_secs(1));
    answer
}

/// How many requests there were in the last so many seconds of a watch that has begun.
async fn asked_within(fake: &Fake, span: Duration) -> usize {
    let started = Instant::now();
    sleep(span).await;
    fake.asked()
        .iter()
        .filter(|asked| asked.at >= started)
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_zero_is_never_asked_with_and_never_makes_a_hot_loop() {
    let fake = Fake::start(|_| Answer::at(0, &entries(&["a"])));
    let registry = builder(fake.address()).build().unwrap();
    let watch = registry.watch_members(&service()).await.unwrap();
    eventually("it", || async {
        watch.latest().filter(|s| ids(s) == ["n/a"])
    })
    .await;
    let asked = asked_within(&fake, Duration::from_secs(4)).await;
    // Five at once, and five a second.
    assert!((3..=5 * 4 + 6).contains(&asked), "{asked} queries in 4 s");
    let indexes: Vec<_> = fake
        .asked()
        .iter()
        .filter_map(|a| a.query("index").map(str::to_owned))
        .collect();
    assert!(
        !indexes.is_empty() && indexes.iter().all(|index| index == "1"),
        "{indexes:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_changes_nothing_is_told_to_nobody_and_costs_five_queries_a_second_at_most()
{
    let fake = Fake::start(|_| Answer::at(7, &entries(&["a"])));
    let registry = builder(fake.address()).build().unwrap();
    let mut watch = registry.watch_members(&service()).await.unwrap();
    assert_eq!(ids(&watch.next().await.unwrap()), ["n/a"]);
    let told = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&told);
    let listening = tokio::spawn(async move {
        while watch.next().await.is_some() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let asked = asked_within(&fake, Duration::from_secs(4)).await;
    assert!((3..=5 * 4 + 6).contains(&asked), "{asked} queries in 4 s");
    assert_eq!(told.load(Ordering::Relaxed), 0);
    listening.abort();
}

/// As after a restored snapshot: what is blocked on would come when the index is reached again, which
/// may take days.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_goes_back_is_followed_from_where_it_is() {
    let fake = Fake::start(|asked| match asked.query("index") {
        None => Answer::at(100, &entries(&["a"])),
        Some(_) => after_a_while(Answer::at(100, &entries(&["a"]))),
    });
    let registry = builder(fake.address()).build().unwrap();
    let watch = registry.watch_members(&service()).await.unwrap();
    let before = eventually("the first", || async {
        watch.latest().filter(|s| ids(s) == ["n/a"])
    })
    .await;
    fake.set(|asked| match asked.query("index").map(str::parse) {
        None => Answer::at(40, &entries(&["a", "b"])),
        // What it waits for is in the future of the restored data.
        Some(Ok(41..)) => after_a_while(Answer::at(40, &entries(&["a", "b"]))),
        Some(_) => after_a_while(Answer::at(41, &entries(&["a", "b", "c"]))),
    });
    let set = Instant::now();
    let after = eventually("what there is now", || async {
        watch
            .latest()
            .filter(|s| s.freshness().is_live() && ids(s) == ["n/a", "n/b", "n/c"])
    })
    .await;
    assert!(
        set.elapsed() < Duration::from_secs(8),
        "{:?}",
        set.elapsed()
    );
    assert_ne!(after.revision().epoch(), before.revision().epoch());
    let later: Vec<_> = fake
        .asked()
        .into_iter()
        .filter(|asked| asked.at > set && blocks(asked))
        .collect();
    assert!(
        later.iter().any(|asked| asked.query("index") == Some("40")),
        "{later:?}"
    );
}

/// Two servers behind one address, each with a history of its own: nobody can follow that, but it
/// must not become a storm either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_that_go_back_and_forth_are_asked_for_ever_more_slowly() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |_| match turn.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => Answer::at(900, &entries(&["a"])),
        _ => Answer::at(100, &entries(&["b"])),
    });
    let registry = builder(fake.address()).build().unwrap();
    let watch = registry.watch_members(&service()).await.unwrap();
    eventually("anything", || async { watch.latest() }).await;
    sleep(Duration::from_secs(2)).await;
    // The harness caps the delay at half a second, a quarter on average; each round is a list and a
    // query.
    let asked = asked_within(&fake, Duration::from_secs(5)).await;
    assert!((2..=5 * 2 * 8).contains(&asked), "{asked} queries in 5 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lags_is_asked_again_and_nobody_seems_to_leave() {
    let lag = Arc::new(AtomicUsize::new(0));
    let lags = Arc::clone(&lag);
    let fake = Fake::start(move |asked| {
        let lagging = lags.load(Ordering::Relaxed) > 0 && lags.fetch_sub(1, Ordering::Relaxed) > 0;
        match (lagging, blocks(asked)) {
            (true, _) => Answer::at(90, &entries(&["a"])),
            (false, false) => Answer::at(100, &entries(&["a", "b"])),
            (false, true) => after_a_while(Answer::at(100, &entries(&["a", "b"]))),
        }
    });
    let registry = builder(fake.address())
        .with_consistency(Consistency::Stale)
        .build()
        .unwrap();
    let watch = registry.watch_members(&service()).await.unwrap();
    let before = eventually("both", || async {
        watch.latest().filter(|s| ids(s) == ["n/a", "n/b"])
    })
    .await;
    let mut seen = watch.clone();
    let witness = tokio::spawn(async move {
        let mut fewest = usize::MAX;
        while let Some(snapshot) = seen.next().await {
            let registered = snapshot
                .members()
                .iter()
                .filter(|m| m.standing().is_registered());
            fewest = fewest.min(registered.count());
            if snapshot.get("n/c").is_some() {
                break;
            }
        }
        fewest
    });
    // The query and the two lists after it are answered by the one that lags.
    lag.store(3, Ordering::Relaxed);
    eventually("its answers to be over", || async {
        (lag.load(Ordering::Relaxed) == 0).then_some(())
    })
    .await;
    let after = eventually("both, live", || async {
        watch
            .latest()
            .filter(|s| s.freshness().is_live() && ids(s) == ["n/a", "n/b"])
    })
    .await;
    assert_eq!(
        after.revision().epoch(),
        before.revision().epoch(),
        "one history"
    );
    fake.set(|_| after_a_while(Answer::at(101, &entries(&["a", "b", "c"]))));
    assert_eq!(witness.await.unwrap(), 2, "somebody seemed to leave");
    let asked = fake.asked();
    assert!(
        asked.iter().all(|asked| asked.target.contains("stale")),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_an_index_is_not_one_that_can_be_followed() {
    let fake = Fake::start(|_| Answer::new(200, &entries(&["a"])));
    let registry = builder(fake.address()).build().unwrap();
    let refused = registry.list(&service()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    let watch = registry.watch_members(&service()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let asked = asked_within(&fake, Duration::from_secs(4)).await;
    assert!((1..=5).contains(&asked), "{asked} queries in 4 s");
    assert!(watch.latest().is_none());
    fake.set(|asked| match blocks(asked) {
        false => Answer::at(5, &entries(&["a"])),
        true => after_a_while(Answer::at(5, &entries(&["a"]))),
    });
    eventually("it", || async {
        watch.latest().filter(|s| ids(s) == ["n/a"])
    })
    .await;
}
