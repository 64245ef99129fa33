//! What a client promises, against a registry that says what it is told to say.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

#[path = "client/call.rs"]
mod call;
#[path = "client/connect.rs"]
mod connect;
#[path = "client/failure_accrual.rs"]
mod failure_accrual;
#[path = "client/first_answer.rs"]
mod first_answer;
#[path = "client/hot_path.rs"]
mod hot_path;
#[path = "client/lifetime.rs"]
mod lifetime;
#[cfg(feature = "memory")]
#[path = "client/published_load.rs"]
mod published_load;
#[path = "client/refusal.rs"]
mod refusal;
#[path = "client/retries.rs"]
mod retries;
#[path = "client/second_choice.rs"]
mod second_choice;
#[path = "client/time_limits.rs"]
mod time_limits;
#[path = "client/trust.rs"]
mod trust;
#[path = "client/view.rs"]
mod view;

use plimsoll::{Client, ClientBuilder, PickRequest};
use support::ScriptedRegistry;

const ANY: PickRequest<'static> = PickRequest::new();

fn client_of(registry: &ScriptedRegistry) -> ClientBuilder {
    Client::builder(registry.arc(), "s").with_seed(1)
}

/// The id of the next pick, which is given up at once.
fn picked(client: &Client) -> String {
    client
        .pick(&ANY)
        .map(|pick| pick.endpoint().id().to_string())
        .unwrap()
}
