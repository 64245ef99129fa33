//! Whether the runtime is still there in which something was begun.

use std::future::pending;

use tokio::task::AbortHandle;

/// The runtime in which this was made: a connection lives and dies with it.
#[derive(Debug)]
pub(crate) struct Home(AbortHandle);

impl Home {
    /// The present one.
    pub(crate) fn here() -> Self {
        Self(tokio::spawn(pending::<()>()).abort_handle())
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_home_is_gone_once_its_runtime_has_ended() {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let home = runtime.block_on(async { Home::here() });
        assert!(!home.is_gone());
        drop(runtime);
        assert!(home.is_gone());
    }
}
