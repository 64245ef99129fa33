//! Active health checks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Instance, Result};

/// Asks one instance whether it can serve.
///
/// A check says what it saw, once; when to check, how long to wait and how many results make a
/// verdict is the business of whoever runs it.
#[async_trait]
pub trait HealthChecker: fmt::Debug + Send + Sync + 'static {
    /// `Ok` if `instance` can serve. The check is dropped after `limit`, so that one with several
    /// ways to try spends none of them on the first alone.
    ///
    /// # Cancel safety
    /// Dropped when the check's time is up, which counts as a failure; must leave nothing behind.
    ///
    /// # Errors
    /// Why it cannot serve.
    async fn check(&self, instance: &Instance, limit: Duration) -> Result<()>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: HealthChecker + ?Sized> HealthChecker for Arc<T> {
    async fn check(&self, instance: &Instance, limit: Duration) -> Result<()> {
        (**self).check(instance, limit).await
    }
}

const _: fn(&dyn HealthChecker) = |_| {};
