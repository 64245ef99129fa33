//! Users, passwords, and tokens that run out.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Permission, RoleRevokePermissionOptions};
use plimsoll_backend_etcd::{Credential, EtcdRegistry};
use plimsoll_discovery_api::{Error, ErrorKind, RegistrationState, Registry, Status};
use plimsoll_test_servers::probe::{
    PATIENCE, eventually, ids, life, load_of, new_life, ready, shown, state,
};
use tokio::time::{sleep, timeout};

use support::harness::{TTL, builder};
use support::operator::{PREFIX, identity};
use support::stage::{Stage, listed, live, register};

const PASSWORD: &str = "hunter2";

/// A user who may do everything below the prefix, and one who may do nothing.
async fn lock_up(stage: &Stage) {
    let mut auth = stage.operator.0.auth_client();
    auth.role_add("registrar").await.unwrap();
    let all = Permission::read_write(PREFIX).with_prefix();
    auth.role_grant_permission("registrar", all).await.unwrap();
    for (user, role) in [
        ("app", Some("registrar")),
        ("nobody", None),
        ("root", Some("root")),
    ] {
        auth.user_add(user, PASSWORD, None).await.unwrap();
        if let Some(role) = role {
            auth.user_grant_role(user, role).await.unwrap();
        }
    }
    auth.auth_enable().await.unwrap();
}

async fn root(stage: &Stage) -> Client {
    let options = ConnectOptions::new().with_user("root", PASSWORD);
    let client = Client::connect([stage.server.address().to_string()], Some(options)).await;
    client.unwrap()
}

/// Who writes nothing while there is nothing new.
fn quiet_provider(stage: &Stage) -> EtcdRegistry {
    builder(stage.proxy.address())
        .with_user("app", PASSWORD)
        .with_timings(|timings| timings.load.max_age = Duration::from_secs(3_600))
        .build()
        .unwrap()
}

/// How often anybody asked for a token.
fn attempts(stage: &Stage) -> f64 {
    stage.server.calls("Authenticate")
}

fault! {
    async fn a_token_that_runs_out_is_replaced_and_nobody_notices(stage: Stage, "--auth-token-ttl=1") {
        lock_up(&stage).await;
        let provider = quiet_provider(&stage);
        let consumer = builder(stage.server.address()).with_user("app", PASSWORD).build().unwrap();
        let registration = live(&provider, "a").await;
        let mut watch = consumer.watch(&stage.service).await.unwrap();
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        let before = life(&registration);
        for value in 1..=4 {
            // Nothing is asked for meanwhile that would keep the token alive.
            sleep(Duration::from_millis(2_500)).await;
            registration.load().set(value);
            registration.load().flush().await.unwrap();
            shown(&mut watch, "the load", |s| load_of(s, "a") == Some(value)).await;
            listed(&consumer, "the load", |s| load_of(s, "a") == Some(value)).await;
        }
        assert_eq!(life(&registration), before);
    }
}

fault! {
    /// With which the stream was opened that watches own keys.
    async fn a_key_written_after_the_token_ran_out_is_watched_as_the_others_are(stage: Stage, "--auth-token-ttl=1") {
        lock_up(&stage).await;
        let provider = quiet_provider(&stage);
        let watched = || stage.server.metric("etcd_debugging_mvcc_watcher_total");
        let _first = live(&provider, "a").await;
        eventually("one watched key", || async { (watched() == 1.0).then_some(()) }).await;
        // Nothing is asked for meanwhile that would keep the token alive.
        sleep(Duration::from_millis(2_500)).await;
        let second = live(&provider, "b").await;
        let before = life(&second);
        eventually("two watched keys", || async { (watched() == 2.0).then_some(()) }).await;
        root(&stage).await.delete(identity(&stage.service, "b"), None).await.unwrap();
        new_life(&second, &[before]).await;
    }
}

fault! {
    /// Tokens of this kind are forgotten by a server that starts again.
    async fn a_server_that_has_forgotten_all_tokens_finds_everybody_as_they_were(stage: Stage) {
        lock_up(&stage).await;
        let provider = builder(stage.proxy.address()).with_user("app", PASSWORD).build().unwrap();
        let registration = live(&provider, "a").await;
        let (before, lease) = (life(&registration), provider.lease_id());
        let mut watch = provider.watch(&stage.service).await.unwrap();
        shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
        stage.blocking(|server| server.restart());
        registration.load().set(3);
        shown(&mut watch, "the load", |s| s.freshness().is_live() && load_of(s, "a") == Some(3)).await;
        sleep(TTL).await;
        assert_eq!((life(&registration), provider.lease_id()), (before, lease));
    }
}

fault! {
    async fn a_wrong_password_is_told_and_tried_no_more_than_once_a_second(stage: Stage) {
        lock_up(&stage).await;
        let wrong = builder(stage.server.address()).with_user("app", "guess-123").build().unwrap();
        let mut registrations = Vec::new();
        for number in 0..20 {
            registrations.push(register(&wrong, &format!("m{number}")).await);
        }
        let _watch = wrong.watch(&stage.service).await.unwrap();
        let is_told = |s: &RegistrationState| s.cause().map(|c| c.kind()) == Some(ErrorKind::Unauthenticated);
        state(&registrations[0], "to be told", is_told).await;
        let (before, span) = (attempts(&stage), Duration::from_secs(6));
        sleep(span).await;
        let tried = attempts(&stage) - before;
        assert!((1.0..=span.as_secs_f64() + 1.0).contains(&tried), "{tried} attempts in {span:?}");
        for registration in &registrations {
            state(registration, "to be told", is_told).await;
            let shown = format!("{:?} {wrong:?}", registration.state());
            assert!(!shown.contains("guess-123"), "{shown}");
        }
        assert_eq!(wrong.list(&stage.service).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    }
}

fault! {
    /// A password that is changed while everything runs, and then changed back.
    async fn a_changed_password_is_told_and_mended_by_itself(stage: Stage, "--auth-token-ttl=1") {
        lock_up(&stage).await;
        let provider = builder(stage.server.address()).with_user("app", PASSWORD).build().unwrap();
        let registration = live(&provider, "a").await;
        let mut root = root(&stage).await;
        root.user_change_password("app", "another").await.unwrap();
        let before = attempts(&stage);
        let began = Instant::now();
        eventually("the change to be told", || async {
            let error = provider.list(&stage.service).await.err()?;
            (error.kind() == ErrorKind::Unauthenticated).then_some(())
        })
        .await;
        sleep(Duration::from_secs(3)).await;
        let (tried, span) = (attempts(&stage) - before, began.elapsed());
        assert!(tried <= span.as_secs_f64() + 2.0, "{tried} attempts in {span:?}");
        // Root's own token has run out as well.
        let mut root = self::root(&stage).await;
        root.user_change_password("app", PASSWORD).await.unwrap();
        registration.load().set(6);
        listed(&provider, "the load", |s| load_of(s, "a") == Some(6)).await;
        state(&registration, "Live", RegistrationState::is_live).await;
    }
}

fault! {
    async fn what_a_user_may_not_do_is_told_as_such(stage: Stage) {
        lock_up(&stage).await;
        let nobody = builder(stage.server.address()).with_user("nobody", PASSWORD).build().unwrap();
        denied(&nobody, &stage).await;
        let registration = register(&nobody, "a").await;
        state(&registration, "to be told", |s| {
            s.cause().map(|c| c.kind()) == Some(ErrorKind::PermissionDenied)
        })
        .await;
        let anonymous = builder(stage.server.address()).build().unwrap();
        assert_eq!(anonymous.list(&stage.service).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    }
}

fault! {
    async fn a_user_at_a_server_that_knows_none_is_let_in(stage: Stage) {
        let provider = builder(stage.server.address()).with_user("app", PASSWORD).build().unwrap();
        let registration = live(&provider, "a").await;
        // And when it begins to know users, that is no interruption.
        lock_up(&stage).await;
        registration.load().set(4);
        listed(&provider, "the load", |s| load_of(s, "a") == Some(4)).await;
        ready(&registration).await;
    }
}

/// How a list is denied, once a busy server has answered at all.
async fn denied(registry: &EtcdRegistry, stage: &Stage) -> Error {
    eventually("a list to be denied", || async {
        let error = registry.list(&stage.service).await.err()?;
        (error.kind() == ErrorKind::PermissionDenied).then_some(error)
    })
    .await
}

/// Why a new registration is refused.
async fn refusal(registry: &EtcdRegistry, id: &str) -> Error {
    let registration = register(registry, id).await;
    let refused = timeout(PATIENCE, registration.ready()).await.unwrap();
    refused.unwrap_err()
}

fault! {
    async fn the_least_rights_are_enough_and_each_that_is_missing_is_told(stage: Stage) {
        let branch = |name: &str| format!("{PREFIX}/{name}/orders/");
        let (identities, loads, fences) = (branch("services"), branch("load"), format!("{PREFIX}/fence/"));
        let needed = [identities.as_str(), &loads, &fences];
        let write = |prefix: &str| Permission::read_write(prefix).with_prefix();
        let read = |prefix: &str| Permission::read(prefix).with_prefix();
        let mut auth = stage.operator.0.auth_client();
        for role in ["registrar", "follower"] {
            auth.role_add(role).await.unwrap();
        }
        for prefix in needed {
            auth.role_grant_permission("registrar", write(prefix)).await.unwrap();
        }
        for prefix in &needed[..2] {
            auth.role_grant_permission("follower", read(prefix)).await.unwrap();
        }
        for (user, role) in [("app", "registrar"), ("ui", "follower"), ("root", "root")] {
            auth.user_add(user, PASSWORD, None).await.unwrap();
            auth.user_grant_role(user, role).await.unwrap();
        }
        auth.auth_enable().await.unwrap();
        let handle = |user| builder(stage.server.address()).with_user(user, PASSWORD).build().unwrap();
        let (provider, consumer) = (handle("app"), handle("ui"));
        let registration = live(&provider, "a").await;
        registration.load().set(7);
        registration.load().flush().await.unwrap();
        registration.set_status(Status::Draining).unwrap();
        let mut watch = consumer.watch(&stage.service).await.unwrap();
        shown(&mut watch, "all of it", |s| {
            s.get("a").is_some_and(|m| m.instance().status() == Status::Draining) && load_of(s, "a") == Some(7)
        })
        .await;
        registration.deregister().await.unwrap();
        shown(&mut watch, "nobody", |s| s.members().is_empty()).await;

        let root = root(&stage).await;
        let mut auth = root.auth_client();
        let whole = || Some(RoleRevokePermissionOptions::new().with_prefix());
        for (number, prefix) in needed.into_iter().enumerate() {
            auth.role_revoke_permission("registrar", prefix, whole()).await.unwrap();
            let refused = refusal(&provider, &format!("without{number}")).await;
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{prefix}: {refused}");
            assert!(refused.to_string().contains(prefix), "{prefix}: {refused}");
            // What may be read is not enough.
            auth.role_grant_permission("registrar", read(prefix)).await.unwrap();
            if prefix != fences {
                let refused = refusal(&provider, &format!("reading{number}")).await;
                assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{prefix}: {refused}");
            }
            auth.role_revoke_permission("registrar", prefix, whole()).await.unwrap();
            auth.role_grant_permission("registrar", write(prefix)).await.unwrap();
        }
        // Somebody who is registered loses a right: what is written from then on says which.
        let registered = live(&provider, "c").await;
        auth.role_revoke_permission("registrar", loads.as_str(), whole()).await.unwrap();
        registered.load().set(9);
        let refused = registered.load().flush().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
        assert!(refused.to_string().contains(&loads), "{refused}");
        auth.role_grant_permission("registrar", write(&loads)).await.unwrap();
        registered.deregister().await.unwrap();
        let refused = consumer.services().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
        assert!(refused.to_string().contains(&format!("{PREFIX}/services/")), "{refused}");
        auth.role_revoke_permission("follower", loads.as_str(), whole()).await.unwrap();
        let refused = denied(&consumer, &stage).await;
        assert!(refused.to_string().contains(&loads), "{refused}");
        let mut watch = consumer.watch_members(&stage.service).await.unwrap();
        let _second = live(&provider, "b").await;
        shown(&mut watch, "who is there", |s| ids(s) == ["b"]).await;
        auth.role_revoke_permission("follower", identities.as_str(), whole()).await.unwrap();
        let refused = denied(&consumer, &stage).await;
        assert!(refused.to_string().contains(&identities), "{refused}");
    }
}

fault! {
    async fn a_password_replaced_or_written_anew_is_used_at_the_next_login(stage: Stage) {
        lock_up(&stage).await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        let password = Credential::from(PASSWORD);
        let given = builder(stage.server.address()).with_user("app", password.clone()).build().unwrap();
        let url = format!(
            "etcd://app@{}/{PREFIX}?lease_ttl=4s&password_file={}",
            stage.server.address(),
            file.display()
        );
        let read = EtcdRegistry::from_url(&url.parse().unwrap()).unwrap();
        let both = [live(&given, "a").await, live(&read, "b").await];
        let mut auth = root(&stage).await.auth_client();
        auth.user_change_password("app", "changed").await.unwrap();
        // It has forgotten all tokens.
        stage.blocking(|server| server.restart());
        for registration in &both {
            let is_told = |s: &RegistrationState| s.cause().map(Error::kind) == Some(ErrorKind::Unauthenticated);
            state(registration, "why it is in doubt", is_told).await;
        }
        password.replace("changed");
        std::fs::write(&file, "changed\n").unwrap();
        for registration in &both {
            state(registration, "Live", RegistrationState::is_live).await;
        }
        let shown = format!("{given:?} {read:?} {:?}", both[0].state());
        assert!(!shown.contains("changed") && !shown.contains(PASSWORD), "{shown}");
    }
}
