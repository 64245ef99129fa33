//! Checks that parameters of several algorithms share.

use std::time::Duration;

use plimsoll_discovery_api::{Error, Result};

/// A part of a whole: 0 to 1.
pub(crate) fn share(field: &'static str, value: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(Error::invalid(field, value, "is not between 0 and 1"))
    }
}

/// A time above zero.
pub(crate) fn span(field: &'static str, value: Duration) -> Result<Duration> {
    if value.is_zero() {
        Err(Error::invalid(field, "0s", "is zero"))
    } else {
        Ok(value)
    }
}

/// A count of at least `least`.
pub(crate) fn at_least(field: &'static str, value: usize, least: usize) -> Result<usize> {
    if value >= least {
        Ok(value)
    } else {
        Err(Error::invalid(field, value, &format!("is below {least}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named_with_its_value() {
        let said = |error: Error| error.to_string();
        for value in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let expected = format!("invalid argument: part is not between 0 and 1 (part: {value})");
            assert_eq!(said(share("part", value).unwrap_err()), expected);
        }
        assert_eq!(
            (share("part", 0.0).unwrap(), share("part", 1.0).unwrap()),
            (0.0, 1.0)
        );
        assert_eq!(
            said(span("window", Duration::ZERO).unwrap_err()),
            "invalid argument: window is zero (window: 0s)"
        );
        assert_eq!(
            said(at_least("size", 1, 2).unwrap_err()),
            "invalid argument: size is below 2 (size: 1)"
        );
    }
}
