//! A server whose store is full takes no writes, and leases live on.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::time::{Duration, Instant};

use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
use plimsoll_discovery_api::{ErrorKind, Registry};
use plimsoll_test_servers::Mode;
use plimsoll_test_servers::probe::{eventually, ids, life, load_of, ready, shown, state};
use tokio::time::sleep;

use support::harness::TTL;
use support::operator::{fence, identity, load};
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
        let named = load(&stage.service, "a");
        assert!(refused.to_string().contains(&named), "{refused}");
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
        state(&waiting, "the key that is refused", |s| {
            let (full, key) = (ErrorKind::ResourceExhausted, identity(&stage.service, "c"));
            s.cause().is_some_and(|cause| cause.kind() == full && cause.to_string().contains(&key))
        })
        .await;
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

fault! {
    /// The first attempt to register may be on its way still. That can be made void only by a write,
    /// which must wait; the instance must not.
    async fn whoever_leaves_a_full_store_is_gone_though_a_claim_is_in_doubt(stage: Stage, "--quota-backend-bytes=8388608") {
        // With this there is a lease, so that the first request is the one that counts.
        let _other = stage.live("z").await;
        stage.proxy.set(Mode::HoldReplies);
        let leaving = register(&stage.provider, "a").await;
        state(&leaving, "an attempt without an answer", |s| s.cause().is_some()).await;
        stage.proxy.set(Mode::Pass);
        ready(&leaving).await;
        assert!(stage.key("a").await.is_some());
        let fence = fence(stage.provider.lease_id().unwrap());
        exhaust(&stage).await;
        let refused = leaving.deregister().await.unwrap_err();
        assert_eq!(stage.key("a").await.map(|kv| kv.mod_revision()), None, "{refused}");
        assert!(stage.operator.get(&fence).await.is_none(), "what is void is not known to be");
        relieve(&stage).await;
        eventually("the fence", || stage.operator.get(&fence)).await;
        leaving.deregister().await.unwrap();
    }
}
