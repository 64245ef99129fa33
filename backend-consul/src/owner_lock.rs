//! The key that says whose an id is, and how loaded its owner.
//!
//! Consul's catalog fences nothing: whoever registers an id replaces what stood there. So an id is
//! owned through a key of the store, held by its owner's session: it exists as long as the session
//! does, every write names the index that it follows on, and its value begins with the life that
//! wrote it. What is late, or of another life, is refused by the store itself.

use plimsoll_backend_kit::Release;
use plimsoll_discovery_api::{Error, ErrorKind, Incarnation, Result};

use crate::error::Failure;
use crate::http::agent::Agent;
use crate::http::wire::{Operation, Pair};

/// So often a write that lost a race with another writer is settled anew within one call.
const SETTLE_ATTEMPTS: u32 = 5;

/// The value of the key. The sequence makes every publication differ from the one before: the store
/// takes an equal value for no change, and nobody would learn that its owner still speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) life: Incarnation,
    pub(crate) sequence: u64,
    pub(crate) load: u64,
}

impl Value {
    pub(crate) fn write(self) -> String {
        format!("{} {} {}", self.life, self.sequence, self.load)
    }

    /// What `pair` holds; nothing, if that was not written here.
    pub(crate) fn read(pair: &Pair) -> Option<Self> {
        let text = pair.text()?;
        let mut words = text.split(' ');
        let value = Self {
            life: words.next()?.parse().ok()?,
            sequence: words.next()?.parse().ok()?,
            load: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(value)
    }
}

/// Where the chain of writes to the key stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) index: u64,
    pub(crate) sequence: u64,
}

/// Why the key could not be written.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The session is no more.
    NoSession,
    /// Another life holds the key.
    Foreign(Error),
    Failed(Error),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        if failure.names_no_session() {
            Self::NoSession
        } else {
            Self::Failed(failure.into())
        }
    }
}

/// Writes `value` to `key` for `session`, if nobody else holds it. A key of the same life, or of one
/// of the `former`, is the writer's own, and so is one of the same session that cannot be read.
pub(crate) async fn acquire(
    agent: &Agent,
    key: &str,
    session: &str,
    value: Value,
    former: &[Incarnation],
) -> Result<Held, Refusal> {
    let text = value.write();
    let mut there: Option<Pair> = None;
    // Most often nothing is there.
    for _ in 0..SETTLE_ATTEMPTS {
        let lock = || Operation::lock(key, session, &text);
        let operations = match &there {
            None => vec![Operation::absent(key), lock()],
            // A lock of another session is lifted by nothing less than a removal.
            Some(pair) if pair.session.as_deref().is_some_and(|held| held != session) => vec![
                Operation::at_index(key, pair.modify_index),
                Operation::delete(key),
                lock(),
            ],
            Some(pair) => vec![Operation::at_index(key, pair.modify_index), lock()],
        };
        match agent.transact(operations).await {
            Ok(index) => {
                let sequence = value.sequence;
                return Ok(Held { index, sequence });
            }
            Err(failure) if failure.is_lost_race() => {}
            Err(failure) => return Err(failure.into()),
        }
        there = agent.key(key).await?;
        if let Some(pair) = &there
            && let Some(held) = &pair.session
        {
            let life = Value::read(pair).map(|value| value.life);
            let own = life.map_or(held == session, |life| {
                life == value.life || former.contains(&life)
            });
            if !own {
                return Err(Refusal::Foreign(
                    Error::new(ErrorKind::Conflict, "another live owner holds the id")
                        .with_context("key", key)
                        .with_context("owner", life.map_or_else(String::new, |l| l.to_string()))
                        .with_context("session", held.clone()),
                ));
            }
        }
    }
    Err(Refusal::Failed(contended(key)))
}

/// What the chain of writes was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    Whole,
    /// Earlier writes of the same life are no more, as the store was set back.
    Cut,
    /// Nothing was written: there is no key any more. It is free, and this life's to take.
    Gone,
}

/// Writes the load of `life`, as the next in the chain that `held` is the end of.
pub(crate) async fn publish(
    agent: &Agent,
    key: &str,
    session: &str,
    life: Incarnation,
    load: u64,
    held: &mut Held,
) -> Result<Chain, Refusal> {
    let mut chain = Chain::Whole;
    for _ in 0..SETTLE_ATTEMPTS {
        let sequence = held.sequence + 1;
        let value = Value {
            life,
            sequence,
            load,
        };
        let text = value.write();
        let operations = vec![
            Operation::at_index(key, held.index),
            Operation::lock(key, session, &text),
        ];
        match agent.transact(operations).await {
            Ok(index) => {
                *held = Held { index, sequence };
                return Ok(chain);
            }
            Err(failure) if failure.is_lost_race() => {}
            Err(failure) => return Err(failure.into()),
        }
        match agent.key(key).await? {
            Some(pair) => match Value::read(&pair) {
                Some(there) if there.life == life => {
                    if there.sequence < held.sequence {
                        chain = Chain::Cut;
                    }
                    *held = Held {
                        index: pair.modify_index,
                        sequence: there.sequence.max(held.sequence),
                    };
                }
                // Somebody has scribbled over the value, which no lock prevents.
                None if pair.session.as_deref() == Some(session) => held.index = pair.modify_index,
                there => {
                    let owner = there.map_or_else(String::new, |value| value.life.to_string());
                    return Err(Refusal::Foreign(
                        Error::new(ErrorKind::LeaseExpired, "another life holds the id")
                            .with_context("key", key)
                            .with_context("owner", owner),
                    ));
                }
            },
            None => return Ok(Chain::Gone),
        }
    }
    Err(Refusal::Failed(contended(key)))
}

/// Deletes the key if it is of one of the lives to release.
pub(crate) async fn release(agent: &Agent, key: &str, release: &Release) -> Result<()> {
    for _ in 0..SETTLE_ATTEMPTS {
        let Some(pair) = agent.key(key).await? else {
            return Ok(());
        };
        match Value::read(&pair) {
            Some(value) if release.incarnations.contains(&value.life) => {}
            _ => return Ok(()),
        }
        match agent
            .transact(vec![Operation::delete_at(key, pair.modify_index)])
            .await
        {
            Ok(_) => return Ok(()),
            Err(failure) if failure.is_lost_race() => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(contended(key))
}

fn contended(key: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "others keep writing the same key").with_context("key", key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(text: &str) -> Pair {
        use base64::Engine;
        let value = base64::engine::general_purpose::STANDARD.encode(text);
        serde_json::from_str(&format!(r#"{{"Key":"k","Value":"{value}"}}"#)).unwrap()
    }

    #[test]
    fn a_value_is_read_as_it_was_written_and_garbage_is_nobodys() {
        let value = Value {
            life: Incarnation::random(),
            sequence: 7,
            load: u64::MAX,
        };
        assert_eq!(Value::read(&pair(&value.write())), Some(value));
        let life = value.life;
        for bad in [
            String::new(),
            "7".into(),
            format!("{life}"),
            format!("{life} 1"),
            format!("{life} 1 -1"),
            format!("{life} 1 1 1"),
            format!("{life}  1 1"),
            "x 1 1".into(),
        ] {
            assert_eq!(Value::read(&pair(&bad)), None, "{bad:?}");
        }
        let null: Pair = serde_json::from_str(r#"{"Key":"k","Value":null}"#).unwrap();
        assert_eq!(Value::read(&null), None);
    }
}
