//! Which endpoints may get traffic at all.

use std::sync::Arc;

use plimsoll_discovery_api::{Endpoint, Endpoints, Error, Health, Result};

/// Leaves out the endpoints of weight zero: the very same list where there are none.
///
/// # Errors
/// `InvalidArgument` if there are endpoints and all of them weigh nothing.
pub(crate) fn eligible(endpoints: &Endpoints) -> Result<Endpoints> {
    weighed(endpoints).map(|(eligible, _)| eligible)
}

/// The same, and what each of them weighs.
///
/// # Errors
/// As [`eligible`].
pub(crate) fn weighed(endpoints: &Endpoints) -> Result<(Endpoints, Vec<f64>)> {
    let mut weights = weights(endpoints);
    if weights.iter().all(|&weight| weight > 0.0) {
        return Ok((Arc::clone(endpoints), weights));
    }
    let some = endpoints.iter().zip(&weights);
    let eligible: Endpoints = some
        .filter(|&(_, &weight)| weight > 0.0)
        .map(|(endpoint, _)| Arc::clone(endpoint))
        .collect();
    if eligible.is_empty() {
        return Err(Error::invalid("weight", 0, "is zero for every endpoint")
            .with_context("endpoints", endpoints.len().to_string()));
    }
    weights.retain(|&weight| weight > 0.0);
    Ok((eligible, weights))
}

/// Whether nothing is known to be wrong with it: neither unhealthy nor suspect.
pub(crate) fn is_well(endpoint: &Endpoint) -> bool {
    endpoint.health() != Health::Unhealthy && !endpoint.is_suspect()
}

/// The weight of each.
pub(crate) fn weights(endpoints: &Endpoints) -> Vec<f64> {
    endpoints
        .iter()
        .map(|endpoint| f64::from(endpoint.weight().get()))
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
    fn the_weightless_are_left_out_and_the_others_keep_their_order_and_weights() {
        let all = testing::weighted(&[0, 3, 0, 1, 2, 0]);
        let (some, weights) = weighed(&all).unwrap();
        let kept: Vec<_> = [1, 3, 4].map(|index: usize| &all[index]).into();
        assert!(
            some.iter()
                .zip(kept)
                .all(|(one, other)| Arc::ptr_eq(one, other))
        );
        assert_eq!((some.len(), weights), (3, vec![3.0, 1.0, 2.0]));
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
