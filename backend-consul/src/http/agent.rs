//! The endpoints of an agent that are used here, each with the answers that have a meaning.

use std::time::{Duration, Instant};

use plimsoll_backend_kit::Admission;
use plimsoll_discovery_api::Result;

use crate::config::{Config, Consistency};
use crate::error::Failure;
use crate::http::each::{Each, Keys};
use crate::http::wire::{
    AgentService, CheckRead, CreatedSession, HealthEntry, NewSession, Operation, Pair,
    Registration, RenewedSession, TxnReply,
};
use crate::http::{Http, Reply, Request, json};
use crate::keys::{check_id, key_path, path};

/// What came of a beat.
#[derive(Debug)]
pub(crate) enum Beat {
    Alive,
    /// The agent does not know of the service.
    Unknown,
    /// It knows of the service, and would not pass its check: somebody may have taken it away,
    /// without which the service stands for ever.
    Refused(Failure),
}

/// Who is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// For watching and listing: as the settings say, of the datacentre they say.
    Settings,
    /// The leader of that datacentre.
    Leader,
    /// Any of its servers.
    Any,
    /// The leader of the agent's own datacentre: the registry's answer to what this agent has told
    /// it.
    Own,
}

/// A service's entries.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) index: u64,
    pub(crate) entries: Each<HealthEntry>,
    /// How long it took to make sense of the answer.
    pub(crate) cost: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    http: Http,
    consistency: Consistency,
    datacenter: Option<String>,
    namespace: Option<String>,
}

impl Agent {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            http: Http::new(config)?,
            consistency: config.consistency,
            datacenter: config.datacenter.clone(),
            namespace: config.namespace.clone(),
        })
    }

    /// What the handle's calls are admitted by.
    pub(crate) fn admission(&self) -> &Admission {
        self.http.admission()
    }

    /// The same, for what is asked under the permit of a claim; see [`Http::patient`].
    pub(crate) fn patient(&self) -> Self {
        Self {
            http: self.http.patient(),
            ..self.clone()
        }
    }

    /// Tells the agent of a service, or replaces what it was told.
    pub(crate) async fn register(&self, registration: &Registration) -> Result<(), Failure> {
        let body = json("register", registration)?;
        let request = Request::put("register", "agent/service/register");
        self.http.send(request.json(body)).await.map(drop)
    }

    /// Takes it back. What the agent does not know is taken back already.
    pub(crate) async fn deregister(&self, service_id: &str) -> Result<(), Failure> {
        let path = path(&["agent", "service", "deregister", service_id]);
        match self.http.send(Request::put("deregister", &path)).await {
            Err(failure) if failure.is(404) || failure.knows_no_service() => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// What the agent was told of a service; `None` if nothing.
    pub(crate) async fn service(&self, service_id: &str) -> Result<Option<AgentService>, Failure> {
        let path = path(&["agent", "service", service_id]);
        match self.http.send(Request::get("service", &path)).await {
            Err(failure) if failure.is(404) => Ok(None),
            Err(failure) => Err(failure),
            Ok(reply) => reply.read().map(Some),
        }
    }

    /// Passes the check of a service.
    ///
    /// For a check that it does not know the agent answers with 500 or, since 1.12, with 404, and
    /// a text; so whatever it refuses but for the credentials or its own limits, it is asked
    /// whether it knows the service at all.
    pub(crate) async fn pass(&self, service_id: &str) -> Result<Beat, Failure> {
        let path = path(&["agent", "check", "pass", &check_id(service_id)]);
        match self.http.send(Request::put("pass", &path)).await {
            Ok(_) => Ok(Beat::Alive),
            Err(failure)
                if failure.status.is_none() || failure.is_of_credentials() || failure.is(429) =>
            {
                Err(failure)
            }
            Err(failure) => match self.service(service_id).await? {
                None => Ok(Beat::Unknown),
                Some(_) => Ok(Beat::Refused(failure.of_what_stands())),
            },
        }
    }

    /// The entries of `service`, those that are critical among them.
    pub(crate) async fn health(
        &self,
        service: &str,
        reading: Reading,
        filter: Option<&str>,
        after: Option<(u64, Duration)>,
    ) -> Result<Health, Failure> {
        let path = path(&["health", "service", service]);
        let mut request = Request::get("health", &path);
        if let Some(filter) = filter {
            request = request.with("filter", filter);
        }
        if let Some((index, wait)) = after {
            request = request.blocking(index, wait);
        }
        let reply = self.read(reading, request).await?;
        let began = Instant::now();
        Ok(Health {
            index: reply.index()?,
            entries: reply.each()?,
            cost: began.elapsed(),
        })
    }

    /// The status of a check of `node` in the catalog, as the leader knows it; `None` if it does not
    /// know the check.
    pub(crate) async fn check(
        &self,
        node: &str,
        check_id: &str,
    ) -> Result<Option<String>, Failure> {
        let body = json(
            "check",
            &[CheckRead::new(node, check_id, self.namespace.as_deref())],
        )?;
        match self
            .http
            .send(Request::put("check", "txn").json(body))
            .await
        {
            Err(failure) if failure.is_lost_race() => Ok(None),
            Err(failure) => Err(failure),
            Ok(reply) => {
                let results: TxnReply = reply.read()?;
                let check = results.results.into_iter().next();
                Ok(check.and_then(|result| Some(result.check?.status)))
            }
        }
    }

    /// The keys below `prefix`.
    pub(crate) async fn keys(&self, prefix: &str, reading: Reading) -> Result<Vec<Pair>, Failure> {
        let path = key_path(prefix);
        let request = Request::get("loads", &path).flag("recurse");
        present(self.read(reading, request).await)
    }

    /// One key, as the leader knows it.
    pub(crate) async fn key(&self, key: &str) -> Result<Option<Pair>, Failure> {
        let path = key_path(key);
        let pairs = present(self.http.send(Request::get("owner lock", &path)).await)?;
        Ok(pairs.into_iter().next())
    }

    /// Does all of it or nothing. Returns the new index of the last key; a refusal has status 409.
    pub(crate) async fn transact<'a>(
        &'a self,
        operations: Vec<Operation<'a>>,
    ) -> Result<u64, Failure> {
        let namespace = self.namespace.as_deref();
        let operations = operations.into_iter();
        let operations: Vec<_> = operations.map(|one| one.within(namespace)).collect();
        let body = json("transaction", &operations)?;
        let reply = self
            .http
            .send(Request::put("transaction", "txn").json(body))
            .await?;
        let results: TxnReply = reply.read()?;
        let last = results.results.last().and_then(|result| result.kv.as_ref());
        Ok(last.map_or(0, |pair| pair.modify_index))
    }

    pub(crate) async fn create_session(&self, session: &NewSession<'_>) -> Result<String, Failure> {
        let body = json("session", session)?;
        let request = Request::put("session", "session/create").json(body);
        let created: CreatedSession = self.http.send(request).await?.read()?;
        Ok(created.id)
    }

    /// Renews a session, and returns the name of its node, which is the agent's; `None` if there is
    /// no such session.
    pub(crate) async fn renew_session(&self, id: &str) -> Result<Option<String>, Failure> {
        let path = path(&["session", "renew", id]);
        match self.http.send(Request::put("renewal", &path)).await {
            Ok(reply) => {
                let sessions: Vec<RenewedSession> = reply.read()?;
                Ok(sessions.into_iter().next().map(|session| session.node))
            }
            Err(failure) if failure.is(404) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub(crate) async fn destroy_session(&self, id: &str) -> Result<(), Failure> {
        let path = path(&["session", "destroy", id]);
        self.http
            .send(Request::put("destroy", &path))
            .await
            .map(drop)
    }

    /// Whether the agent is there and knows of a leader. Needs no token.
    pub(crate) async fn leader(&self) -> Result<(), Failure> {
        let request = Request::get("leader", "status/leader");
        let leader: String = self.http.send(request).await?.read()?;
        if leader.is_empty() {
            return Err(Failure::corrupt("leader", "there is none"));
        }
        Ok(())
    }

    /// The names of all services.
    pub(crate) async fn services(&self) -> Result<Vec<String>, Failure> {
        let request = Request::get("services", "catalog/services");
        let Keys(names) = self.read(Reading::Settings, request).await?.read()?;
        Ok(names)
    }

    /// Has `request` answered by whom `reading` names.
    async fn read(&self, reading: Reading, request: Request<'_>) -> Result<Reply, Failure> {
        let elsewhere = self.datacenter.as_ref();
        let elsewhere = elsewhere.filter(|_| reading != Reading::Own);
        let request = match elsewhere {
            Some(datacenter) => request.with("dc", datacenter),
            None => request,
        };
        let sure = match reading {
            Reading::Settings => self.consistency,
            Reading::Any => Consistency::Stale,
            Reading::Leader | Reading::Own => Consistency::Default,
        };
        let request = match sure {
            Consistency::Default => request,
            Consistency::Consistent => request.flag("consistent"),
            Consistency::Stale => request.flag("stale"),
        };
        let answer = self.http.send(request).await;
        // Consul does not say which one it has no path to.
        answer.map_err(|failure| match elsewhere {
            Some(datacenter) => failure.with("dc", datacenter),
            None => failure,
        })
    }
}

/// Where there is nothing, there is no key; and one that cannot be understood is nobody's.
fn present(answer: Result<Reply, Failure>) -> Result<Vec<Pair>, Failure> {
    match answer {
        Err(failure) if failure.is(404) => Ok(Vec::new()),
        Err(failure) => Err(failure),
        Ok(reply) => Ok(reply.each()?.good),
    }
}
