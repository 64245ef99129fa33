//! The contract, held against real servers: as they are, behind nested pointers with outages in
//! which nothing is refused and nothing answered, and against the newest and the oldest releases.
//! Those that are not named are of the release that `PLIMSOLL_TEST_ZK` chooses.

mod support;

/// One test of each case; without a server it says loudly that nothing was tested.
macro_rules! conformance {
    ($available:ident $start:expr; $($module:ident { $($case:ident)+ })+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                use plimsoll_test_servers::{Mode, zk};
                #[allow(unused_imports, reason = "for those that seem old")]
                use crate::support::{harness::ZkHarness, old_release::OldRelease};

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

/// Without watches on whole branches and reads of several nodes at once.
mod v3_5 {
    plimsoll_discovery_api::__conformance_cases! {
        [conformance] v3_5_available ZkHarness::of_3_5(Mode::Refuse);
    }
}

/// Without container nodes besides.
mod as_3_5_0 {
    plimsoll_discovery_api::__conformance_cases! {
        [conformance] available ZkHarness::of_old_release(OldRelease::V3_5_0, Mode::Hold);
    }
}
