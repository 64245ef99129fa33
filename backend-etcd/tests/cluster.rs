//! Three servers, of which some fail.

#![expect(
    clippy::unwrap_used,
    reason = "a failure to set up is a failure of the test"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, MemberAddOptions, WatchOptions};
use plimsoll_backend_etcd::EtcdRegistry;
use plimsoll_discovery_api::{ErrorKind, RegistrationState, Registry, Revision, Watch};
use plimsoll_test_servers::etcd::{Cluster, Server, available};
use plimsoll_test_servers::probe::{PATIENCE, eventually, ids, life, load_of, ready, shown, state};
use plimsoll_test_servers::{Mode, Proxy};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::timeout;

use support::harness::{TTL, timed};
use support::operator::identity;
use support::stage::{listed, live, live_many, service};

fn registry(addresses: &[SocketAddr]) -> EtcdRegistry {
    let hosts = addresses.iter().map(ToString::to_string);
    timed(EtcdRegistry::builder(hosts)).build().unwrap()
}

fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.members.iter().map(Server::address).collect()
}

/// Which member leads.
async fn leader(cluster: &Cluster) -> usize {
    eventually("a leader", || async {
        for (index, member) in cluster.members.iter().enumerate() {
            let client = Client::connect([member.address().to_string()], None).await;
            let Ok(mut client) = client else { continue };
            let status = timeout(Duration::from_secs(2), client.status()).await;
            if let Ok(Ok(status)) = status
                && status.leader() != 0
                && status.header().map(etcd_client::ResponseHeader::member_id)
                    == Some(status.leader())
            {
                return Some(index);
            }
        }
        None
    })
    .await
}

/// Whether anything is deleted below the service, by one who watches from a member that lives.
async fn deletions(member: SocketAddr) -> JoinHandle<usize> {
    let mut client = Client::connect([member.to_string()], None).await.unwrap();
    let options = WatchOptions::new().with_prefix();
    let prefix = identity(&service(), "");
    let mut stream = client.watch(prefix, Some(options)).await.unwrap();
    tokio::spawn(async move {
        let mut count = 0;
        let until = tokio::time::Instant::now() + TTL + TTL;
        while let Ok(Ok(Some(message))) = tokio::time::timeout_at(until, stream.message()).await {
            let deleted =
                |e: &&etcd_client::Event| e.event_type() == etcd_client::EventType::Delete;
            count += message.events().iter().filter(deleted).count();
        }
        count
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_nobody_its_life() {
    if !available() {
        return;
    }
    let mut cluster = block_in_place(Cluster::start);
    let all = addresses(&cluster);
    let (provider, consumer) = (registry(&all), registry(&all));
    let registrations = live_many(&provider, 20).await;
    let lives: Vec<_> = registrations.iter().map(life).collect();
    let mut watch = consumer.watch(&service()).await.unwrap();
    shown(&mut watch, "all", |s| s.members().len() == 20).await;
    let leads = leader(&cluster).await;
    let deletions = deletions(all[(leads + 1) % 3]).await;
    block_in_place(|| cluster.members[leads].kill());
    for registration in &registrations {
        registration.load().set(7);
    }
    assert_eq!(
        deletions.await.unwrap(),
        0,
        "a change of leader took keys away"
    );
    let loaded = |s: &plimsoll_discovery_api::Snapshot| {
        s.freshness().is_live() && s.members().iter().all(|m| m.load().get() == Some(7))
    };
    shown(&mut watch, "the new loads", loaded).await;
    for (registration, before) in registrations.iter().zip(lives) {
        state(registration, "Live", RegistrationState::is_live).await;
        assert_eq!(life(registration), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_keeps_the_last_good_list_and_its_return_restores_everybody() {
    if !available() {
        return;
    }
    let mut cluster = block_in_place(Cluster::start);
    let all = addresses(&cluster);
    let (provider, consumer) = (registry(&all), registry(&all));
    let registration = live(&provider, "a").await;
    let mut watch = consumer.watch(&service()).await.unwrap();
    shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
    let leads = leader(&cluster).await;
    let lost = [leads, (leads + 1) % 3];
    block_in_place(|| lost.iter().for_each(|index| cluster.members[*index].kill()));
    let cut = Instant::now();
    shown(&mut watch, "a stale list", |s| {
        !s.freshness().is_live() && ids(s) == ["a"]
    })
    .await;
    assert!(
        cut.elapsed() < Duration::from_secs(10),
        "{:?}",
        cut.elapsed()
    );
    state(&registration, "not Live", |s| !s.is_live()).await;
    assert!(
        consumer.list(&service()).await.is_err(),
        "one of three cannot know"
    );
    registration.load().set(9);
    block_in_place(|| {
        lost.iter()
            .for_each(|index| cluster.members[*index].restart_unready());
    });
    shown(&mut watch, "the member, live, with its load", |s| {
        s.freshness().is_live() && load_of(s, "a") == Some(9)
    })
    .await;
    state(&registration, "Live", RegistrationState::is_live).await;
}

/// The others are paused: it runs, and is by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_pinned_to_a_member_that_is_cut_off_knows_that_it_is_stale() {
    if !available() {
        return;
    }
    let cluster = block_in_place(Cluster::start);
    let all = addresses(&cluster);
    let leads = leader(&cluster).await;
    let pinned = (leads + 1) % 3;
    // It knows of no other.
    let lonely = registry(&[all[pinned]]);
    let _registration = live(&registry(&all), "a").await;
    let mut watch = lonely.watch(&service()).await.unwrap();
    shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
    let others = [leads, (leads + 2) % 3];
    others
        .iter()
        .for_each(|index| cluster.members[*index].pause());
    let cut = Instant::now();
    shown(&mut watch, "a stale list", |s| {
        !s.freshness().is_live() && ids(s) == ["a"]
    })
    .await;
    assert!(
        cut.elapsed() < Duration::from_secs(10),
        "{:?}",
        cut.elapsed()
    );
    others
        .iter()
        .for_each(|index| cluster.members[*index].resume());
    shown(&mut watch, "a live list", |s| s.freshness().is_live()).await;
}

/// Provider and watcher are connected to a member that is cut off from the others and runs on, and
/// know the others too.
async fn parted_from(pick: impl Fn(usize) -> usize, within: Duration) {
    if !available() {
        return;
    }
    let cluster = block_in_place(Cluster::start_separable);
    let leads = leader(&cluster).await;
    let parted = pick(leads);
    let all = addresses(&cluster);
    let proxy = Proxy::start(all[parted], Mode::Pass);
    let mut hosts = all.clone();
    hosts[parted] = proxy.address();
    let provider = connected_through(&proxy, &hosts).await;
    let consumer = connected_through(&proxy, &hosts).await;
    let registration = live(&provider, "a").await;
    let before = life(&registration);
    let mut watch = consumer.watch(&service()).await.unwrap();
    shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
    let others = registry(&[all[(parted + 1) % 3], all[(parted + 2) % 3]]);
    others.services().await.unwrap();

    cluster.part(parted, member_id(all[parted]).await);
    let began = Instant::now();
    registration.load().set(7);
    let _news = live(&others, "b").await;
    shown(&mut watch, "the news and the load", |s| {
        s.freshness().is_live() && ids(s) == ["a", "b"] && load_of(s, "a") == Some(7)
    })
    .await;
    let took = began.elapsed();
    assert!(took < within, "{took:?}");
    state(&registration, "Live", RegistrationState::is_live).await;
    assert_eq!(life(&registration), before);
    let lonely = registry(&[all[parted]]);
    assert!(lonely.list(&service()).await.is_err(), "it is not cut off");
    cluster.unite();
    listed(&lonely, "both", |s| ids(s) == ["a", "b"]).await;
    // Whoever comes back calls an election, during which nobody confirms a lease, nor ends one.
    state(&registration, "Live", RegistrationState::is_live).await;
    assert_eq!(life(&registration), before);
}

async fn member_id(address: SocketAddr) -> u64 {
    let client = Client::connect([address.to_string()], None).await;
    let status = client.unwrap().status().await.unwrap();
    status.header().unwrap().member_id()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_at_a_member_that_is_parted_from_the_others_hears_the_news_within_5_s_and_lives()
{
    parted_from(|leads| (leads + 1) % 3, Duration::from_secs(5)).await;
}

/// The others have to find another one first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_at_a_leader_that_is_parted_from_the_others_hears_the_news_and_lives() {
    parted_from(|leads| leads, Duration::from_secs(10)).await;
}

/// Reachable, and out of touch with the others, whose news must come all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_whose_member_is_paused_goes_to_another_and_misses_nothing() {
    if !available() {
        return;
    }
    let cluster = block_in_place(Cluster::start);
    let all = addresses(&cluster);
    let consumer = registry(&all);
    let provider = registry(&all);
    let _first = live(&provider, "a").await;
    let mut watch = consumer.watch(&service()).await.unwrap();
    shown(&mut watch, "the member", |s| ids(s) == ["a"]).await;
    let backwards = Backwards::of(watch.clone());
    for paused in 0..3 {
        cluster.members[paused].pause();
        let began = Instant::now();
        let other = registry(&all);
        let joined = live(&other, &format!("b{paused}")).await;
        shown(&mut watch, "one more", |s| {
            s.get(&format!("b{paused}")).is_some()
        })
        .await;
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(15),
            "member {paused} paused: {took:?}"
        );
        cluster.members[paused].resume();
        joined.deregister().await.unwrap();
        shown(&mut watch, "the first alone", |s| {
            ids(s) == ["a"] && s.freshness().is_live()
        })
        .await;
        eventually("all three to serve", || async {
            let reads = all
                .iter()
                .map(|address| async move { registry(&[*address]).list(&service()).await.is_ok() });
            let mut serving = 0;
            for read in reads {
                serving += usize::from(read.await);
            }
            (serving == 3).then_some(())
        })
        .await;
    }
    backwards.assert_none();
}

/// Counts how often a list is of another history, or of an earlier moment, than the one before it.
struct Backwards {
    count: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Backwards {
    fn of(mut watch: Watch) -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            let mut last: Option<Revision> = None;
            while let Some(snapshot) = watch.next().await {
                let now = snapshot.revision();
                if last.is_some_and(|last| now.epoch() != last.epoch() || now.is_before(last)) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                last = Some(now);
            }
        });
        Self { count, task }
    }

    fn assert_none(&self) {
        self.task.abort();
        let count = self.count.load(Ordering::Relaxed);
        assert_eq!(count, 0, "a member that lagged was believed");
    }
}

/// It serves, as far as it goes, and has missed the latest changes; the others, who made them, are
/// silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lags_behind_what_was_seen_is_not_believed() {
    if !available() {
        return;
    }
    let cluster = block_in_place(Cluster::start);
    let all = addresses(&cluster);
    let leads = leader(&cluster).await;
    let (lags, others) = ((leads + 1) % 3, [leads, (leads + 2) % 3]);
    let lagging = &cluster.members[lags];
    let provider = registry(&others.map(|index| all[index]));
    let first = live(&provider, "a").await;
    let proxy = Proxy::start(lagging.address(), Mode::Pass);
    let consumer = registry(&[all[leads], all[others[1]], proxy.address()]);
    let mut watch = consumer.watch(&service()).await.unwrap();
    shown(&mut watch, "the first", |s| ids(s) == ["a"]).await;
    let backwards = Backwards::of(watch.clone());
    lagging.pause();
    let _second = live(&provider, "b").await;
    first.deregister().await.unwrap();
    shown(&mut watch, "the second", |s| {
        ids(s) == ["b"] && s.freshness().is_live()
    })
    .await;
    for index in others {
        cluster.members[index].pause();
    }
    lagging.resume();
    let tried = proxy.openings().len();
    shown(&mut watch, "a stale list", |s| {
        ids(s) == ["b"] && !s.freshness().is_live()
    })
    .await;
    eventually("the one that lags to be tried", || async {
        let latest = watch.latest()?;
        let is_kept = ids(&latest) == ["b"] && !latest.freshness().is_live();
        assert!(is_kept, "it was believed: {latest:?}");
        (proxy.openings().len() > tried + 1).then_some(())
    })
    .await;
    for index in others {
        cluster.members[index].resume();
    }
    shown(&mut watch, "the second, live", |s| {
        ids(s) == ["b"] && s.freshness().is_live()
    })
    .await;
    backwards.assert_none();
}

/// The list names a member that is not there, and one that never answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_are_dead_or_silent_are_passed_over() {
    if !available() {
        return;
    }
    let server = block_in_place(Server::start);
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let dead = SocketAddr::from(([127, 0, 0, 1], plimsoll_test_servers::free_port()));
    let hosts = [dead, silent.local_addr().unwrap(), server.address()];
    for turn in 0..3 {
        let mut hosts = hosts;
        hosts.rotate_left(turn);
        let handle = registry(&hosts);
        let registration = live(&handle, &format!("a{turn}")).await;
        listed(&handle, "it", |s| s.get(&format!("a{turn}")).is_some()).await;
        ready(&registration).await;
        timeout(PATIENCE, registration.deregister())
            .await
            .unwrap()
            .unwrap();
    }
}

/// The member that provider and watcher are connected to leaves the cluster, and another joins it,
/// which is on their list, as those are who are yet to come where an address is a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_exchanged_for_another_costs_nobody_its_life() {
    if !available() {
        return;
    }
    let mut cluster = block_in_place(Cluster::start);
    let candidate = cluster.candidate("n4");
    let proxy = Proxy::start(cluster.members[0].address(), Mode::Pass);
    let mut hosts = addresses(&cluster);
    hosts[0] = proxy.address();
    hosts.push(candidate.address());
    let provider = connected_through(&proxy, &hosts).await;
    let consumer = connected_through(&proxy, &hosts).await;
    let registrations = live_many(&provider, 10).await;
    let lives: Vec<_> = registrations.iter().map(life).collect();
    let mut watch = consumer.watch(&service()).await.unwrap();
    shown(&mut watch, "all", |s| s.members().len() == 10).await;
    let deletions = deletions(hosts[1]).await;

    let rest = hosts[1].to_string();
    let mut operator = Client::connect([rest], None).await.unwrap();
    let listed = operator.member_list().await.unwrap();
    let first = listed.members().iter().find(|m| m.name() == "n1").unwrap();
    let peer = [candidate.peer_url()];
    // Members refuse to be changed until all of them have been connected for a while.
    eventually("one more", || async {
        let mut members = operator.cluster_client();
        members.member_add(peer.clone(), None).await.ok()
    })
    .await;
    block_in_place(|| cluster.join(candidate));
    eventually("one less", || async {
        let mut members = operator.cluster_client();
        members.member_remove(first.id()).await.ok()
    })
    .await;
    // It is told, and goes; its address serves nobody any more.
    block_in_place(|| cluster.members[0].kill());

    for registration in &registrations {
        registration.load().set(7);
    }
    shown(&mut watch, "the new loads", |s| {
        s.freshness().is_live() && s.members().iter().all(|m| m.load().get() == Some(7))
    })
    .await;
    assert_eq!(deletions.await.unwrap(), 0, "the exchange took keys away");
    for (registration, before) in registrations.iter().zip(lives) {
        state(registration, "Live", RegistrationState::is_live).await;
        assert_eq!(life(registration), before);
    }
    // And the new one serves whoever comes to it, alone or in a list.
    let joined = hosts[3];
    listed_by(&registry(&[joined]), 10).await;
    block_in_place(|| cluster.members[1].kill());
    listed_by(&consumer, 10).await;
    registrations[0].load().set(8);
    shown(&mut watch, "the load", |s| {
        s.freshness().is_live() && load_of(s, "m0") == Some(8)
    })
    .await;
}

async fn listed_by(registry: &EtcdRegistry, count: usize) {
    listed(registry, "everybody", |s| s.members().len() == count).await;
}

/// Which of its hosts a handle begins with is drawn at random.
async fn connected_through(proxy: &Proxy, hosts: &[SocketAddr]) -> EtcdRegistry {
    let before = proxy.connections();
    eventually("a handle that begins with the first member", || async {
        let registry = registry(hosts);
        registry.services().await.ok()?;
        (proxy.connections() > before).then_some(registry)
    })
    .await
}

/// It refuses lists, leases and watches, and says of itself that it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_among_the_endpoints_costs_no_call() {
    if !available() {
        return;
    }
    let mut cluster = block_in_place(Cluster::start);
    let candidate = cluster.candidate("n4");
    let mut hosts = addresses(&cluster);
    let mut operator = Client::connect([hosts[0].to_string()], None).await.unwrap();
    let peer = [candidate.peer_url()];
    eventually("a learner", || async {
        let learner = MemberAddOptions::new().with_is_learner();
        let mut members = operator.cluster_client();
        members.member_add(peer.clone(), Some(learner)).await.ok()
    })
    .await;
    block_in_place(|| cluster.join_unready(candidate));
    let learner = cluster.members[3].address();
    eventually("it to say so", || async {
        let mut client = Client::connect([learner.to_string()], None).await.ok()?;
        client.status().await.ok()?.is_learner().then_some(())
    })
    .await;
    hosts = vec![learner, hosts[1]];
    for number in 0..16 {
        let handle = registry(&hosts);
        let listed = handle.list(&service()).await;
        assert!(listed.is_ok(), "handle {number}: {listed:?}");
    }
    let refused = registry(&[learner]).list(&service()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("learner"), "{refused}");
    // Once it votes, it serves.
    let listed = operator.member_list().await.unwrap();
    let id = listed
        .members()
        .iter()
        .find(|m| m.is_learner())
        .unwrap()
        .id();
    eventually("it to vote", || async {
        let mut members = operator.cluster_client();
        members.member_promote(id).await.ok()
    })
    .await;
    listed_by(&registry(&[learner]), 0).await;
}
