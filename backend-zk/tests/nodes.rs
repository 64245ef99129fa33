//! What happens to nodes on the server, and whose they are, one claim each.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use plimsoll_backend_zk::{ZkBuilder, ZkRegistry};
use plimsoll_discovery_api::{
    Instance, Metadata, Registration, RegistrationState, Registry, Snapshot, Status,
};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, live, load_of, ready, shown, state};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::time::{sleep, timeout};
use zookeeper_client::{Acls, Client, CreateMode};

use support::bench::{Bench, fault};
use support::harness::{SESSION, builder, identity, load};

fault! {
    async fn a_node_deleted_by_an_operator_returns_at_once_on_the_same_session(bench: Bench) {
        let registration = bench.live("a").await;
        let before = bench.stat("a").await.unwrap();
        bench.operator.delete(&identity(&bench.service, "a"), None).await.unwrap();
        let after = eventually("the node", || bench.stat("a")).await;
        assert_eq!(after.ephemeral_owner, before.ephemeral_owner);
        assert_ne!(after.czxid, before.czxid);
        state(&registration, "Live", RegistrationState::is_live).await;
        registration.load().set(9);
        registration.load().flush().await.unwrap();
        bench.listed("its load", |s| s.get("a").and_then(|m| m.load().get()) == Some(9)).await;
    }
}

fault! {
    async fn a_deleted_load_node_returns_with_the_next_publication(bench: Bench) {
        let registration = bench.live("a").await;
        bench.operator.delete(&load(&bench.service, "a"), None).await.unwrap();
        registration.load().set(9);
        bench.listed("its load", |s| s.get("a").and_then(|m| m.load().get()) == Some(9)).await;
        assert!(registration.state().is_live());
    }
}

fault! {
    async fn a_deleted_parent_is_made_again_and_watches_live_on(bench: Bench) {
        let registration = bench.live("a").await;
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        timeout(PATIENCE, watch.next()).await.unwrap();
        // The owner may put its node back before its parent is gone, so: until that succeeds.
        let branches = [identity(&bench.service, "a"), load(&bench.service, "a")];
        eventually("the parents to be gone", || async {
            for path in &branches {
                let _gone_already = bench.operator.delete(path, None).await;
            }
            let parent = branches[0].rsplit_once('/').unwrap().0;
            bench.operator.delete(parent, None).await.ok()
        })
        .await;
        eventually("the node", || bench.stat("a")).await;
        state(&registration, "Live", RegistrationState::is_live).await;
        registration.deregister().await.unwrap();
        // An empty container is removed by the server; a later registration makes it again.
        let parent = branches[0].rsplit_once('/').unwrap().0;
        eventually("the container to be reaped", || async {
            bench.operator.check_stat(parent).await.unwrap().is_none().then_some(())
        })
        .await;
        let _again = bench.live("b").await;
        eventually("the watch to show it", || async {
            watch.latest().filter(|snapshot| ids(snapshot) == ["b"]).map(drop)
        })
        .await;
    }
}

fault! {
    async fn garbage_empty_huge_and_foreign_nodes_do_no_harm_to_others(bench: Bench) {
        let _good = [bench.live("a").await, bench.live("b").await];
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let huge = vec![b'x'; 900 * 1024];
        let curator = br#"{"name":"orders","id":"java","address":"10.9.9.9","port":7000,"sslPort":null,
            "payload":{"team":"a"},"registrationTimeUTC":1700000000123,"serviceType":"DYNAMIC","uriSpec":null}"#;
        let nodes: [(&str, &[u8]); 5] = [
            ("garbage", b"\xff\x00{"), ("empty", b""), ("huge", &huge), ("null", b"null"), ("java", curator),
        ];
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        for (id, bytes) in nodes {
            bench.operator.create(&identity(&bench.service, id), bytes, &options).await.unwrap();
        }
        let expected = |s: &Snapshot| ids(s) == ["a", "b", "java"] && s.skipped() == 4;
        bench.listed("three members and four skipped", expected).await;
        eventually("the same in the watch", || async {
            watch.latest().filter(|snapshot| expected(snapshot)).map(drop)
        })
        .await;
        let _next = watch.next().await;
    }
}

fault! {
    /// By the same signs as those who use these programs: a flag that is set and taken back, a node
    /// that lasts and is deleted all the same. What ends with a session says of no one how it ended.
    async fn what_operators_of_other_programs_do_is_seen_for_what_it_is(bench: Bench) {
        let lasting = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let passing = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        let parent = identity(&bench.service, "");
        bench.operator.mkdir(parent.trim_end_matches('/'), &lasting).await.unwrap();
        let node = |status: &str| {
            format!(
                r#"{{"name":"orders","address":"10.0.0.1","port":80,"payload":{{"metadata":{{"instance_status":"{status}"}}}}}}"#
            )
        };
        let path = |id: &str| identity(&bench.service, id);
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        // The last one that is lost is suspect; one whose deletion was meant is gone.
        bench.operator.create(&path("static"), node("UP").as_bytes(), &lasting).await.unwrap();
        shown(&mut watch, "who lasts", |s| ids(s) == ["static"]).await;
        bench.operator.delete(&path("static"), None).await.unwrap();
        shown(&mut watch, "nobody", |s| s.members().is_empty()).await;
        bench.operator.create(&path("dynamic"), node("UP").as_bytes(), &passing).await.unwrap();
        shown(&mut watch, "who passes", |s| ids(s) == ["dynamic"]).await;
        for (said, status) in [("OUT_OF_SERVICE", Status::OutOfService), ("up", Status::Up)] {
            bench.operator.set_data(&path("dynamic"), node(said).as_bytes(), None).await.unwrap();
            shown(&mut watch, said, |s| {
                s.get("dynamic").is_some_and(|m| m.instance().status() == status)
            })
            .await;
        }
        bench.operator.delete(&path("dynamic"), None).await.unwrap();
        shown(&mut watch, "a suspect", |s| {
            s.get("dynamic").is_some_and(|m| !m.standing().is_registered())
        })
        .await;
    }
}

fault! {
    async fn a_record_of_a_dead_process_with_the_same_id_is_waited_for_and_replaced(bench: Bench) {
        let first = bench.live("a").await;
        bench.proxy.set(Mode::End);
        let second = bench.consumer.register(bench.instance("a")).await.unwrap();
        state(&second, "Conflict", |state| matches!(state, RegistrationState::Conflict { .. })).await;
        ready(&second).await;
        // It holds, though the first lives on beyond the cut and wants its id back.
        sleep(SESSION).await;
        let life = second.state().incarnation();
        bench.listed("the second", |s| s.get("a").map(|m| m.incarnation()) == life).await;
        drop(first);
    }
}

fault! {
    /// Nothing is published any more; the watch is told by the node that comes.
    async fn a_deleted_load_node_that_returns_once_is_seen_by_watches(bench: Bench) {
        let provider = quiet(bench.server.address()).build().unwrap();
        let registration = live(&provider, bench.instance("a")).await;
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        shown(&mut watch, "its load", |s| load_of(s, "a") == Some(0)).await;
        for value in [9, 10] {
            bench.operator.delete(&load(&bench.service, "a"), None).await.unwrap();
            registration.load().set(value);
            shown(&mut watch, "its load again", |s| load_of(s, "a") == Some(value)).await;
        }
        assert!(registration.state().is_live());
    }
}

fault! {
    /// As it is removed by the server once it is empty, which it is if the only load was deleted.
    async fn a_load_whose_parent_is_gone_too_returns_with_it(bench: Bench) {
        let provider = quiet(bench.server.address()).build().unwrap();
        let registration = live(&provider, bench.instance("a")).await;
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        shown(&mut watch, "its load", |s| load_of(s, "a") == Some(0)).await;
        let path = load(&bench.service, "a");
        let parent = path.rsplit_once('/').unwrap().0;
        bench.operator.delete(&path, None).await.unwrap();
        eventually("its parent to be reaped", || async {
            bench.operator.check_stat(parent).await.unwrap().is_none().then_some(())
        })
        .await;
        registration.load().set(9);
        registration.load().flush().await.unwrap();
        shown(&mut watch, "its load again", |s| load_of(s, "a") == Some(9)).await;
        assert!(registration.state().is_live());
    }
}

/// One that only whoever logs in as `alice` may read.
async fn create_closed(bench: &Bench, id: &str) -> Client {
    let address = bench.server.address().to_string();
    let alice = Client::connector().with_auth("digest", b"alice:secret");
    let alice = alice.connect(&address).await.unwrap();
    let closed = CreateMode::Ephemeral.with_acls(Acls::creator_all());
    let node = format!(r#"{{"name":"orders","id":"{id}","address":"10.0.0.1","port":80}}"#);
    for (path, value) in [
        (identity(&bench.service, id), node.as_str()),
        (load(&bench.service, id), "7"),
    ] {
        alice
            .create(&path, value.as_bytes(), &closed)
            .await
            .unwrap();
    }
    alice
}

fault! {
    /// Not even a load that is closed beside an instance that is open.
    async fn a_node_that_may_not_be_read_hides_none_of_the_others(bench: Bench) {
        let first = bench.live("a").await;
        let alice = create_closed(&bench, "m").await;
        let closed = CreateMode::Ephemeral.with_acls(Acls::creator_all());
        let open = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        let half = br#"{"name":"orders","id":"n","address":"10.0.0.1","port":81}"#;
        alice.create(&identity(&bench.service, "n"), half, &open).await.unwrap();
        alice.create(&load(&bench.service, "n"), b"7", &closed).await.unwrap();
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        let expected = |s: &Snapshot| ids(s) == ["a", "n"] && s.skipped() == 1 && load_of(s, "n").is_none();
        bench.listed("the others, and one skipped", expected).await;
        shown(&mut watch, "the same", expected).await;
        // And the others are followed as ever.
        first.load().set(5);
        shown(&mut watch, "a load", |s| load_of(s, "a") == Some(5)).await;
        let second = bench.live("z").await;
        shown(&mut watch, "who came", |s| ids(s) == ["a", "n", "z"]).await;
        second.deregister().await.unwrap();
        shown(&mut watch, "who left", |s| ids(s) == ["a", "n"]).await;
        assert_eq!(bench.consumer.services().await.unwrap(), [bench.service.clone()]);
    }
}

fault! {
    async fn a_service_that_may_not_be_read_hides_none_of_the_others(bench: Bench) {
        let _open = bench.live("a").await;
        let alice = builder(bench.server.address()).with_digest("alice", "secret").build().unwrap();
        let closed = Instance::builder("billing", "10.0.0.7", 1).build().unwrap();
        let _closed = live(&alice, closed).await;
        let names: Vec<_> = bench.consumer.services().await.unwrap();
        assert_eq!(names, ["billing".parse().unwrap(), bench.service.clone()]);
    }
}

fault! {
    /// As other programs write them; where both stand, the id is that of the escaped one.
    async fn an_id_that_was_not_escaped_is_read_unless_the_escaped_one_stands(bench: Bench) {
        let open = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        let _other = bench.live("z").await;
        let parent = identity(&bench.service, "z");
        let parent = parent.rsplit_once('/').unwrap().0;
        let raw = format!("{parent}/orders:8080");
        let node = |port: u16| format!(r#"{{"name":"orders","id":"orders:8080","address":"10.0.0.1","port":{port}}}"#);
        bench.operator.create(&raw, node(1).as_bytes(), &open).await.unwrap();
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        let port_is = |port: u16| {
            move |s: &Snapshot| {
                let member = s.get("orders:8080");
                member.is_some_and(|m| m.instance().port() == port) && s.members().len() == 2
            }
        };
        shown(&mut watch, "the one that is not escaped", port_is(1)).await;
        bench.listed("the same", port_is(1)).await;
        let escaped = bench.live("orders:8080").await;
        shown(&mut watch, "the one that is", port_is(8080)).await;
        bench.operator.set_data(&raw, node(2).as_bytes(), None).await.unwrap();
        // What comes after has been seen after.
        let last = bench.live("last").await;
        shown(&mut watch, "the last", |s| s.get("last").is_some()).await;
        last.deregister().await.unwrap();
        shown(&mut watch, "the one that is escaped still", port_is(8080)).await;
        bench.listed("the same", port_is(8080)).await;
        escaped.deregister().await.unwrap();
        shown(&mut watch, "the other again, as it is now", port_is(2)).await;
        bench.operator.delete(&raw, None).await.unwrap();
        shown(&mut watch, "neither", |s| ids(s) == ["z"]).await;
    }
}

/// A handle that publishes what changes, and repeats nothing.
fn quiet(address: SocketAddr) -> ZkBuilder {
    builder(address).with_timings(|timings| timings.load.max_age = Duration::from_secs(600))
}

/// A life whose requests take so long that its record is gone, and another's in its place, before
/// they arrive.
struct Late {
    _provider: ZkRegistry,
    registration: Registration,
    proxy: Proxy,
    /// Connected already.
    other: ZkRegistry,
}

impl Late {
    const DELAY: Duration = Duration::from_secs(3);

    async fn register(bench: &Bench) -> Self {
        let proxy = Proxy::start(bench.server.address(), Mode::Pass);
        let provider = quiet(proxy.address())
            .with_session_timeout(Duration::from_secs(50))
            .with_connect_timeout(Duration::from_secs(25))
            .with_timings(|timings| timings.call_timeout = Duration::from_secs(25));
        let provider = provider.build().unwrap();
        let registration = live(&provider, bench.instance("a")).await;
        let other = quiet(bench.server.address()).build().unwrap();
        eventually("a connection", || async { other.services().await.ok() }).await;
        Self {
            _provider: provider,
            registration,
            proxy,
            other,
        }
    }

    /// Has another take the id before anything of what it is about to say arrives.
    async fn is_replaced(&self, bench: &Bench) -> Registration {
        let since = Instant::now();
        for path in [load(&bench.service, "a"), identity(&bench.service, "a")] {
            bench.operator.delete(&path, None).await.unwrap();
        }
        let heir = live(&self.other, bench.instance("a")).await;
        assert!(
            since.elapsed() < Self::DELAY,
            "a machine too slow for this: {:?}",
            since.elapsed()
        );
        heir
    }
}

fault! {
    /// Of both nodes the versions are those that the former owner knows.
    async fn what_a_replaced_life_still_writes_is_refused_at_equal_versions(bench: Bench) {
        for attributes in [true, false] {
            let late = Late::register(&bench).await;
            let stats = || async {
                let of_load = bench.operator.check_stat(&load(&bench.service, "a")).await.unwrap();
                (bench.stat("a").await.unwrap(), of_load.unwrap())
            };
            let (before, load_before) = stats().await;
            late.proxy.set(Mode::Delay(Late::DELAY));
            if attributes {
                let mut metadata = Metadata::new();
                metadata.insert("late", "yes").unwrap();
                let changed = bench.instance("a").with_metadata(metadata);
                late.registration.update(changed).unwrap();
            } else {
                late.registration.load().set(77);
            }
            let heir = late.is_replaced(&bench).await;
            let (after, load_after) = stats().await;
            assert_eq!((after.version, load_after.version), (before.version, load_before.version));
            // What is under way still is late; what follows is not.
            late.proxy.set(Mode::Pass);
            // It has come to know, by what it was told or by what it was refused.
            state(&late.registration, "Conflict", |s| matches!(s, RegistrationState::Conflict { .. })).await;
            let (at_last, load_at_last) = stats().await;
            assert_eq!((at_last.mzxid, at_last.czxid), (after.mzxid, after.czxid));
            assert_eq!(load_at_last.czxid, load_after.czxid);
            let list = bench.listed("the heir", |s| s.get("a").is_some()).await;
            let member = list.get("a").unwrap();
            assert_eq!(Some(member.incarnation()), heir.state().incarnation());
            assert_eq!((member.instance().metadata().len(), member.load().get()), (0, Some(0)));
            drop(late);
            heir.deregister().await.unwrap();
        }
    }
}

fault! {
    async fn a_removal_takes_along_the_load_of_a_record_that_others_have_deleted(bench: Bench) {
        let _other = bench.live("z").await;
        let registration = bench.live("a").await;
        bench.proxy.set(Mode::Refuse);
        bench.operator.delete(&identity(&bench.service, "a"), None).await.unwrap();
        let left = bench.operator.check_stat(&load(&bench.service, "a")).await.unwrap();
        assert!(left.is_some(), "its session goes on");
        let leaving = tokio::spawn(async move { registration.deregister().await });
        // It has said that it leaves before it can see what has become of its record.
        tokio::task::yield_now().await;
        bench.proxy.set(Mode::Pass);
        let _in_time_or_not = timeout(PATIENCE, leaving).await.unwrap().unwrap();
        let gone = || async {
            let there = bench.operator.check_stat(&load(&bench.service, "a")).await.unwrap();
            there.is_none().then_some(())
        };
        eventually("its load to go", gone).await;
        assert!(bench.stat("a").await.is_none());
        let session = bench.provider.session_timeout();
        assert!(session.is_some() && bench.stat("z").await.is_some(), "the session goes on");
    }
}
