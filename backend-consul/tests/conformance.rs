//! The contract, held against a real agent: as it is, and behind nested pointers with outages in
//! which nothing is refused and nothing answered.

mod support;

/// One test of each case; without an agent it says loudly that nothing was tested.
macro_rules! conformance {
    ($outage:ident $nested:literal $($module:ident { $($case:ident)+ })+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                use crate::support::harness::ConsulHarness;
                use plimsoll_test_servers::{Mode, consul};

                if consul::available() {
                    let harness = ConsulHarness::start(Mode::$outage, $nested);
                    // On the heap: some cases are larger than what is comfortable on a test's stack.
                    Box::pin(plimsoll_discovery_api::conformance::$module::$case(&harness)).await;
                }
            }
        )+)+
    };
}

mod plain {
    plimsoll_discovery_api::__conformance_cases! { [conformance] Refuse false }
}

mod nested {
    plimsoll_discovery_api::__conformance_cases! { [conformance] Hold true }
}
