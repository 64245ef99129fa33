//! Telling the agent again of what stands.

use std::sync::Arc;

use tokio::time::Instant;

use super::{DOUBT, Shared};
use crate::error::Failure;
use crate::http::wire::Registration;
use crate::life::Life;

impl Shared {
    /// Tells the agent of `life` again, its check with it: as it was written last, or `new`. Does
    /// nothing for a life that has ended, and whoever ends one learns from the uncertain what may
    /// still be on its way.
    pub(super) async fn write(
        &self,
        life: &Life,
        new: Option<Arc<Registration>>,
    ) -> Result<(), Failure> {
        let _turn = life.writing.lock().await;
        let doubt = self.uncertain.begin(life.incarnation);
        if life.ended().is_some() {
            doubt.settle();
            return Ok(());
        }
        let registration = new.unwrap_or_else(|| life.written());
        let mut answer = Unanswered(Some(life));
        let written = self.agent.register(&registration).await;
        if !matches!(&written, Err(failure) if failure.status.is_none()) {
            answer.0 = None;
            doubt.settle();
        }
        written.map_err(Failure::of_what_stands)?;
        life.wrote(registration);
        Ok(())
    }
}

/// A registration that was sent; unless its answer came, it may yet arrive.
struct Unanswered<'a>(Option<&'a Life>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(life) = self.0 {
            life.doubt(Instant::now() + DOUBT);
        }
    }
}
