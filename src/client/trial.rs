//! Picking while endpoints that were left out are being tried.

use std::ops::Deref;
use std::sync::Arc;

use plimsoll_discovery_api::{Clock, Endpoint, Exclusion, Pick, Rng};

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
            if !self.is_on_trial(endpoint) {
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
        let on_trial = Exclusion::listed(&self.trials).and(Some(&tried));
        let endpoint = match self.pick_without(key, &on_trial, rng, clock) {
            // All but those on trial have been tried: better a second request there than none.
            Err(NoEndpointReason::AllExcluded) => self.pick(key, excluded, rng, clock)?,
            picked => picked?,
        };
        Ok((endpoint, false))
    }

    fn is_on_trial(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.trials.iter().any(|trial| Arc::ptr_eq(trial, endpoint))
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
