//! The contract: as it is, with the directory gone in outages, and behind nested pointers, with
//! something else in its place.

mod support;

mod plain {
    plimsoll_discovery_api::conformance_tests! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async { crate::support::DirHarness::new(false, false) }
    }
}

mod nested {
    plimsoll_discovery_api::conformance_tests! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async { crate::support::DirHarness::new(true, true) }
    }
}
