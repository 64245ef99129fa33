//! Running an operation where it works.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Admission, Endpoint, Exclusion, Outcome};
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout, timeout_at};

use super::attempt::outcome_of;
use super::limits::{self, Limits};
use super::{Attempt, CallError, Client, NoEndpoint, NoEndpointReason, PickRequest, TimedPick};

impl Client {
    /// Picks an endpoint and runs `operation` on it; if that fails in a way that
    /// [allows it](Attempt), again on another.
    ///
    /// # Attempts
    /// Each goes to an endpoint that has not been tried. Those that did something, or may have, are
    /// at most [`with_max_attempts`](super::ClientBuilder::with_max_attempts); those that could not
    /// reach their endpoint do not count towards that. When every endpoint has been tried, the call
    /// pauses, for 50 ms at first and twice as long each time up to 1 s, half of it at random, and
    /// begins anew, the only endpoint of a service included: a restart of it costs time and no
    /// call. Every attempt but the first takes from the client's
    /// [retry budget](super::ClientBuilder::with_retry_budget); when that is empty the last error
    /// stands, but for a service of one instance: there the call waits for its return.
    ///
    /// # Time
    /// Two limits hold. One is
    /// [per attempt](super::ClientBuilder::with_attempt_timeout): what exceeds it counts against
    /// the endpoint as [`TimedOut`](Outcome::TimedOut), and the operation is tried elsewhere if the
    /// request is [idempotent](PickRequest::idempotent). The other is
    /// [per call](super::ClientBuilder::with_call_timeout), pauses included. A timeout of your own
    /// round the call drops it, and nothing is tried elsewhere; the endpoint is judged by how long
    /// it was waited for, but only after [several in a row](super::FailureAccrual).
    ///
    /// If there is no endpoint, the call waits for one, up to
    /// [`with_endpoint_wait`](super::ClientBuilder::with_endpoint_wait).
    ///
    /// # Outcomes
    /// Each attempt is reported to its endpoint with the time it took, an error of any kind as a
    /// failure: an answer that says no (a 404) belongs in `T`. The request ends with the future
    /// that `operation` returns; for a response that is read afterwards there is
    /// [`call_with_pick`](Self::call_with_pick).
    ///
    /// # Cancel safety
    /// If the future is dropped, so is the attempt under way, and it counts as cancelled after the
    /// time it took until then.
    ///
    /// # Errors
    /// [`CallError`], saying whether it was tried at all.
    pub async fn call<T, E, Op, Fut>(
        &self,
        request: &PickRequest<'_>,
        operation: Op,
    ) -> Result<T, CallError<E>>
    where
        E: 'static,
        Op: FnMut(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<T, Attempt<E>>>,
    {
        let (value, pick) = self.call_with_pick(request, operation).await?;
        pick.finish(Outcome::Success);
        Ok(value)
    }

    /// [`call`](Self::call), but the request goes on: the caller gets the pick with the value, and
    /// says when and how it has ended, say when a response's body has been read.
    ///
    /// ```
    /// # use std::{io, sync::Arc};
    /// # use plimsoll::{AttemptExt, Client, Endpoint, Outcome, PickRequest};
    /// # use tokio::{io::AsyncReadExt, net::TcpStream};
    /// # async fn fetch(client: &Client) -> Result<String, Box<dyn std::error::Error>> {
    /// let any = PickRequest::new();
    /// let open = async |endpoint: Arc<Endpoint>| {
    ///     TcpStream::connect(endpoint.instance().authority()).await.or_unreachable()
    /// };
    /// let (mut stream, pick) = client.call_with_pick(&any, open).await?;
    /// let mut body = String::new();
    /// stream.read_to_string(&mut body).await?;
    /// pick.finish(Outcome::Success);
    /// # Ok(body) }
    /// ```
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_with_pick<T, E, Op, Fut>(
        &self,
        request: &PickRequest<'_>,
        operation: Op,
    ) -> Result<(T, TimedPick), CallError<E>>
    where
        E: 'static,
        Op: FnMut(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<T, Attempt<E>>>,
    {
        let call = Call {
            client: self,
            request,
            limits: self.tasks.limits,
            tried: request.excluded().to_vec(),
            attempts: 0,
            counted: 0,
            round: 0,
            deadline: self
                .tasks
                .limits
                .call_timeout
                .and_then(|limit| Instant::now().checked_add(limit)),
        };
        call.run(operation).await
    }
}

/// One call, from its first attempt to its last.
struct Call<'a> {
    client: &'a Client,
    request: &'a PickRequest<'a>,
    limits: Limits,
    /// What the request excludes, and then what was tried in this round.
    tried: Vec<Arc<Endpoint>>,
    attempts: u32,
    /// Those that may have done something.
    counted: u32,
    /// How often every endpoint has been tried.
    round: u32,
    deadline: Option<Instant>,
}

/// An attempt that failed in a way that allows another.
struct Failed<E> {
    endpoint: Arc<Endpoint>,
    /// Whether it was not answered in time.
    unanswered: bool,
    /// Its own, or that of an attempt before.
    error: Option<E>,
    limit: Duration,
}

impl Call<'_> {
    async fn run<T, E, Op, Fut>(mut self, mut operation: Op) -> Result<(T, TimedPick), CallError<E>>
    where
        E: 'static,
        Op: FnMut(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<T, Attempt<E>>>,
    {
        if let Some(budget) = &self.client.tasks.budget {
            budget.earn();
        }
        let mut last: Option<Failed<E>> = None;
        loop {
            let pick = match last.take() {
                None => self.first_pick().await.map_err(CallError::NoEndpoint)?,
                Some(failed) => match self.next_pick().await {
                    Some(pick) => {
                        last = Some(failed);
                        pick
                    }
                    None => return Err(self.exhausted(failed)),
                },
            };
            self.attempts += 1;
            let endpoint = Arc::clone(pick.endpoint());
            let (limit, is_whole) = self.limit();
            let error = match timeout(limit, operation(Arc::clone(&endpoint))).await {
                Ok(Ok(value)) => return Ok((value, pick)),
                Ok(Err(Attempt::Final(error))) => {
                    pick.finish(outcome_of(&error, false));
                    let service = self.client.service().clone();
                    return Err(CallError::Final {
                        service,
                        endpoint,
                        error,
                    });
                }
                Ok(Err(Attempt::Unreachable(error))) => {
                    pick.finish(Outcome::Unreachable);
                    Some(error)
                }
                Ok(Err(Attempt::Retry(error))) => {
                    let outcome = outcome_of(&error, true);
                    self.counted += u32::from(outcome != Outcome::Unreachable);
                    pick.finish(outcome);
                    Some(error)
                }
                Err(_) => {
                    // What is left of the call's time may be less than a fair chance.
                    pick.finish(if is_whole {
                        Outcome::TimedOut
                    } else {
                        Outcome::Cancelled
                    });
                    self.counted += 1;
                    None
                }
            };
            let unanswered = error.is_none();
            let before = last.take().and_then(|failed: Failed<E>| failed.error);
            let failed = Failed {
                endpoint,
                unanswered,
                error: error.or(before),
                limit,
            };
            let ends = (unanswered && !self.request.is_idempotent())
                || self.counted >= self.limits.max_attempts
                || self.limits.max_attempts == 1
                || self.is_over();
            if ends {
                return Err(self.exhausted(failed));
            }
            self.tried.push(Arc::clone(&failed.endpoint));
            last = Some(failed);
        }
    }

    /// Something to try; waits where there is nothing, which may pass.
    async fn first_pick(&self) -> Result<TimedPick, NoEndpoint> {
        let client = self.client;
        let patience = Instant::now().checked_add(self.limits.endpoint_wait);
        let until = [patience, self.deadline].into_iter().flatten().min();
        loop {
            // Listening begins before looking, so that no change falls in between.
            let mut changed = pin!(client.shared.changed.notified());
            changed.as_mut().enable();
            let reason = match client.try_pick(self.request.key(), &self.tried) {
                Ok(pick) => return Ok(pick),
                Err(reason) => reason,
            };
            let may_pass = matches!(
                reason,
                NoEndpointReason::NotYetKnown
                    | NoEndpointReason::NoneRegistered
                    | NoEndpointReason::AllUnavailable
                    | NoEndpointReason::AllUnhealthy
            );
            if !may_pass || !wait(changed, until).await {
                return Err(client.refuse(reason));
            }
        }
    }

    /// Something to try again on: what has not been tried in this round, if the budget allows it,
    /// and after a pause everything. `None` if there is to be no further attempt.
    async fn next_pick(&mut self) -> Option<TimedPick> {
        let client = self.client;
        let gone_by = Instant::now().checked_add(self.limits.endpoint_wait);
        loop {
            let may = if self.has_untried() {
                client.may_retry()
            } else {
                let recovered = self.pause().await;
                if self.is_over() {
                    return None;
                }
                if self.has_untried() {
                    continue;
                }
                self.begin_round();
                if !self.has_untried() {
                    // Everybody has left.
                    if gone_by.is_some_and(|by| by <= Instant::now()) {
                        return None;
                    }
                    continue;
                }
                // What has just been answered by the endpoint needs no budget to protect it.
                recovered || client.may_retry()
            };
            if may {
                match client.try_pick(self.request.key(), &self.tried) {
                    Ok(pick) => return Some(pick),
                    // A balancer that keeps to a subset has no other.
                    Err(NoEndpointReason::AllExcluded) => {
                        self.tried.extend_from_slice(client.view().eligible());
                        continue;
                    }
                    Err(_) => return None,
                }
            }
            // A service of one may be restarting: its calls wait. Elsewhere they would only pile up.
            let view = client.view();
            let [only] = &**view.eligible() else {
                return None;
            };
            self.tried.push(Arc::clone(only));
        }
    }

    /// Waits for the pause between two rounds, or until there is somebody new, or somebody is back
    /// after all were left out; whether the last is so.
    async fn pause(&self) -> bool {
        let shared = &self.client.shared;
        let pause = shared.randomness.with(|rng| limits::pause(self.round, rng));
        let end = Instant::now().checked_add(pause);
        let until = [end, self.deadline].into_iter().flatten().min();
        let is_out = |endpoint: &Arc<Endpoint>| endpoint.admission() != Admission::Admitted;
        let was_out = shared.view.load().eligible().iter().all(is_out);
        loop {
            let mut changed = pin!(shared.changed.notified());
            changed.as_mut().enable();
            let recovered = was_out && !shared.view.load().eligible().iter().all(is_out);
            if recovered || self.has_untried() || !wait(changed, until).await {
                return recovered;
            }
        }
    }

    fn begin_round(&mut self) {
        self.round += 1;
        self.tried.truncate(self.request.excluded().len());
    }

    fn has_untried(&self) -> bool {
        let tried = Exclusion::listed(&self.tried);
        let view = self.client.shared.view.load();
        view.eligible()
            .iter()
            .any(|endpoint| !tried.excludes(endpoint))
    }

    /// The time for the attempt that begins, and whether that is the whole time of an attempt.
    fn limit(&self) -> (Duration, bool) {
        let whole = self.limits.attempt_timeout.unwrap_or(Duration::MAX);
        let left = self.deadline.map_or(Duration::MAX, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        (whole.min(left), whole <= left)
    }

    fn is_over(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    fn exhausted<E>(&self, failed: Failed<E>) -> CallError<E> {
        let Failed {
            endpoint,
            unanswered,
            error,
            limit,
        } = failed;
        let (service, attempts) = (self.client.service().clone(), self.attempts);
        match error {
            Some(last) if !unanswered => CallError::Exhausted {
                service,
                endpoint,
                attempts,
                last,
            },
            last => CallError::TimedOut {
                service,
                endpoint,
                attempts,
                limit,
                last,
            },
        }
    }
}

/// Waits for `changed` until then, if there is an end; whether it came.
async fn wait(changed: Pin<&mut Notified<'_>>, until: Option<Instant>) -> bool {
    match until {
        Some(until) => timeout_at(until, changed).await.is_ok(),
        None => {
            changed.await;
            true
        }
    }
}
