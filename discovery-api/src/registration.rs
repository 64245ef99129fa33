//! A server's place in the registry, kept true until it is given up.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Error, ErrorKind, Incarnation, Instance, LoadHandle, Result, Status};

/// How a registration stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not yet in the registry; being tried.
    Pending {
        /// Why the last attempt failed; `None` before the first has ended.
        cause: Option<Error>,
    },
    /// In the registry.
    Live {
        /// The present life.
        incarnation: Incarnation,
    },
    /// Was in the registry and most likely still is: renewing it fails, but the lease has not run
    /// out, or the registry has none.
    Suspect {
        /// The present life.
        incarnation: Incarnation,
        /// Why renewing failed.
        cause: Error,
    },
    /// Was in the registry and is not any more; being registered again.
    Lost {
        /// What ended it, or why the last attempt to register again failed.
        cause: Error,
    },
    /// Another owner holds the id. Tried again at a slow pace, as the owner may leave, or may be a
    /// former life of this server that the registry still believes in.
    Conflict {
        /// Says which owner.
        cause: Error,
        /// Whether it has lasted for longer than what a server leaves that dies
        /// ([`Capabilities::id_release`](crate::Capabilities::id_release)): the owner lives.
        lasting: bool,
    },
    /// Given up by [`Registration::deregister`] or by dropping the registration. Final.
    Deregistered,
}

impl RegistrationState {
    /// Whether the instance is in the registry, as far as is known.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// The name used in messages and as a metric label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Live { .. } => "live",
            Self::Suspect { .. } => "suspect",
            Self::Lost { .. } => "lost",
            Self::Conflict { .. } => "conflict",
            Self::Deregistered => "deregistered",
        }
    }

    /// The error behind the state, where there is one.
    #[must_use]
    pub fn cause(&self) -> Option<&Error> {
        match self {
            Self::Suspect { cause, .. } | Self::Lost { cause } | Self::Conflict { cause, .. } => {
                Some(cause)
            }
            Self::Pending { cause } => cause.as_ref(),
            Self::Live { .. } | Self::Deregistered => None,
        }
    }

    /// The present life, where there is one.
    #[must_use]
    pub const fn incarnation(&self) -> Option<Incarnation> {
        match self {
            Self::Live { incarnation } | Self::Suspect { incarnation, .. } => Some(*incarnation),
            _ => None,
        }
    }
}

/// The name of the state, the incarnation where there is one, and the error where there is one:
/// `live 0f3c…`, `suspect 0f3c…: etcd renew: timed out: …`, `pending`, `lost: …`. One line.
impl fmt::Display for RegistrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        if let Some(incarnation) = self.incarnation() {
            write!(f, " {incarnation}")?;
        }
        match self.cause() {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

/// Follows the state of a registration; each clone at its own pace.
#[derive(Clone, Debug)]
pub struct RegistrationStates(watch::Receiver<RegistrationState>);

impl RegistrationStates {
    /// The state now.
    #[must_use]
    pub fn current(&self) -> RegistrationState {
        self.0.borrow().clone()
    }

    /// Waits for a state that this reader has not seen and returns the latest; `None` when there
    /// will be no other.
    ///
    /// Where a stream is wanted, as by combinators: `futures::stream::unfold(states, |mut states| async
    /// move { Some((states.next().await?, states)) })`.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<RegistrationState> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }

    /// Waits until the state satisfies `wanted` and returns it; `None` when it never will.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn wait_for(
        &mut self,
        wanted: impl FnMut(&RegistrationState) -> bool + Send,
    ) -> Option<RegistrationState> {
        Some(self.0.wait_for(wanted).await.ok()?.clone())
    }
}

/// For backends: what a [`Registration`] commands. Dropping it gives the registration up without
/// waiting.
#[async_trait]
pub trait RegistrationControl: fmt::Debug + Send + Sync + 'static {
    /// The desired state.
    fn instance(&self) -> Arc<Instance>;

    /// Replaces the desired state. See [`Registration::update`].
    ///
    /// # Errors
    /// As [`Registration::update`].
    fn update(&self, instance: Instance) -> Result<()>;

    /// See [`Registration::deregister`].
    async fn deregister(&self) -> Result<()>;
}

/// A server's place in the registry: a desired state that the backend keeps true, however often
/// the registry fails, until it is given up.
///
/// It ends with the runtime that it was begun in: its state is `Lost` then, for good, with a cause of
/// the kind [`Closed`](ErrorKind::Closed), and its entry is removed by whatever still uses the registry's
/// handle, or runs out.
///
/// Dropping it gives it up without waiting: the entry is removed in the background, or by the
/// registry itself once the lease runs out. [`deregister`](Self::deregister) is the way to know.
#[derive(Debug)]
#[must_use = "dropping a registration removes the instance from the registry"]
pub struct Registration {
    control: Box<dyn RegistrationControl>,
    states: RegistrationStates,
    load: LoadHandle,
}

impl Registration {
    /// For backends: a registration commanded through `control`.
    pub fn new(
        control: Box<dyn RegistrationControl>,
        states: watch::Receiver<RegistrationState>,
        load: LoadHandle,
    ) -> Self {
        Self {
            control,
            states: RegistrationStates(states),
            load,
        }
    }

    /// The desired state.
    #[must_use]
    pub fn instance(&self) -> Arc<Instance> {
        self.control.instance()
    }

    /// How it stands now.
    #[must_use]
    pub fn state(&self) -> RegistrationState {
        self.states.current()
    }

    /// Follows how it stands.
    #[must_use]
    pub fn states(&self) -> RegistrationStates {
        self.states.clone()
    }

    /// The load that is published with it.
    #[must_use]
    pub fn load(&self) -> LoadHandle {
        self.load.clone()
    }

    /// Waits until the instance is in the registry.
    ///
    /// The registry being down is not an error here: the wait goes on. Bound it with a timeout of
    /// your own where that matters.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped; the registration goes on being tried.
    ///
    /// # Errors
    /// What waiting cannot cure, at once: [`Unauthenticated`](ErrorKind::Unauthenticated) or
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) from the registry,
    /// [`Closed`](ErrorKind::Closed) after deregistration. [`Conflict`](ErrorKind::Conflict) with
    /// another owner of the id, once it has lasted for longer than what a server leaves that dies
    /// ([`Capabilities::id_release`](crate::Capabilities::id_release), and the time to notice):
    /// who comes back under the id of its former life, as the pods of a `StatefulSet` do, waits for
    /// that, while [`state`](Self::state) tells of the conflict. The registration is tried on in the
    /// background, and a later call may succeed.
    pub async fn ready(&self) -> Result<()> {
        let mut states = self.states();
        let settled = |state: &RegistrationState| match state {
            RegistrationState::Live { .. } | RegistrationState::Deregistered => true,
            RegistrationState::Conflict { lasting, .. } => *lasting,
            other => other.cause().is_some_and(|cause| !cause.is_retryable()),
        };
        match states.wait_for(settled).await {
            Some(RegistrationState::Live { .. }) => Ok(()),
            Some(state) if state.cause().is_some() => {
                Err(state.cause().cloned().unwrap_or_else(closed))
            }
            _ => Err(closed()),
        }
    }

    /// Replaces what the instance says of itself (weight, metadata, status, …), within the same
    /// incarnation. Recorded at once, written as soon as the registry can be reached. Whatever the
    /// registry answers is logged, and it is tried again until it is written or replaced.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if service, id or address differ: that is
    /// another server; or if the registry could not hold what it says. [`Closed`](ErrorKind::Closed) after deregistration.
    pub fn update(&self, instance: Instance) -> Result<()> {
        self.control.update(instance)
    }

    /// Changes the status alone. See [`update`](Self::update).
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) after deregistration.
    pub fn set_status(&self, status: Status) -> Result<()> {
        self.update(Instance::clone(&self.instance()).with_status(status))
    }

    /// Removes the instance, for good.
    ///
    /// Wins over everything that is under way: once it has returned `Ok`, no racing repair brings
    /// the instance back. Bounded in time whatever the registry does. May be called again.
    ///
    /// # Cancel safety
    /// The order stands if the future is dropped; only the wait ends.
    ///
    /// # Errors
    /// [`TimedOut`](ErrorKind::TimedOut), or what the registry answered, if the removal could not
    /// be confirmed in time. It goes on being tried, and the lease is no longer renewed.
    pub async fn deregister(&self) -> Result<()> {
        self.control.deregister().await
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the registration was given up")
}
