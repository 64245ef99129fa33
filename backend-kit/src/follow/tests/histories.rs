//! Registries that were set back, wiped, or begun.

use std::time::Duration;

use plimsoll_discovery_api::{Registry, Status};
use tokio::time::{Instant, sleep};

use super::scenarios::{SECOND, ids, lost, next, watched};
use super::source::{Scripted, entry, service};
use crate::{Backend, Departure};

#[tokio::test(start_paused = true)]
async fn an_answer_from_the_past_is_not_believed_unless_the_registry_insists() {
    let (script, _backend, mut watch) = watched(&["a", "b"]).await;
    let truth = script.source().counter;
    {
        let mut source = script.source();
        source.counter = 1;
        source.entries.remove("b");
        source.cut(Some(lost()));
    }
    let stale = next(&mut watch).await;
    assert_eq!(
        (ids(&stale), stale.freshness().is_live()),
        (vec!["a", "b"], false)
    );
    while script.source().subscriptions.len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        ids(&watch.latest().unwrap()),
        ["a", "b"],
        "one lagging replica changes nothing"
    );
    assert!(truth > 1);
    // It keeps saying so: it was itself set back.
    watch
        .wait_for(|snapshot| ids(snapshot) == ["a"])
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_epoch_replaces_everything_whatever_its_counter() {
    let (script, _backend, mut watch) = watched(&["a"]).await;
    {
        let mut source = script.source();
        source.epoch += 1;
        source.counter = 0;
        source.entries.clear();
        source.entries.insert("z".to_owned(), entry("z", 100));
        source.cut(None);
    }
    watch
        .wait_for(|s| s.freshness().is_live() && s.get("z").is_some())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wiped_registry_empties_no_list_while_its_servers_return() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let (script, _backend, mut watch) = watched(&names).await;
    script.source().entries.clear();
    script.source().epoch += 1;
    script.source().cut(None);
    let held = watch
        .wait_for(|s| {
            s.members()
                .iter()
                .all(|member| !member.standing().is_registered())
        })
        .await
        .unwrap();
    assert_eq!(
        (ids(&held), held.freshness().is_live()),
        (names.to_vec(), true)
    );
    for name in names {
        sleep(SECOND).await;
        script.source().put(entry(name, 100));
    }
    let back = watch
        .wait_for(|s| {
            s.members()
                .iter()
                .all(|member| member.standing().is_registered())
        })
        .await
        .unwrap();
    assert_eq!(ids(&back), names);
    sleep(2 * script.timings.hold_down.grace).await;
    assert_eq!(ids(&watch.latest().unwrap()), names);
}

#[tokio::test(start_paused = true)]
async fn replicas_that_lag_for_a_moment_are_not_believed_however_often_they_are_asked() {
    let (script, _backend, mut watch) = watched(&["a", "b"]).await;
    let (truth, there) = (script.source().counter, entry("b", 100));
    {
        let mut source = script.source();
        source.counter = 1;
        source.entries.remove("b");
        source.cut(Some(lost()));
    }
    next(&mut watch).await;
    let asked = script.source().subscriptions.len();
    let since = Instant::now();
    while script.source().subscriptions.len() < asked + 3 {
        sleep(Duration::from_millis(1)).await;
        assert_eq!(ids(&watch.latest().unwrap()), ["a", "b"]);
    }
    assert!(since.elapsed() < 2 * SECOND, "{:?}", since.elapsed());
    {
        let mut source = script.source();
        source.counter = truth;
        source.entries.insert("b".to_owned(), there);
    }
    sleep(5 * SECOND).await;
    let live = watch.latest().unwrap();
    assert_eq!(
        (ids(&live), live.freshness().is_live()),
        (vec!["a", "b"], true)
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_was_leaving_is_missed_by_nobody_in_a_new_history() {
    let (script, _backend, mut watch) = watched(&["a", "b"]).await;
    let mut leaving = entry("b", 100);
    leaving.instance = leaving.instance.with_status(Status::Draining);
    script.source().put(leaving);
    next(&mut watch).await;
    {
        let mut source = script.source();
        source.entries.remove("b");
        source.epoch += 1;
        source.cut(None);
    }
    let at = Instant::now();
    let after = watch.wait_for(|s| s.get("b").is_none()).await.unwrap();
    assert_eq!(ids(&after), ["a"]);
    assert!(at.elapsed() < SECOND, "{:?}", at.elapsed());
}

/// Somebody who watches before anything was ever registered.
#[tokio::test(start_paused = true)]
async fn the_beginning_of_a_history_makes_nobody_suspect() {
    let script = Scripted::new();
    script.source().epoch = 0;
    let backend = Backend::new(script.clone());
    let mut watch = backend.watch(&service()).await.unwrap();
    assert!(next(&mut watch).await.members().is_empty());
    for id in ["a", "b", "c", "d", "e", "f"] {
        script.source().put(entry(id, 100));
    }
    watch.wait_for(|s| s.members().len() == 6).await.unwrap();
    {
        let mut source = script.source();
        source.mute = true;
        source.remove("a", Departure::Unannounced);
        source.mute = false;
        source.epoch = 1;
        source.cut(None);
    }
    let at = Instant::now();
    let after = watch.wait_for(|s| s.get("a").is_none()).await.unwrap();
    assert_eq!(after.members().len(), 5);
    assert!(at.elapsed() < script.timings.hold_down.grace / 2);
}
