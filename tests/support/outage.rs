//! The quickstart, over a registry whose one server is killed and restarted in the middle of it.

use std::sync::{Arc, Mutex};

use crate::quickstart::{self, Outage};

/// Runs it at `url`; `kill` and `restart` are what happens to `server` meanwhile.
pub(crate) async fn run_through_restart<S: Send + 'static>(
    url: &str,
    server: S,
    kill: fn(&mut S),
    restart: fn(&mut S),
) {
    let server = Arc::new(Mutex::new(server));
    let outage = Outage {
        down: change(Arc::clone(&server), kill),
        up: change(Arc::clone(&server), restart),
    };
    quickstart::run_through(url, Some(outage))
        .await
        .expect("every promise to be kept");
}

/// Starting and stopping a process blocks, and the quickstart must go on meanwhile.
async fn change<S: Send + 'static>(server: Arc<Mutex<S>>, change: fn(&mut S)) {
    let changed = move || change(&mut server.lock().expect("nobody panicked"));
    let changed = tokio::task::spawn_blocking(changed).await;
    changed.expect("the server to do as it is told");
}
