//! Following a service: whole lists, as often as something may have changed.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{Change, Interest, Subscription, Update, Updates};
use plimsoll_discovery_api::{Error, ErrorKind, InstanceId, Result, ServiceName};
use tokio::time::{Instant, sleep_until, timeout};

use crate::directory::within;
use crate::list::{Report, Scan, scan};
use crate::notices::Notices;

/// How often the directory is looked at without a notice: some things give none, such as its removal.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// The same where the system gives no notices at all.
const POLL: Duration = Duration::from_millis(200);
/// A file is said to be closed a moment before its lock is released.
const AFTERMATH: Duration = Duration::from_millis(30);
/// Between one look and the next, however much is said.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Following {
    path: Arc<Path>,
    service: ServiceName,
    interest: Interest,
    limit: Duration,
    notices: Option<Notices>,
    /// Since the last look was begun that came to its end.
    noticed: bool,
    /// When the last look was begun, and when the next is due without a notice.
    looked: Instant,
    next_look: Instant,
    reports: HashMap<InstanceId, Report>,
    to_tell: VecDeque<Update>,
}

impl Following {
    pub(crate) fn new(
        path: &Arc<Path>,
        service: &ServiceName,
        interest: Interest,
        limit: Duration,
    ) -> Self {
        Self {
            path: Arc::clone(path),
            service: service.clone(),
            interest,
            limit,
            notices: Notices::new(),
            noticed: false,
            looked: Instant::now(),
            next_look: Instant::now(),
            reports: HashMap::new(),
            to_tell: VecDeque::new(),
        }
    }

    /// Looks for the first time, and goes on from there.
    pub(crate) async fn begin(mut self) -> Result<Subscription> {
        let (listing, reports) = self.look().await?;
        self.reports = reports;
        Ok(Subscription::new(listing, Box::new(self)))
    }

    /// Returns when it is time to look. Cancel safe.
    async fn due(&mut self) {
        let heard = async {
            match &self.notices {
                Some(notices) if !self.noticed => notices.changed().await,
                None => pending().await,
                Some(_) => {}
            }
        };
        tokio::select! {
            () = heard => self.noticed = true,
            () = sleep_until(self.next_look) => {}
        }
        sleep_until(self.looked + PAUSE).await;
    }

    /// Looks. Cancel safe: what was noticed is noticed until a look has come to its end.
    async fn look(&mut self) -> Result<Scan> {
        self.looked = Instant::now();
        let (service, interest) = (self.service.clone(), self.interest);
        let notices = self.notices.clone();
        let look = within(&self.path, move |directory| {
            // Before anything is read, so that nothing is missed between.
            let loads = interest == Interest::Loads;
            let attended = notices.is_some_and(|all| all.attend(directory, loads));
            Ok((scan(directory, &service, interest)?, attended))
        });
        let silent = |_| Error::new(ErrorKind::TimedOut, "the file system does not answer");
        let (scan, attended) = timeout(self.limit, look).await.map_err(silent)??;
        let wait = match std::mem::take(&mut self.noticed) {
            true if attended => AFTERMATH,
            false if attended => LOOK,
            _ => POLL,
        };
        self.next_look = Instant::now() + wait;
        Ok(scan)
    }

    /// Tells everything, and of each load that was published anew, even of one that is as it was.
    fn tell(&mut self, (listing, reports): Scan) {
        let revision = listing.revision;
        let mut tell = |change| self.to_tell.push_back(Update::new(revision, change));
        tell(Change::Listed(listing));
        for (id, report) in &reports {
            if self.reports.get(id) != Some(report) {
                tell(Change::Load {
                    id: id.clone(),
                    incarnation: report.life,
                    load: report.load,
                });
            }
        }
        self.reports = reports;
    }
}

#[async_trait]
impl Updates for Following {
    async fn next(&mut self) -> Option<Result<Update>> {
        loop {
            if let Some(update) = self.to_tell.pop_front() {
                return Some(Ok(update));
            }
            self.due().await;
            match self.look().await {
                Ok(scan) => self.tell(scan),
                Err(cause) => return Some(Err(cause)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use plimsoll_backend_kit::Record;
    use plimsoll_discovery_api::{Incarnation, Instance};

    use super::*;
    use crate::records::{Claim, claim};

    const LIMIT: Duration = Duration::from_secs(30);

    async fn registered(path: &Arc<Path>) -> Claim {
        let instance = Instance::builder("orders", "h", 1).with_id("a");
        let (instance, life) = (instance.build().unwrap(), Incarnation::random());
        let record = Record::new(Arc::new(instance), life, SystemTime::now(), 0);
        within(path, move |directory| {
            claim(directory, &record, &[], &true.into())
        })
        .await
        .unwrap()
    }

    async fn ids(updates: &mut Box<dyn Updates>) -> Vec<String> {
        loop {
            let update = updates.next().await.unwrap().unwrap();
            if let Change::Listed(listing) = update.change {
                let ids = listing.entries.iter().map(|entry| entry.instance.id());
                return ids.map(ToString::to_string).collect();
            }
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn the_system_tells_of_the_end_of_an_owner() {
        let scratch = tempfile::tempdir().unwrap();
        let path: Arc<Path> = scratch.path().join("plimsoll").into();
        let claim = registered(&path).await;
        let notices = Notices::new().unwrap();
        let attending = notices.clone();
        let attended = within(&path, move |directory| {
            Ok(attending.attend(directory, false))
        });
        assert!(attended.await.unwrap());
        let silence = timeout(Duration::from_millis(50), notices.changed()).await;
        assert!(silence.is_err(), "told of nothing");
        // Reading is no change, whoever asks for locks.
        let service: ServiceName = "orders".parse().unwrap();
        let read = within(&path, move |directory| {
            scan(directory, &service, Interest::Loads)
        });
        assert_eq!(read.await.unwrap().0.entries.len(), 1);
        let silence = timeout(Duration::from_millis(50), notices.changed()).await;
        assert!(silence.is_err(), "told of a look");
        drop(claim);
        timeout(LIMIT, notices.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn without_notices_a_change_is_seen_by_looking() {
        let scratch = tempfile::tempdir().unwrap();
        let path: Arc<Path> = scratch.path().join("plimsoll").into();
        let service = "orders".parse().unwrap();
        let mut following = Following::new(&path, &service, Interest::Loads, LIMIT);
        following.notices = None;
        let mut updates = following.begin().await.unwrap().updates;
        let claim = registered(&path).await;
        while ids(&mut updates).await.is_empty() {}
        drop(claim);
        while !ids(&mut updates).await.is_empty() {}
    }
}
