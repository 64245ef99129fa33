//! Names of what failed.

use plimsoll_discovery_api::Error;

use crate::Driver;

/// Names who failed at what.
pub(crate) fn named<D: Driver>(driver: &D, operation: &'static str, error: Error) -> Error {
    error
        .with_backend(driver.capabilities().backend)
        .with_operation(operation)
}
