//! Following a service: whole lists, as often as something may have changed.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plimsoll_backend_kit::{Change, Interest, Subscription, Update, Updates};
use plimsoll_discovery_api::{Error, ErrorKind, InstanceId, Result, Revision, ServiceName};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::directory::{begin, finish};
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

type Looked = Result<(Scan, bool)>;

#[derive(Debug)]
pub(crate) struct Following {
    path: Arc<Path>,
    service: ServiceName,
    interest: Interest,
    limit: Duration,
    notices: Option<Notices>,
    noticed: bool,
    looked: Instant,
    next_look: Instant,
    /// The look under way, and when it is given up.
    look: Option<(JoinHandle<Looked>, Instant)>,
    /// Those who look write nothing, unless there is no directory yet.
    awaits: Arc<()>,
    reports: HashMap<InstanceId, Report>,
    to_tell: VecDeque<Update>,
}

impl Following {
    /// Looks for the first time, and goes on from there.
    pub(crate) async fn start(
        path: &Arc<Path>,
        service: &ServiceName,
        interest: Interest,
        limit: Duration,
    ) -> Result<Subscription> {
        let now = Instant::now();
        let mut following = Self {
            path: Arc::clone(path),
            service: service.clone(),
            interest,
            limit,
            notices: Notices::new(),
            noticed: false,
            looked: now,
            next_look: now,
            look: None,
            awaits: Arc::new(()),
            reports: HashMap::new(),
            to_tell: VecDeque::new(),
        };
        let Scan { listing, reports } = following.look().await?;
        following.reports = reports;
        Ok(Subscription::new(listing, Box::new(following)))
    }

    /// Returns when it is time to look. Cancel safe.
    async fn due(&mut self) {
        while !self.noticed {
            let heard = async {
                match &self.notices {
                    Some(notices) => notices.changed().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = heard => self.noticed = true,
                () = sleep_until(self.next_look) => return,
            }
        }
        sleep_until(self.looked + PAUSE).await;
    }

    /// Looks, or goes on looking. Cancel safe.
    async fn look(&mut self) -> Result<Scan> {
        let (look, until) = self.look.get_or_insert_with(|| {
            let (service, interest) = (self.service.clone(), self.interest);
            let notices = self.notices.clone();
            let work = move |directory: &_| {
                // Before anything is read, so that nothing is missed between.
                let loads = interest == Interest::Loads;
                let attended = notices.is_some_and(|all| all.attend(directory, loads));
                Ok((scan(directory, &service, interest)?, attended))
            };
            let look = begin(&self.path, Arc::downgrade(&self.awaits), work);
            (look, Instant::now() + self.limit)
        });
        let looked = timeout_at(*until, look).await;
        self.look = None;
        self.looked = Instant::now();
        let silent = |_| Error::new(ErrorKind::TimedOut, "the file system does not answer");
        let (scan, attended) = finish(looked.map_err(silent)?)?;
        let noticed = std::mem::take(&mut self.noticed);
        self.next_look = self.looked
            + match attended {
                true if noticed => AFTERMATH,
                true => LOOK,
                false => POLL,
            };
        Ok(scan)
    }

    /// Tells everything, and of each load that was published anew, even of one that is as it was.
    fn tell(&mut self, Scan { listing, reports }: Scan) {
        let revision: Revision = listing.revision;
        self.to_tell
            .push_back(Update::new(revision, Change::Listed(listing)));
        for (id, report) in &reports {
            if self.reports.get(id) != Some(report) {
                let load = Change::Load {
                    id: id.clone(),
                    incarnation: report.life,
                    load: report.load,
                };
                self.to_tell.push_back(Update::new(revision, load));
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
            if self.look.is_none() {
                self.due().await;
            }
            match self.look().await {
                Ok(scan) => self.tell(scan),
                Err(cause) => return Some(Err(cause)),
            }
        }
    }
}
