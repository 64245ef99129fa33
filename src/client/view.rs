//! What a client knows at one moment.

use std::sync::Arc;

use plimsoll_discovery_api::{
    Clock, Endpoint, Endpoints, Error, Exclusion, PickContext, Picker, Rng, Snapshot,
};

use super::NoEndpointReason;

/// How often a picker that heeds no exclusion is asked before the choice falls to chance. One
/// that draws at random, with half of the endpoints excluded, comes to that 1 time in 16.
const TRIES_AROUND_EXCLUDED: usize = 4;

/// What a client knows at one moment: the set, who of it may be picked, and what picks. Immutable
/// and consistent in itself; the endpoints in it go on counting.
#[derive(Debug)]
pub struct View {
    /// How many there were before it.
    pub(super) generation: u64,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) endpoints: Endpoints,
    pub(super) eligible: Endpoints,
    /// Those of them that may be had for one trial at a time only; nearly always none.
    pub(super) trials: Endpoints,
    pub(super) failing_open: bool,
    pub(super) choice: Choice,
}

/// What picks, or why nothing can.
pub(super) type Choice = Result<Arc<dyn Picker>, Nothing>;

/// Why nothing can be picked, with the balancer's or the registry's error if it is the reason.
#[derive(Clone, Debug)]
pub(super) struct Nothing {
    pub(super) reason: NoEndpointReason,
    pub(super) source: Option<Error>,
}

impl From<NoEndpointReason> for Nothing {
    fn from(reason: NoEndpointReason) -> Self {
        Self {
            reason,
            source: None,
        }
    }
}

impl View {
    /// Before the registry's first answer.
    pub(super) fn unknown() -> Self {
        Self {
            generation: 0,
            snapshot: None,
            endpoints: Arc::new([]),
            eligible: Arc::new([]),
            trials: Arc::new([]),
            failing_open: false,
            choice: Err(NoEndpointReason::NotYetKnown.into()),
        }
    }

    /// The same, after an attempt to reach it has failed.
    pub(super) fn unanswered(error: Error) -> Self {
        Self {
            choice: Err(Nothing {
                reason: NoEndpointReason::NotYetKnown,
                source: Some(error),
            }),
            ..Self::unknown()
        }
    }

    /// The same of all else, with another word of the registry's on the same members.
    pub(super) fn with_snapshot(&self, snapshot: Arc<Snapshot>) -> Self {
        Self {
            generation: 0,
            snapshot: Some(snapshot),
            endpoints: Arc::clone(&self.endpoints),
            eligible: Arc::clone(&self.eligible),
            trials: Arc::clone(&self.trials),
            failing_open: self.failing_open,
            choice: self.choice.clone(),
        }
    }

    /// What the registry said; `None` before its first answer.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// An endpoint for each member of the snapshot, sorted by id.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Those that may be picked, sorted by id.
    #[must_use]
    pub fn eligible(&self) -> &Endpoints {
        &self.eligible
    }

    /// Whether unhealthy or suspect endpoints may be picked because too few others are left.
    #[must_use]
    pub fn is_failing_open(&self) -> bool {
        self.failing_open
    }

    /// Why nothing can be picked; `None` if something can.
    #[must_use]
    pub fn nothing(&self) -> Option<NoEndpointReason> {
        self.choice.as_ref().err().map(|nothing| nothing.reason)
    }

    /// The balancer's choice among all; `None` if it has none, or there is nothing to choose from.
    /// A reference alone comes back in a register.
    #[inline]
    pub(super) fn first_choice(
        &self,
        key: Option<u64>,
        rng: &mut Rng,
        clock: &dyn Clock,
    ) -> Option<&Arc<Endpoint>> {
        let picker = self.choice.as_ref().ok()?;
        picker.pick(&mut PickContext::new(rng, clock).with_key(key))
    }

    /// The balancer's choice among those that are not listed here.
    pub(super) fn pick(
        &self,
        key: Option<u64>,
        excluded: &[Arc<Endpoint>],
        rng: &mut Rng,
        clock: &dyn Clock,
    ) -> Result<&Arc<Endpoint>, NoEndpointReason> {
        if excluded.is_empty() {
            let choice = self.first_choice(key, rng, clock);
            choice.ok_or_else(|| self.no_choice())
        } else {
            self.pick_without(key, &Exclusion::listed(excluded), rng, clock)
        }
    }

    /// Why [`first_choice`](Self::first_choice) has none.
    #[cold]
    pub(super) fn no_choice(&self) -> NoEndpointReason {
        self.nothing().unwrap_or(NoEndpointReason::Unbalanceable)
    }

    /// The balancer's choice among those that are not excluded.
    pub(super) fn pick_without(
        &self,
        key: Option<u64>,
        exclusion: &Exclusion<'_>,
        rng: &mut Rng,
        clock: &dyn Clock,
    ) -> Result<&Arc<Endpoint>, NoEndpointReason> {
        let picker = match &self.choice {
            Ok(picker) => &**picker,
            Err(nothing) => return Err(nothing.reason),
        };
        let context = PickContext::new(rng, clock).with_key(key);
        self.pick_other(picker, &mut context.with_exclusion(Some(exclusion)))
    }

    /// What the picker chooses of those that are not excluded. One that names an excluded endpoint
    /// all the same, against its contract, is asked a few times, as it may draw at random; then
    /// chance decides, by weight.
    #[cold]
    fn pick_other<'a>(
        &'a self,
        picker: &'a dyn Picker,
        context: &mut PickContext<'_>,
    ) -> Result<&'a Arc<Endpoint>, NoEndpointReason> {
        for _ in 0..TRIES_AROUND_EXCLUDED {
            let Some(endpoint) = picker.pick(context) else {
                let mut any = context.reborrow().with_exclusion(None);
                return Err(match picker.pick(&mut any) {
                    Some(_) => NoEndpointReason::AllExcluded,
                    None => NoEndpointReason::Unbalanceable,
                });
            };
            if !context.excludes(endpoint) {
                return Ok(endpoint);
            }
        }
        let other = context.draw_by_weight(&self.eligible);
        other.ok_or(NoEndpointReason::AllExcluded)
    }

    /// The balancer's or the registry's error, if that is why nothing can be picked.
    pub(super) fn source_of(&self, reason: NoEndpointReason) -> Option<Error> {
        let nothing = self
            .choice
            .as_ref()
            .err()
            .filter(|nothing| nothing.reason == reason)?;
        nothing.source.clone()
    }
}
