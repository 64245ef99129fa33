//! A server whose store is full takes no writes, and leases live on.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::time::{Duration, Instant};

use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
use plimsoll_discovery_api::{ErrorKind, LoadUpdater, Registry};
use plimsoll_test_servers::probe::{eventually, ids, life, load_of, shown};
use tokio::time::sleep;

use support::harness::TTL;
use support::stage::{Stage, register};

/// Writes until the alarm is raised.
async fn exhaust(stage: &Stage) {
    let mut kv = stage.operator.0.kv_client();
    let value = vec![b'x'; 512 * 1024];
    for number in 0..200 {
        if kv
            .put(format!("ballast/{number}"), value.clone(), None)
            .await
            .is_err()
        {
            return;
        }
    }
    panic!("the store does not fill up");
}

async fn relieve(stage: &Stage) {
    let mut kv = stage.operator.0.kv_client();
    let all = etcd_client::DeleteOptions::new().with_prefix();
    kv.delete("ballast/", Some(all)).await.unwrap();
    stage.operator.compact().await;
    let mut maintenance = stage.operator.0.maintenance_client();
    maintenance.defragment().await.unwrap();
    let raised = maintenance
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await;
    for alarm in raised.unwrap().alarms() {
        let mut of_member = AlarmOptions::new();
        of_member.with_member(alarm.member_id());
        let (off, space) = (AlarmAction::Deactivate, AlarmType::Nospace);
        maintenance
            .alarm(off, space, Some(of_member))
            .await
            .unwrap();
    }
}

fault! {
    async fn a_full_store_costs_no_life_and_load_resumes_when_there_is_space(stage: Stage, "--quota-backend-bytes=8388608") {
        let registration = stage.live("a").await;
        let leaving = stage.live("b").await;
        let mut watch = stage.watch().await;
        shown(&mut watch, "both", |s| ids(s) == ["a", "b"]).await;
        let (before, key) = (life(&registration), stage.key("a").await.unwrap());
        exhaust(&stage).await;
        registration.load().set(41);
        let refused = registration.load().flush().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceExhausted);
        // Twice as long as a lease that was given up with the first failed write would last.
        let until = Instant::now() + TTL + TTL;
        while Instant::now() < until {
            assert!(registration.state().is_live(), "{:?}", registration.state());
            assert_eq!(stage.key("a").await.map(|kv| kv.lease()), Some(key.lease()));
            sleep(Duration::from_millis(100)).await;
        }
        // Nobody new gets in, and whoever wants to leave does.
        let waiting = register(&stage.provider, "c").await;
        leaving.deregister().await.unwrap();
        eventually("the key to go", || async { stage.key("b").await.is_none().then_some(()) }).await;
        assert!(!waiting.state().is_live());
        registration.load().set(42);
        relieve(&stage).await;
        shown(&mut watch, "all that is wanted", |s| {
            ids(s) == ["a", "c"] && load_of(s, "a") == Some(42)
        })
        .await;
        assert_eq!(life(&registration), before);
        assert_eq!(stage.consumer.services().await.unwrap(), [stage.service.clone()]);
    }
}
