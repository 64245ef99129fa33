//! Removing a record, so that it is known that it was not lost.
//!
//! Whoever watches at that moment is told by an event: a node named after the life is created and
//! deleted in the transaction of the removal. Whoever does not finds the life in a list of the latest
//! departures, which is the data of the service's own node and goes with it. The list is an aid and
//! never in the way of a removal, which does without if others are writing it at that moment.

use plimsoll_backend_kit::Release;
use plimsoll_discovery_api::Result;
use tokio::time::Instant;
use zookeeper_client::{Error as Native, Stat};

use super::departures::read_list;
use super::{Records, SETTLE_ATTEMPTS, native};
use crate::codec;
use crate::connection::Connection;
use crate::error::{contended, failed_at, failed_for};
use crate::fetch::{Standing, read_all};
use crate::keys::Nodes;

/// So often the list is tried before the removal does without.
const LIST_ATTEMPTS: u32 = 3;

impl Records {
    /// Removes what `release` names.
    pub(crate) async fn remove(&self, release: &Release) -> Result<()> {
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
