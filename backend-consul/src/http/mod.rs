//! Requests and answers, as one agent speaks them.

pub(crate) mod agent;
pub(crate) mod each;
mod reach;
#[cfg(test)]
mod tests;
pub(crate) mod waits;
pub(crate) mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_backend_kit::Admission;
use plimsoll_backend_kit::{Credential, Derived, escape};
use plimsoll_discovery_api::{Error, ErrorKind, Result};
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, Url};

use crate::config::Config;
use crate::error::Failure;
use crate::http::each::{Each, each};
use crate::http::reach::Reach;

/// The agent puts a sixteenth of the wait on top, lest all queries of a fleet end at once.
const WAIT_JITTER: u32 = 16;
/// Connections kept for the next request; each blocking query has one of its own, and an agent
/// grants 200 to one address.
const IDLE_CONNECTIONS: usize = 8;
const KEEPALIVE: Duration = Duration::from_secs(15);

/// One agent.
#[derive(Clone)]
pub(crate) struct Http {
    /// Made anew when the certificates have changed; what is under way goes on as it began.
    client: Arc<Derived<Client>>,
    base: Url,
    /// A secret.
    token: Option<Arc<Derived<HeaderValue>>>,
    namespace: Option<String>,
    timeout: Duration,
    /// Waits for longer while claims are answered too late.
    is_patient: bool,
    admission: Admission,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("base", &self.base.as_str())
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .finish_non_exhaustive()
    }
}

/// A request on its way to being made.
pub(crate) struct Request<'a> {
    operation: &'static str,
    method: Method,
    path: &'a str,
    query: String,
    body: Option<Vec<u8>>,
    wait: Option<Duration>,
}

/// A good answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// `X-Consul-Index`, where there is one.
    pub(crate) index: Option<u64>,
    pub(crate) body: Vec<u8>,
    operation: &'static str,
}

impl<'a> Request<'a> {
    pub(crate) const fn get(operation: &'static str, path: &'a str) -> Self {
        Self::new(operation, Method::GET, path)
    }

    pub(crate) const fn put(operation: &'static str, path: &'a str) -> Self {
        Self::new(operation, Method::PUT, path)
    }

    const fn new(operation: &'static str, method: Method, path: &'a str) -> Self {
        Self {
            operation,
            method,
            path,
            query: String::new(),
            body: None,
            wait: None,
        }
    }

    /// A flag, such as `stale`.
    pub(crate) fn flag(mut self, name: &str) -> Self {
        let sign = if self.query.is_empty() { '?' } else { '&' };
        self.query.push(sign);
        self.query.push_str(name);
        self
    }

    pub(crate) fn with(self, name: &str, value: &str) -> Self {
        self.flag(&format!("{name}={}", escape(value)))
    }

    pub(crate) fn json(mut self, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self
    }

    /// Waits at the agent until the index has passed `index`, for at most `wait`.
    pub(crate) fn blocking(mut self, index: u64, wait: Duration) -> Self {
        // Zero would answer at once, and again and again.
        self = self.with("index", &index.max(1).to_string());
        self = self.with("wait", &format!("{}ms", wait.as_millis()));
        self.wait = Some(wait);
        self
    }
}

impl Http {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let scheme = if config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let base = format!("{scheme}://{}/v1/", config.address)
            .parse()
            .map_err(|_| {
                refused("address is not that of a host").with_context("address", &config.address)
            })?;
        let token = config.token.clone().map(header).transpose()?;
        let client = client(config)?;
        Ok(Self {
            client: Arc::new(client),
            base,
            token: token.map(Arc::new),
            namespace: config.namespace.clone(),
            timeout: config.request_timeout,
            is_patient: false,
            admission: Admission::new(&config.timings),
        })
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The same, for what is asked under the permit of a claim: each request has as long as the claim.
    pub(crate) fn patient(&self) -> Self {
        Self {
            is_patient: true,
            ..self.clone()
        }
    }

    /// How long an answer may take, besides what it is to wait for.
    fn limit(&self) -> Duration {
        if self.is_patient {
            self.admission.patience(self.timeout)
        } else {
            self.timeout
        }
    }

    /// Sends `request` and returns its answer, if that is a good one.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Reply, Failure> {
        let operation = request.operation;
        let request = match &self.namespace {
            Some(namespace) => request.with("ns", namespace),
            None => request,
        };
        let url = self
            .base
            .join(&format!("{}{}", request.path, request.query))
            .map_err(|e| Failure::corrupt(operation, e))?;
        let wait = request.wait.unwrap_or_default();
        let timeout = self.limit() + wait + wait / WAIT_JITTER;
        let client = self.client.get();
        let mut call = client.request(request.method, url).timeout(timeout);
        let token = self.token.as_ref().map(|token| token.get());
        if let Some(token) = &token {
            call = call.header("X-Consul-Token", token);
        }
        if let Some(body) = request.body {
            call = call.body(body);
        }
        let lost = |e| Failure::lost(operation, e);
        let answer = call.send().await.map_err(lost)?;
        let status = answer.status();
        let index = answer.headers().get("X-Consul-Index");
        let index = index.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = answer.bytes().await.map_err(lost)?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(Failure::refused(
                operation,
                status.as_u16(),
                &without(token.as_ref(), &text),
                token.is_some(),
            ));
        }
        Ok(Reply {
            index,
            body: body.into(),
            operation,
        })
    }
}

fn refused(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, why)
}

/// No agent is known to repeat a token; one that does shall not have it in our log.
fn without(token: Option<&HeaderValue>, text: &str) -> String {
    match token.and_then(|token| token.to_str().ok()) {
        Some(token) if !token.is_empty() => text.replace(token, "(hidden)"),
        _ => text.to_owned(),
    }
}

/// The token, as it stands in a request.
fn header(token: Credential) -> Result<Derived<HeaderValue>> {
    Derived::new(vec![token], |values| {
        let token: &[u8] = values.first().map_or(&[], |value| value);
        let is_sound = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
        let value = HeaderValue::from_bytes(token).ok().filter(|_| is_sound);
        let mut value =
            value.ok_or_else(|| refused("token is empty or cannot stand in a header"))?;
        value.set_sensitive(true);
        Ok(value)
    })
}

fn client(config: &Config) -> Result<Derived<Client>> {
    let (address, timeout) = (config.address.clone(), config.request_timeout);
    let builder = move || {
        Client::builder()
            // The agent is on this machine or next to it, and whoever else answers is not it.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("plimsoll/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(timeout)
            .dns_resolver(Arc::new(Reach::new(&address, timeout)))
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tcp_keepalive(KEEPALIVE)
    };
    let built = |builder: reqwest::ClientBuilder| {
        builder
            .build()
            .map_err(|e| refused("the HTTP client cannot be made of these settings").with_source(e))
    };
    #[cfg(feature = "tls")]
    if let Some(tls) = config.tls.clone() {
        return Derived::new(tls.credentials(), move |values| {
            built(tls.apply(builder(), values)?)
        });
    }
    Derived::new(Vec::new(), move |_| built(builder()))
}

impl Reply {
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|e| Failure::corrupt(self.operation, e))
    }

    /// A list, of which others may have written any element.
    pub(crate) fn each<T: serde::de::DeserializeOwned>(&self) -> Result<Each<T>, Failure> {
        each(&self.body).map_err(|e| Failure::corrupt(self.operation, e))
    }

    /// The index, which is there in every answer that can be waited for.
    pub(crate) fn index(&self) -> Result<u64, Failure> {
        self.index
            .ok_or_else(|| Failure::corrupt(self.operation, "no X-Consul-Index"))
    }
}

/// Writes a body.
pub(crate) fn json(
    operation: &'static str,
    body: &(impl serde::Serialize + ?Sized),
) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(body).map_err(|e| Failure::corrupt(operation, e))
}
