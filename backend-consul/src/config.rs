//! Settings that were found to be good, and what follows from them.

use std::fmt;
use std::time::Duration;

use plimsoll_backend_kit::{Credential, Timings};

use crate::tls::Tls;

/// An idle server is told from a mute one by its check, and its load goes with its session. So an
/// unchanged load is written again only so that a key that somebody has taken away is missed.
const LOAD_MAX_AGE: Duration = Duration::from_secs(600);
/// A list without its loads is better than none: it waits for the reading of them to fail.
const LIST_MARGIN: Duration = Duration::from_millis(500);
/// So many calls are under way at most. Each has a connection, a list two, and passes and the session
/// have nine; an agent grants 200 to one address, which is enough for two handles and some of the
/// blocking queries, each of which has one of its own.
const ABREAST: usize = 40;
/// The checks of a process lapse together, but for the way each takes to the servers.
const SETTLE: Duration = Duration::from_millis(250);

/// How sure a list or a watch must be of its answer.
/// See [Consul's consistency modes](https://developer.hashicorp.com/consul/api-docs/features/consistency).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// The leader answers, and makes sure of being the leader.
    Consistent,
    /// The leader answers; for an instant after an election, two may think that they are.
    #[default]
    Default,
    /// Any server answers with what it knows, though there be no leader. Answers may go back in time:
    /// those that do are asked for again, before they are believed.
    Stale,
}

/// What a handle was built with.
pub(crate) struct Config {
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) tls: Option<Tls>,
    /// A secret.
    pub(crate) token: Option<Credential>,
    pub(crate) datacenter: Option<String>,
    pub(crate) namespace: Option<String>,
    /// Without outer slashes; may be empty.
    pub(crate) root: String,
    pub(crate) ttl: Duration,
    pub(crate) session_ttl: Duration,
    pub(crate) deregister_after: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) wait: Duration,
    pub(crate) load_poll: Duration,
    pub(crate) consistency: Consistency,
    pub(crate) node_health: bool,
    pub(crate) name: String,
    pub(crate) timings: Timings,
}

impl Config {
    /// Between two beats: the TTL of check and session, twice over.
    pub(crate) fn beat(&self) -> Duration {
        self.ttl.min(self.session_ttl) / 2
    }

    /// How old a pass may be that counts as one of the last beat.
    pub(crate) fn fresh_pass(&self) -> Duration {
        self.beat().mul_f64(1.25)
    }

    /// An owner believes in its record for no longer than its check stands, and asks whether it does
    /// often enough to see a beat that fails.
    pub(crate) fn timings(&self, load_interval: Duration) -> Timings {
        let mut timings = Timings::default();
        let lease = self.ttl.min(self.session_ttl);
        timings.call_timeout = self.request_timeout;
        timings.list_timeout = timings.list_timeout.max(self.request_timeout + LIST_MARGIN);
        timings.lease = Some(lease.saturating_sub(self.fresh_pass()));
        timings.renew_interval = lease / 4;
        timings.backoff.cap = Duration::from_secs(5);
        timings.admission.most = ABREAST;
        timings.load.min_interval = load_interval;
        timings.load.settle = load_interval;
        timings.load.max_age = LOAD_MAX_AGE.max(load_interval);
        timings.hold_down.settle = SETTLE;
        timings.hold_down.grace = timings.hold_down.grace.max(self.ttl * 3);
        timings
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("address", &self.address)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("datacenter", &self.datacenter)
            .field("namespace", &self.namespace)
            .field("root", &self.root)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConsulBuilder;

    #[test]
    fn a_list_outlasts_its_requests_and_a_load_at_rest_is_written_six_times_an_hour() {
        let timings = |timeout: u64, interval: u64| {
            let builder = ConsulBuilder::new("h")
                .with_request_timeout(Duration::from_secs(timeout))
                .with_load_interval(Duration::from_secs(interval));
            let registry = builder.build().unwrap();
            plimsoll_backend_kit::Driver::timings(registry.0.driver())
        };
        for timeout in [1, 3, 60] {
            let list = timings(timeout, 15).list_timeout;
            assert!(list > Duration::from_secs(timeout), "{list:?}");
        }
        assert!(timings(1, 15).list_timeout >= Timings::default().list_timeout);
        assert_eq!(timings(3, 15).load.max_age, Duration::from_secs(3_600) / 6);
        assert_eq!(timings(3, 3_600).load.max_age, Duration::from_secs(3_600));
    }

    #[test]
    fn an_owner_never_believes_in_its_record_for_longer_than_the_check_stands() {
        for (ttl, session) in [(15, 15), (5, 10), (60, 10), (1, 10), (3_600, 3_600)] {
            let (ttl, session) = (Duration::from_secs(ttl), Duration::from_secs(session));
            let builder = ConsulBuilder::new("h")
                .with_ttl(ttl)
                .with_session_ttl(session);
            let registry = builder.build().unwrap();
            let timings = plimsoll_backend_kit::Driver::timings(registry.0.driver());
            // The pass that a renewal reports is at most a beat and a quarter old.
            let oldest = ttl.min(session).mul_f64(0.625);
            let believed = timings.lease.unwrap() + oldest;
            assert!(
                believed <= ttl.min(session),
                "{ttl:?} {session:?} {believed:?}"
            );
            assert!(timings.renew_interval.mul_f64(1.1) < timings.lease.unwrap());
        }
    }
}
