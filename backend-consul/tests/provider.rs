//! What becomes of a provider's registrations when its process dies, sleeps, or is not alone.

mod support;

use std::time::{Duration, Instant};

use plimsoll_discovery_api::Registry;
use plimsoll_test_servers::probe::{eventually, ids, load_of};
use tokio::task::block_in_place;
use tokio::time::sleep;

use support::harness::TTL;
use support::operator::{agent_services, get};
use support::provider::provider;

with_provider! {
    /// Its check turns critical when its TTL is over, and from then on it is in no list and no watch;
    /// nobody else's is touched. What removes it from the catalog for good is Consul, after a
    /// minute that nobody waits for here.
    async fn a_killed_provider_is_in_nobodys_list_once_its_ttl_is_over(bench: Memory) {
        let _staying = bench.live("staying").await;
        let watch = bench.consumer.watch(&bench.service).await.unwrap();
        let name = "a_killed_provider_is_in_nobodys_list_once_its_ttl_is_over";
        let mut process = provider(&bench.server, name, "dying");
        let pid = u64::from(process.id());
        bench.listed("both", |s| ids(s) == ["dying", "staying"] && load_of(s, "dying") == Some(pid)).await;
        let killed = Instant::now();
        block_in_place(|| process.kill());
        let critical = eventually("its check to be critical", || async {
            let checks = block_in_place(|| get(&bench.server, "/v1/health/checks/orders"));
            let all = checks.as_array()?.clone();
            all.into_iter().find(|check| check["Status"] == "critical")
        })
        .await;
        let lapsed = killed.elapsed();
        assert!(lapsed > TTL / 3 && lapsed < TTL + Duration::from_secs(2), "{lapsed:?}");
        assert!(critical["ServiceID"].as_str().unwrap().starts_with("orders:dying:"));
        eventually("the watch to show the other alone", || async {
            watch.latest().filter(|s| ids(s) == ["staying"])
        })
        .await;
        let told = killed.elapsed();
        assert!(told < lapsed + Duration::from_secs(2), "critical after {lapsed:?}, told after {told:?}");
        let listed = bench.look().await;
        assert_eq!(ids(&listed), ["staying"]);
        // The session owns the id for a little longer.
        eventually("the id to be free", || async { bench.owned("dying").is_none().then_some(()) }).await;
        assert!(killed.elapsed() < TTL * 2 + Duration::from_secs(3), "{:?}", killed.elapsed());
    }
}

with_provider! {
    /// The agent's word on the last one is not enough to take it for gone, as it says the same of
    /// everybody when it has slept: lists leave it out, and a watch shows it as suspect, which a
    /// client picks only where there is nobody else; until the grace is over.
    async fn a_killed_provider_that_was_the_last_is_suspect_once_its_ttl_is_over_and_gone_after_the_grace(bench: Memory) {
        let watch = bench.consumer.watch(&bench.service).await.unwrap();
        let name = "a_killed_provider_that_was_the_last_is_suspect_once_its_ttl_is_over_and_gone_after_the_grace";
        let mut process = provider(&bench.server, name, "last");
        eventually("it in the watch", || async { watch.latest().filter(|s| ids(s) == ["last"]) }).await;
        let killed = Instant::now();
        block_in_place(|| process.kill());
        let suspect = eventually("it to be suspect", || async {
            watch.latest().filter(|s| s.get("last").is_some_and(|m| !m.standing().is_registered()))
        })
        .await;
        let told = killed.elapsed();
        assert!(told > TTL / 3 && told < TTL + Duration::from_secs(4), "{told:?}");
        assert_eq!(ids(&suspect), ["last"]);
        bench.listed("nobody", |s| s.members().is_empty()).await;
        eventually("nobody in the watch", || async { watch.latest().filter(|s| s.members().is_empty()) }).await;
        let gone = killed.elapsed() - told;
        let grace = support::harness::timing().grace;
        assert!(gone > grace.mul_f64(0.8) && gone < grace + Duration::from_secs(10), "{gone:?} of {grace:?}");
    }
}

with_provider! {
    /// It sleeps for longer than its check and its session last, while another takes its id; what it
    /// does when it wakes harms nobody.
    async fn a_provider_that_slept_through_its_session_takes_nothing_from_its_successor(bench: Memory) {
        let name = "a_provider_that_slept_through_its_session_takes_nothing_from_its_successor";
        let process = provider(&bench.server, name, "a");
        let pid = u64::from(process.id());
        bench.listed("it", |s| load_of(s, "a") == Some(pid)).await;
        let asleep = bench.owned("a").unwrap();
        process.pause();
        bench.listed("nobody", |s| s.members().is_empty()).await;
        let successor = bench.provider.register(bench.instance("a")).await.unwrap();
        plimsoll_test_servers::probe::state(&successor, "Live", plimsoll_discovery_api::RegistrationState::is_live).await;
        successor.load().set(5);
        successor.load().flush().await.unwrap();
        bench.alone(&successor).await;
        process.resume();
        let until = Instant::now() + TTL + Duration::from_secs(2);
        let life = plimsoll_test_servers::probe::life(&successor);
        while Instant::now() < until {
            let listed = bench.look().await;
            assert_eq!(listed.get("a").map(|m| m.incarnation()), Some(life), "another life is in sight");
            assert_eq!(load_of(&listed, "a"), Some(5), "a load of another life");
            let fence = bench.owned("a").unwrap();
            assert_eq!(fence.life(), Some(life));
            assert_ne!(fence.session, asleep.session);
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(plimsoll_test_servers::probe::life(&successor), life);
    }
}

with_provider! {
    /// Shorter than its session: it is itself again, and has lost nothing.
    async fn a_provider_that_slept_through_its_check_alone_goes_on_as_it_was(bench: Memory) {
        let name = "a_provider_that_slept_through_its_check_alone_goes_on_as_it_was";
        let process = provider(&bench.server, name, "a");
        bench.listed("it", |s| ids(s) == ["a"]).await;
        let before = bench.owned("a").unwrap();
        process.pause();
        bench.listed("nobody", |s| s.members().is_empty()).await;
        process.resume();
        let pid = u64::from(process.id());
        let woken = Instant::now();
        bench.listed("it", |s| ids(s) == ["a"] && load_of(s, "a") == Some(pid)).await;
        assert!(woken.elapsed() < Duration::from_secs(4), "{:?}", woken.elapsed());
        let after = bench.owned("a").unwrap();
        assert_eq!(after.life(), before.life());
        assert_eq!(after.session, before.session);
    }
}

with_provider! {
    async fn of_two_processes_with_one_id_one_owns_it_and_they_never_take_turns(bench: Memory) {
        let name = "of_two_processes_with_one_id_one_owns_it_and_they_never_take_turns";
        let mut first = provider(&bench.server, name, "a");
        let one = u64::from(first.id());
        bench.listed("the first", |s| load_of(s, "a") == Some(one)).await;
        let second = provider(&bench.server, name, "a");
        let two = u64::from(second.id());
        let owner = bench.owned("a").unwrap().life();
        let until = Instant::now() + TTL * 2;
        while Instant::now() < until {
            let listed = bench.look().await;
            assert_eq!(listed.get("a").map(|m| m.incarnation()), owner);
            assert_eq!(load_of(&listed, "a"), Some(one));
            sleep(Duration::from_millis(100)).await;
        }
        block_in_place(|| first.kill());
        bench.listed("the second", |s| load_of(s, "a") == Some(two)).await;
        assert_ne!(bench.owned("a").unwrap().life(), owner);
        assert!(block_in_place(|| agent_services(&bench.server)).len() <= 2);
        // Whatever the first has left is not passed by anybody, nor is it in the way.
        let seen = bench.listed("one member", |s| ids(s) == ["a"]).await;
        assert_eq!(load_of(&seen, "a"), Some(two));
    }
}
