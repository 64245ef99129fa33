//! Who is there, where loads cannot be read or lists are slow.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plimsoll_discovery_api::{Registry, ServiceName};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, load_of};
use tokio::time::{sleep, timeout};

use support::fake::{Answer, Asked, Fake};
use support::harness::builder;
use support::operator::base64;

fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

const LIFE: &str = "00112233445566778899aabbccddeeff";

/// An entry of each of these, as plimsoll writes it.
fn entries(ids: &[&str]) -> String {
    let entry = |id: &&str| {
        format!(
            r#"{{"Node":{{"Node":"n","Address":"10.0.0.1"}},"Checks":[{{"CheckID":"service:orders:{id}:{LIFE}","Status":"passing"}}],
                "Service":{{"ID":"orders:{id}:{LIFE}","Service":"orders","Port":80,"ModifyIndex":1,"CreateIndex":1,
                    "Meta":{{"plimsoll-schema":"1","plimsoll-id":"{id}","plimsoll-incarnation":"{LIFE}"}}}}}}"#
        )
    };
    let entries: Vec<_> = ids.iter().map(entry).collect();
    format!("[{}]", entries.join(","))
}

/// The load of each of them.
fn loads(ids: &[&str], load: u64) -> Answer {
    let pair = |id: &&str| {
        let value = base64(&format!("{LIFE} {load} {load}"));
        format!(
            r#"{{"Key":"plimsoll-test/load/orders/{id}","Value":"{value}","Session":"s","ModifyIndex":{load}}}"#
        )
    };
    let pairs: Vec<_> = ids.iter().map(pair).collect();
    Answer::at(9, &format!("[{}]", pairs.join(",")))
}

fn is_of_loads(asked: &Asked) -> bool {
    asked.target.starts_with("/v1/kv/")
}

fn blocks(asked: &Asked) -> bool {
    asked.query("index").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_that_cannot_be_read_are_kept_and_nobodys_coming_or_going_waits_for_them() {
    let changed = Arc::new(AtomicUsize::new(0));
    let change = Arc::clone(&changed);
    let health = move |asked: &Asked| {
        if !blocks(asked) {
            return Answer::at(100, &entries(&["a"]));
        }
        let asked_at = change.load(Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(1);
        while change.load(Ordering::Relaxed) == 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        if asked_at > 0 {
            std::thread::sleep(Duration::from_millis(500));
        }
        match change.load(Ordering::Relaxed) {
            0 => Answer::at(100, &entries(&["a"])),
            _ => Answer::at(101, &entries(&["a", "b"])),
        }
    };
    let good = health.clone();
    let fake = Fake::start(move |asked| match is_of_loads(asked) {
        true => loads(&["a"], 7),
        false => good(asked),
    });
    let registry = builder(fake.address()).build().unwrap();
    let watch = registry.watch(&service()).await.unwrap();
    eventually("it with its load", || async {
        watch.latest().filter(|s| load_of(s, "a") == Some(7))
    })
    .await;
    let refused = health.clone();
    fake.set(move |asked| match is_of_loads(asked) {
        true => Answer::new(500, "rpc error making call: EOF"),
        false => refused(asked),
    });
    let first = fake.asked().len();
    eventually("ten reads that failed", || async {
        assert!(watch.latest().is_some_and(|s| s.freshness().is_live()));
        let asked = fake.asked().split_off(first);
        (asked.iter().filter(|asked| is_of_loads(asked)).count() >= 10).then_some(())
    })
    .await;
    changed.store(1, Ordering::Relaxed);
    let both = eventually("both of them", || async {
        watch.latest().filter(|s| ids(s) == ["a", "b"])
    })
    .await;
    assert!(both.freshness().is_live());
    assert_eq!(load_of(&both, "a"), Some(7), "the last that was known");
    let asked = fake.asked().split_off(first);
    let listed = |asked: &&Asked| !is_of_loads(asked) && !blocks(asked);
    assert_eq!(
        asked.iter().filter(listed).count(),
        0,
        "it was never read anew"
    );
    fake.set(move |asked| match is_of_loads(asked) {
        true => loads(&["a", "b"], 8),
        false => health(asked),
    });
    eventually("loads again", || async {
        watch
            .latest()
            .filter(|s| load_of(s, "a") == Some(8) && load_of(s, "b") == Some(8))
    })
    .await;
}

/// Longer than a list may take by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_may_take_as_long_as_a_request_may() {
    let fake = Fake::start(|asked| {
        if !is_of_loads(asked) {
            std::thread::sleep(Duration::from_millis(4_500));
        }
        match is_of_loads(asked) {
            true => loads(&["a"], 7),
            false => Answer::at(100, &entries(&["a"])),
        }
    });
    let patient = builder(fake.address()).with_request_timeout(Duration::from_secs(15));
    let patient = patient.build().unwrap();
    let watch = patient.watch(&service()).await.unwrap();
    let listed = patient.list(&service()).await.unwrap();
    assert_eq!((ids(&listed), load_of(&listed, "a")), (vec!["a"], Some(7)));
    eventually("it in the watch", || async {
        watch.latest().filter(|s| ids(s) == ["a"])
    })
    .await;
    let hasty = builder(fake.address()).build().unwrap();
    let late = hasty.list(&service()).await.unwrap_err();
    assert_eq!(
        late.kind(),
        plimsoll_discovery_api::ErrorKind::TimedOut,
        "{late}"
    );
}

/// So large a service that to make sense of it takes a while, and which never rests. What that takes
/// is known from lists, which nothing holds back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_a_large_service_that_never_rests_leaves_most_of_a_processor_to_others() {
    const ANSWERS: u32 = 6;
    let ids: Vec<String> = (0..12_000).map(|id| format!("i{id}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let body = entries(&ids);
    let index = AtomicUsize::new(1);
    let fake = Fake::start(move |asked| match is_of_loads(asked) {
        true => Answer::at(1, "[]"),
        false => Answer::at(index.fetch_add(1, Ordering::Relaxed) as u64, &body),
    });
    let registry = builder(fake.address()).with_request_timeout(Duration::from_secs(20));
    let registry = registry.build().unwrap();
    let mut cost = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let listed = registry.list(&service()).await.unwrap();
        cost = cost.min(began.elapsed());
        assert_eq!(listed.members().len(), ids.len());
    }
    let watch = registry.watch_members(&service()).await.unwrap();
    eventually("all of them", || async {
        watch
            .latest()
            .filter(|s| s.members().len() == ids.len())
            .map(drop)
    })
    .await;
    // What was saved up is spent by the first of them.
    let first = fake.asked().len() + 1;
    let last = first + ANSWERS as usize;
    // Each takes some five times what the work does, on this machine as it is now.
    let patience = PATIENCE.max(cost * 20 * ANSWERS);
    let answers = async {
        while fake.asked().len() <= last {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(patience, answers).await.expect("some answers");
    let asked = fake.asked();
    let took = asked[last].at - asked[first].at;
    println!("{ANSWERS} answers in {took:?}; a list takes {cost:?}");
    assert!(cost > Duration::from_millis(100), "{cost:?} is no work");
    // Five times, and once for the work itself, but for what a list takes and a watch does not, and
    // for what else this machine did while the lists were timed. Without its share it is once.
    assert!(
        took > cost * 3 / 2 * ANSWERS,
        "{ANSWERS} in {took:?}, of {cost:?} each"
    );
}
