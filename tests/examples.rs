//! The short examples run to their end, and hold what they assert on the way.

#![allow(dead_code, reason = "of some another function than main is run")]

#[path = "../examples/own_balancer.rs"]
mod own_balancer;
#[path = "../examples/own_listener.rs"]
mod own_listener;
#[path = "../examples/shared_registry.rs"]
mod shared_registry;
#[path = "../examples/test_with_faults.rs"]
mod test_with_faults;

#[test]
fn a_listener_of_ones_own_serves_and_leaves() {
    own_listener::main().unwrap();
}

#[test]
fn a_balancer_of_ones_own_picks_and_picks_again() {
    own_balancer::main().unwrap();
}

#[tokio::test]
async fn one_handle_serves_servers_and_clients() {
    shared_registry::run("memory://shared-example")
        .await
        .unwrap();
}

#[test]
fn a_test_with_faults_passes() {
    test_with_faults::main().unwrap();
}
