//! Removing a record, so that it is known that it was not lost.
//!
//! Whoever watches at that moment is told by an event: a node named after the life is created and
//! deleted in the transaction of the removal. Whoever does not finds the life in a list of the latest
//! departures, which is the data of the service's own node and goes with it. The list is an aid and
//! never in the way of a removal, which does without if others are writing it at that moment.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll_backend_kit::Release;
use plimsoll_discovery_api::{Incarnation, Result, ServiceName};
use tokio::time::Instant;
use zookeeper_client::{Error as Native, Stat};

use crate::codec;
use crate::driver::{SETTLE_ATTEMPTS, ZkDriver, contended, native};
use crate::error::{failed_at, failed_for};
use crate::fetch::{Standing, read_all};
use crate::paths::Nodes;
use crate::session::Connection;

/// So many departures of a service are remembered: more than leave during a reconnect, and still a
/// small node.
const REMEMBERED: usize = 128;
/// So often the list is tried before the removal does without.
const LIST_ATTEMPTS: u32 = 3;

/// What has left through this handle, so that a removal that did without the list is made up for
/// by the next.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    latest: Mutex<VecDeque<(ServiceName, Incarnation)>>,
    /// Held by the one removal that writes the list: it speaks for those beside it.
    writing: tokio::sync::Mutex<()>,
}

impl Departures {
    fn note(&self, service: &ServiceName, life: Incarnation) {
        let mut latest = self.latest();
        let departure = (service.clone(), life);
        if !latest.contains(&departure) {
            latest.truncate(REMEMBERED - 1);
            latest.push_front(departure);
        }
    }

    /// `list` with what has left `service` through this handle, latest first.
    fn added_to(&self, list: &[Incarnation], service: &ServiceName) -> String {
        let latest = self.latest();
        let own = latest.iter().filter(|(of, _)| of == service);
        let mut lives: Vec<Incarnation> = Vec::with_capacity(REMEMBERED);
        for life in own.map(|(_, life)| life).chain(list) {
            if lives.len() < REMEMBERED && !lives.contains(life) {
                lives.push(*life);
            }
        }
        let lines: Vec<_> = lives.iter().map(Incarnation::to_string).collect();
        lines.join("\n")
    }

    fn latest(&self) -> MutexGuard<'_, VecDeque<(ServiceName, Incarnation)>> {
        // A panic while the lock was held cannot have left the list half changed.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lives in the list; `None` if the data is something else.
pub(crate) fn read_list(data: &[u8]) -> Option<Vec<Incarnation>> {
    let lives = std::str::from_utf8(data).ok()?.split_ascii_whitespace();
    lives.map(|life| life.parse().ok()).collect()
}

impl ZkDriver {
    /// Removes what `release` names.
    pub(crate) async fn depart(&self, release: &Release) -> Result<()> {
        let connection = self.session().connection().await?;
        let client = &connection.client;
        let nodes = self.tree.nodes(&release.service, &release.id);
        let mut may_list = true;
        for attempt in 0..SETTLE_ATTEMPTS {
            let asked = Instant::now();
            let paths = [&nodes.identity, &nodes.load, &nodes.branches.services].map(Clone::clone);
            let writing = self.departures.writing.try_lock().ok();
            may_list &= attempt < LIST_ATTEMPTS;
            let mut there = read_all(&connection, &paths).await?.into_iter();
            let mut next = || there.next().unwrap_or(Ok(None));
            let (identity, load) = (next()?, next()?);
            let service = next().ok().flatten();
            let Some((bytes, stat)) = identity else {
                if self.drop_orphan(&connection, &nodes, load).await? {
                    return Ok(());
                }
                continue;
            };
            let life = codec::incarnation(&bytes, stat.czxid.unsigned_abs());
            if !release.incarnations.contains(&life) {
                return Ok(());
            }
            self.departures.note(&release.service, life);
            let list = service
                .filter(|_| may_list && writing.is_some())
                .and_then(|service| self.list_with_departures(release, service));
            let departure = nodes.branches.departure(life);
            let mut writer = client.new_multi_writer();
            let fill = || {
                writer.add_create(&departure, b"", &self.ephemeral())?;
                writer.add_delete(&departure, None)?;
                if let Some((list, version)) = &list {
                    writer.add_set_data(
                        &nodes.branches.services,
                        list.as_bytes(),
                        Some(*version),
                    )?;
                }
                writer.add_delete(&nodes.identity, Some(stat.version))?;
                load.map_or(Ok(()), |(_, stat)| {
                    writer.add_delete(&nodes.load, Some(stat.version))
                })
            };
            fill().map_err(failed_at(&nodes.identity))?;
            match writer.commit().await.map_err(native) {
                Ok(_) => return Ok(()),
                Err(Native::NoNode) => self.make_parents(&connection, &nodes, asked).await?,
                Err(Native::BadVersion | Native::NodeExists) => {}
                // Perhaps of the list alone.
                Err(Native::NoAuth) if list.is_some() => may_list = false,
                Err(error) => {
                    return Err(failed_for(&nodes.identity, || nodes.needs_to_depart())(
                        error,
                    ));
                }
            }
        }
        Err(contended())
    }

    /// Deletes the load that this session has left without an identity, which others have deleted;
    /// no claim leaves it so. Returns `false` if another write came in between.
    async fn drop_orphan(
        &self,
        connection: &Connection,
        nodes: &Nodes,
        load: Standing,
    ) -> Result<bool> {
        let own = load.filter(|(_, stat)| stat.ephemeral_owner == connection.session);
        let Some((_, stat)) = own else {
            return Ok(true);
        };
        let deleted = connection.client.delete(&nodes.load, Some(stat.version));
        match deleted.await {
            Ok(()) | Err(Native::NoNode) => Ok(true),
            Err(Native::BadVersion) => Ok(false),
            Err(error) => Err(failed_at(&nodes.load)(error)),
        }
    }

    /// The list to write, and the version it is to replace; `None` if what is there is no list.
    fn list_with_departures(
        &self,
        release: &Release,
        (data, stat): (Vec<u8>, Stat),
    ) -> Option<(String, i32)> {
        let list = read_list(&data)?;
        let list = self.departures.added_to(&list, &release.service);
        Some((list, stat.version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_the_latest_of_its_service_once_each() {
        let (departures, service) = (Departures::default(), "a".parse().unwrap());
        let life = Incarnation::from_bits;
        departures.note(&service, life(1));
        departures.note(&"b".parse().unwrap(), life(2));
        departures.note(&service, life(3));
        departures.note(&service, life(3));
        let older: Vec<_> = [1, 9].into_iter().chain(1000..2000).map(life).collect();
        let text = departures.added_to(&older, &service);
        let list = read_list(text.as_bytes()).unwrap();
        assert_eq!(list[..4], [life(3), life(1), life(9), life(1000)]);
        assert_eq!(list.len(), REMEMBERED);
    }

    #[test]
    fn what_is_no_list_is_left_alone() {
        assert_eq!(read_list(b""), Some(Vec::new()));
        for foreign in [&b"10.0.0.7"[..], b"\xff", b"{}"] {
            assert_eq!(read_list(foreign), None, "{foreign:?}");
        }
    }
}
