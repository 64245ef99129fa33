//! Waiting for a registry, where that is wanted.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_discovery_api::{Error, ErrorKind, Registry, Result, ServiceName, Snapshot};

/// Waits until the registry has first said who serves `service`, for `limit` at most; nobody is an
/// answer too.
///
/// For programs that would rather not start than start without a registry. Nothing else needs it:
/// registrations and clients wait by themselves, for as long as it takes.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> plimsoll::Result<()> {
/// # use std::time::Duration;
/// let registry = plimsoll::registry_from_url("memory://example")?;
/// let found = plimsoll::first_answer(&registry, "greeter", Duration::from_secs(10)).await?;
/// assert!(found.members().is_empty());
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// Nothing is left behind if the future is dropped.
///
/// # Errors
/// [`InvalidArgument`](ErrorKind::InvalidArgument) for the name of the service, before any I/O.
/// What waiting cannot cure, such as [`Unauthenticated`](ErrorKind::Unauthenticated), as soon as the
/// registry has said so. When `limit` is over, an error of the kind of the last one that the
/// registry or the way to it gave, which is its source; [`TimedOut`](ErrorKind::TimedOut) if there
/// was none.
pub async fn first_answer(
    registry: &(impl Registry + ?Sized),
    service: impl AsRef<str>,
    limit: Duration,
) -> Result<Arc<Snapshot>> {
    let service = ServiceName::new(service)?;
    let mut watch = registry.watch_members(&service).await?;
    let mut errors = watch.clone();
    let incurable = async {
        loop {
            match errors.next_error().await {
                Some(error) if error.is_retryable() => {}
                other => return other,
            }
        }
    };
    let gone = || Error::new(ErrorKind::Closed, "the registry has stopped for good");
    let late = |last: Option<Error>| {
        let kind = last.as_ref().map_or(ErrorKind::TimedOut, Error::kind);
        let error = Error::new(kind, "the registry has not answered in time")
            .with_context("limit", format!("{limit:?}"));
        match last {
            Some(last) => error.with_source(last),
            None => error,
        }
    };
    let answer = tokio::select! {
        biased;
        answer = watch.next() => answer.ok_or_else(gone),
        error = incurable => Err(error.unwrap_or_else(gone)),
        () = tokio::time::sleep(limit) => Err(late(watch.last_error())),
    };
    answer.map_err(|error| {
        error
            .with_operation("first_answer")
            .with_context("service", service.as_str())
    })
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use std::error::Error as _;

    use tokio::time::Instant;

    use super::*;
    use crate::memory::MemoryRegistry;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn an_empty_service_is_an_answer_and_a_bad_name_is_refused() {
        let registry = MemoryRegistry::new();
        let found = first_answer(&registry, "s", LIMIT).await.unwrap();
        assert!(found.members().is_empty());
        let shared: Arc<dyn Registry> = Arc::new(registry);
        let error = first_answer(&shared, "", LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_out_of_reach_is_waited_for_until_the_limit_and_told_by_its_last_error() {
        let registry = MemoryRegistry::new();
        registry.faults().outage();
        let start = Instant::now();
        let error = first_answer(&registry, "s", LIMIT).await.unwrap_err();
        assert_eq!(start.elapsed(), LIMIT);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let last = error.source().and_then(|s| s.downcast_ref::<Error>());
        assert_eq!(last.map(Error::kind), Some(ErrorKind::Unavailable));
        let restored = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            registry.faults().restore();
        };
        let limit = Duration::from_secs(60);
        let (answer, ()) = tokio::join!(first_answer(&registry, "s", limit), restored);
        answer.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_says_nothing_at_all_times_out() {
        let registry = MemoryRegistry::new();
        registry.faults().hang();
        let error = first_answer(&registry, "s", Duration::from_millis(1)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waiting_cannot_cure_is_not_waited_for() {
        let registry = MemoryRegistry::new();
        registry
            .faults()
            .fail_calls(u32::MAX, ErrorKind::Unauthenticated);
        let start = Instant::now();
        let error = first_answer(&registry, "s", LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(start.elapsed() < LIMIT);
    }
}
