//! Which endpoints may get traffic at all.

use std::sync::Arc;

use plimsoll_discovery_api::{Endpoint, Endpoints, Error, Health, Result};

/// Leaves out the endpoints of weight zero: the very same list where there are none.
///
/// # Errors
/// `InvalidArgument` if there are endpoints and all of them weigh nothing.
pub(crate) fn eligible(endpoints: &Endpoints) -> Result<Endpoints> {
    let may = |endpoint: &&Arc<Endpoint>| endpoint.instance().weight().get() != 0;
    let Some(first) = endpoints.iter().position(|e| !may(&e)) else {
        return Ok(Arc::clone(endpoints));
    };
    let (before, after) = endpoints.split_at(first);
    let rest = after.iter().skip(1).filter(may);
    let eligible: Endpoints = before.iter().chain(rest).map(Arc::clone).collect();
    if eligible.is_empty() {
        return Err(Error::invalid("weight", 0, "is zero for every endpoint")
            .with_context("endpoints", endpoints.len().to_string()));
    }
    Ok(eligible)
}

/// Whether nothing is known to be wrong with it: neither unhealthy nor suspect.
pub(crate) fn is_well(endpoint: &Endpoint) -> bool {
    endpoint.health() != Health::Unhealthy && !endpoint.is_suspect()
}

/// The weight of each.
pub(crate) fn weights(endpoints: &Endpoints) -> Vec<f64> {
    endpoints
        .iter()
        .map(|endpoint| f64::from(endpoint.instance().weight().get()))
        .collect()
}

#[cfg(test)]
mod tests {
    use plimsoll_discovery_api::ErrorKind;

    use super::*;
    use crate::testing;

    #[test]
    fn an_untouched_list_is_not_copied() {
        let all = testing::endpoints(3);
        assert!(Arc::ptr_eq(&all, &eligible(&all).unwrap()));
    }

    #[test]
    fn only_weightless_endpoints_is_an_error_that_says_so_and_none_at_all_is_not() {
        let error = eligible(&testing::weighted(&[0, 0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            error.to_string(),
            "invalid argument: weight is zero for every endpoint (weight: 0, endpoints: 2)"
        );
        assert!(eligible(&testing::endpoints(0)).unwrap().is_empty());
    }
}
