//! What every builder of a networked backend lets its user set of the shared machinery.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use plimsoll_discovery_api::Result;

use super::invalid_setting;
use crate::Timings;

type Change = Box<dyn FnOnce(&mut Timings) + Send>;

/// A load that is published more rarely is none.
const MAX_LOAD_INTERVAL: Duration = Duration::from_secs(86_400);

/// How the machinery is to time what it does, as far as that is the user's to say.
#[derive(Default)]
pub struct CommonSettings {
    /// The shortest time between two publications of a load; the backend's own, unless it is set.
    pub load_interval: Option<Duration>,
    changes: Vec<Change>,
}

impl CommonSettings {
    /// Has `change` applied to the timings in the end, after those that were given before.
    pub fn change_timings(&mut self, change: impl FnOnce(&mut Timings) + Send + 'static) {
        self.changes.push(Box::new(change));
    }

    /// The timings of a handle whose backend has these.
    ///
    /// # Errors
    /// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming `load_interval`, if
    /// that is more than a day.
    pub fn apply(self, mut timings: Timings) -> Result<Timings> {
        if let Some(interval) = self.load_interval {
            check_span(
                "load_interval",
                interval,
                Duration::ZERO..=MAX_LOAD_INTERVAL,
            )?;
            timings.load.min_interval = interval;
            timings.load.settle = interval;
            timings.load.max_age = timings.load.max_age.max(interval);
        }
        for change in self.changes {
            change(&mut timings);
        }
        Ok(timings)
    }
}

impl fmt::Debug for CommonSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonSettings")
            .field("load_interval", &self.load_interval)
            .field("changes", &self.changes.len())
            .finish()
    }
}

/// Checks that the setting `name` is within its bounds.
///
/// # Errors
/// [`InvalidConfig`](plimsoll_discovery_api::ErrorKind::InvalidConfig) naming it, its value and its
/// bounds.
pub fn check_span(
    name: &'static str,
    span: Duration,
    bounds: RangeInclusive<Duration>,
) -> Result<()> {
    if bounds.contains(&span) {
        return Ok(());
    }
    let why = format!("is not between {:?} and {:?}", bounds.start(), bounds.end());
    Err(invalid_setting(name, &format!("{span:?}"), &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_bounds_what_goes_unpublished_and_later_changes_prevail() {
        let second = Duration::from_secs(1);
        let mut settings = CommonSettings {
            load_interval: Some(second * 500),
            ..CommonSettings::default()
        };
        settings.change_timings(|timings| timings.call_timeout = Duration::from_secs(7));
        settings.change_timings(|timings| timings.call_timeout *= 2);
        let timings = settings.apply(Timings::default()).unwrap();
        assert_eq!(timings.call_timeout, second * 14);
        let load = timings.load;
        assert_eq!(
            (load.min_interval, load.settle),
            (second * 500, second * 500)
        );
        assert!(load.max_age >= second * 500);
        let unchanged = CommonSettings::default().apply(Timings::default());
        assert_eq!(unchanged.unwrap(), Timings::default());
    }

    #[test]
    fn what_is_out_of_bounds_is_named_with_its_value_and_its_bounds() {
        let settings = CommonSettings {
            load_interval: Some(MAX_LOAD_INTERVAL + Duration::from_nanos(1)),
            ..CommonSettings::default()
        };
        let error = settings.apply(Timings::default()).unwrap_err().to_string();
        for part in ["load_interval", "86400.000000001s", "0ns and 86400s"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
