//! Picking while endpoints that were left out are being tried.

use std::ops::Deref;
use std::sync::Arc;

use plimsoll_discovery_api::{Admission, Clock, Endpoint, Exclusion, Pick, Rng};

use super::{NoEndpointReason, View};

impl View {
    /// A pick, and whether it is a trial that has been claimed.
    ///
    /// Whoever comes first tries an endpoint that is on offer. A request with a key does so only if
    /// its key leads there: it may belong to a session that lives elsewhere. Everybody else is sent
    /// where nothing is on trial, as long as there is such an endpoint.
    #[cold]
    pub(super) fn pick_or_try(
        &self,
        key: Option<u64>,
        excluded: &[Arc<Endpoint>],
        rng: &mut Rng,
        clock: &dyn Clock,
    ) -> Result<(&Arc<Endpoint>, bool), NoEndpointReason> {
        if self.trials.is_empty() {
            return Ok((self.pick(key, excluded, rng, clock)?, false));
        }
        let tried = Exclusion::listed(excluded);
        if key.is_some() {
            let endpoint = self.pick(key, excluded, rng, clock)?;
            if endpoint.admission() == Admission::Admitted {
                return Ok((endpoint, false));
            }
            if endpoint.claim_trial() {
                return Ok((endpoint, true));
            }
        } else if let Some(endpoint) = self
            .trials
            .iter()
            .find(|e| !tried.excludes(e) && e.claim_trial())
        {
            return Ok((endpoint, true));
        }
        // By what they are now: there may be many, and some have failed since the view was made.
        let is_out = |endpoint: &Endpoint| endpoint.admission() != Admission::Admitted;
        let on_trial = Exclusion::by(&is_out).and(Some(&tried));
        let endpoint = match self.pick_without(key, &on_trial, rng, clock) {
            // Only those on trial are left: better a second request there than none.
            Err(NoEndpointReason::AllExcluded) => self.pick(key, excluded, rng, clock)?,
            picked => picked?,
        };
        Ok((endpoint, false))
    }
}

/// Counts the request that was picked.
pub(super) fn begin<E: Deref<Target = Endpoint>>(endpoint: E, is_trial: bool) -> Pick<E> {
    if is_trial {
        Pick::on_trial(endpoint)
    } else {
        Pick::new(endpoint)
    }
}
