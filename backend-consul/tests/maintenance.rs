//! What an operator says of a node or a service (`consul maint`), which is no failure of either.

mod support;

use plimsoll_backend_kit::escape;
use plimsoll_discovery_api::{Registration, RegistrationState, Registry, Snapshot, Status};
use plimsoll_test_servers::consul::Server;
use plimsoll_test_servers::probe::{self, ids, life, shown, state};
use tokio::task::block_in_place;

use support::operator::{put, service_id};

fn maintain_node(server: &Server, enable: bool) {
    let path = format!("/v1/agent/maintenance?enable={enable}&reason=disk");
    block_in_place(|| put(server, &path, ""));
}

fn maintain(server: &Server, registration: &Registration, enable: bool) {
    let instance = registration.instance();
    let id = service_id(
        instance.service(),
        instance.id().as_str(),
        life(registration),
    );
    let path = format!("/v1/agent/service/maintenance/{}", escape(&id));
    block_in_place(|| put(server, &format!("{path}?enable={enable}&reason=disk"), ""));
}

/// How many are up, of how many that the registry lists; nothing while any is suspect.
fn up_of(snapshot: &Snapshot) -> Option<(usize, usize)> {
    let members = snapshot.members();
    if !members
        .iter()
        .all(|member| member.standing().is_registered())
    {
        return None;
    }
    let up = members
        .iter()
        .filter(|member| member.instance().status() == Status::Up);
    Some((up.count(), members.len()))
}

fault! {
    async fn maintenance_of_the_last_instance_is_out_of_service_and_no_loss(bench: Memory) {
        let registration = bench.live("a").await;
        let before = life(&registration);
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        shown(&mut watch, "it, up", |s| up_of(s) == Some((1, 1))).await;
        for _ in 0..2 {
            maintain(&bench.server, &registration, true);
            shown(&mut watch, "it, out of service", |s| up_of(s) == Some((0, 1))).await;
            bench.listed("the same", |s| up_of(s) == Some((0, 1))).await;
            maintain(&bench.server, &registration, false);
            shown(&mut watch, "it, up again", |s| up_of(s) == Some((1, 1))).await;
        }
        assert!(registration.state().is_live());
        assert_eq!(life(&registration), before, "its life goes on");
    }
}

fault! {
    async fn maintenance_of_three_of_five_is_no_mass_loss(bench: Memory) {
        let mut registrations = Vec::new();
        for id in ["a", "b", "c", "d", "e"] {
            registrations.push(bench.live(id).await);
        }
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        shown(&mut watch, "all up", |s| up_of(s) == Some((5, 5))).await;
        for registration in &registrations[..3] {
            maintain(&bench.server, registration, true);
        }
        shown(&mut watch, "three out of service", |s| up_of(s) == Some((2, 5))).await;
        // Whoever leaves from there leaves at once.
        registrations[0].deregister().await.unwrap();
        shown(&mut watch, "four", |s| up_of(s) == Some((2, 4))).await;
    }
}

fault! {
    async fn registering_under_node_maintenance_is_live_and_out_of_service_until_it_ends(bench: Memory) {
        maintain_node(&bench.server, true);
        let registration = bench.provider.register(bench.instance("a")).await.unwrap();
        probe::ready(&registration).await;
        let out = |s: &Snapshot| ids(s) == ["a"] && up_of(s) == Some((0, 1));
        bench.listed("it, out of service", out).await;
        let mut watch = bench.consumer.watch(&bench.service).await.unwrap();
        shown(&mut watch, "it, out of service", out).await;
        maintain_node(&bench.server, false);
        shown(&mut watch, "it, up", |s| up_of(s) == Some((1, 1))).await;
        state(&registration, "Live", RegistrationState::is_live).await;
        maintain_node(&bench.server, true);
        shown(&mut watch, "it, out of service again", out).await;
        registration.deregister().await.unwrap();
        shown(&mut watch, "nobody, at once", |s| s.members().is_empty()).await;
    }
}
