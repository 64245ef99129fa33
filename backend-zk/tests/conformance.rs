//! The contract, held against real servers: as they are, behind nested pointers with outages in
//! which nothing is refused and nothing answered, and against the newest release.
//! Those that are not named are of the release that `PLIMSOLL_TEST_ZK` chooses.

mod support;

/// One test of each case; without a server it says loudly that nothing was tested.
macro_rules! conformance {
    ($available:ident $start:expr; $($module:ident { $($case:ident)+ })+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                use plimsoll_test_servers::{Mode, zk};
                use crate::support::harness::ZkHarness;

                if zk::$available() {
                    let harness = $start;
                    // On the heap: some cases are larger than what is comfortable on a test's stack.
                    Box::pin(plimsoll_discovery_api::conformance::$module::$case(&harness)).await;
                }
            }
        )+)+
    };
}

mod plain {
    plimsoll_discovery_api::__conformance_cases! {
        [conformance] available ZkHarness::start(Mode::Refuse, false);
    }
}

mod nested {
    plimsoll_discovery_api::__conformance_cases! {
        [conformance] available ZkHarness::start(Mode::Hold, true);
    }
}

/// The newest release that can be had.
mod newest {
    plimsoll_discovery_api::__conformance_cases! {
        [conformance] newest_available ZkHarness::of_newest_release(Mode::Refuse);
    }
}
