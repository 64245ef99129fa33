//! Random churn over a faulty stream: the view converges to the truth, and never shows what the
//! registry did not hold.

use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Registry, Rng};
use proptest::prelude::*;
use tokio::time::sleep;

use super::source::{Scripted, entry, service};
use crate::{Backend, Change, Departure};

#[derive(Clone, Debug)]
enum Step {
    Put(usize, u32),
    Remove(usize, bool),
    Run(u32),
    Mute(bool),
    Cut(bool),
    Down(bool),
    NewEpoch,
    AskForLoads,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..8, 0_u32..5).prop_map(|(id, weight)| Step::Put(id, weight)),
        4 => (0_usize..8, any::<bool>()).prop_map(|(id, graceful)| Step::Remove(id, graceful)),
        6 => (0_u32..3_000).prop_map(Step::Run),
        // Less than changes are gathered for.
        3 => (0_u32..60).prop_map(Step::Run),
        1 => Just(Step::AskForLoads),
        1 => any::<bool>().prop_map(Step::Mute),
        1 => any::<bool>().prop_map(Step::Cut),
        1 => any::<bool>().prop_map(Step::Down),
        1 => Just(Step::NewEpoch),
    ]
}

fn take(step: &Step, script: &Scripted) {
    let mut source = script.source();
    match *step {
        Step::Put(id, weight) => source.put(entry(&id.to_string(), weight)),
        Step::Remove(id, graceful) => {
            let how = if graceful {
                Departure::Graceful
            } else {
                Departure::Unannounced
            };
            source.remove(&id.to_string(), how);
        }
        Step::Run(_) | Step::AskForLoads => {}
        Step::Mute(mute) => source.mute = mute,
        Step::Cut(clean) => {
            let lost = Error::new(ErrorKind::Unavailable, "scripted: connection lost");
            source.cut((!clean).then_some(lost));
        }
        Step::Down(down) => {
            source.down = down;
            if down {
                source.cut(None);
            }
        }
        Step::NewEpoch => {
            source.epoch += 1;
            source.counter = 0;
            source.cut(None);
        }
    }
}

async fn converges(seed: u64, steps: Vec<Step>) {
    let script = Scripted::new();
    let backend = Backend::with_rng(script.clone(), Rng::from_seed(seed));
    let watch = backend.watch_members(&service()).await.unwrap();
    let mut other = watch.clone();
    for step in steps {
        take(&step, &script);
        match step {
            Step::Run(n) => sleep(Duration::from_millis(n.into())).await,
            Step::AskForLoads => other = backend.watch(&service()).await.unwrap(),
            _ => {}
        }
    }
    take(&Step::Mute(false), &script);
    take(&Step::Down(false), &script);
    script.source().tell(Change::Progress);
    // The longest pause between attempts, the watchdog, the grace of suspects.
    let bound = script.timings.backoff.cap
        + script.timings.idle.unwrap_or_default()
        + script.timings.hold_down.grace;
    for _ in 0..=bound.as_secs() {
        sleep(Duration::from_secs(1)).await;
        script.source().tell(Change::Progress);
    }
    sleep(Duration::from_secs(1)).await;
    let seen = watch.latest().expect("seen by now");
    assert!(seen.freshness().is_live());
    let shown: Vec<_> = seen
        .members()
        .iter()
        .map(|m| (m.id().to_string(), m.instance().weight().get()))
        .collect();
    let truth: Vec<_> = script
        .source()
        .entries
        .iter()
        .map(|(id, entry)| (id.clone(), entry.instance.weight().get()))
        .collect();
    assert_eq!(shown, truth);
    assert!(
        seen.members()
            .iter()
            .all(|member| member.standing().is_registered())
    );
    assert!(std::sync::Arc::ptr_eq(&seen, &other.latest().unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_view_converges_to_the_truth(
        seed: u64,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(converges(seed, steps));
    }
}
