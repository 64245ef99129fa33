//! A watcher that distrusts what it sees.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::{ServiceName, Snapshot, Watch};

/// Between two looks at a snapshot that has not changed.
const LEAST_PAUSE: Duration = Duration::from_millis(1);
const MOST_PAUSE: Duration = Duration::from_millis(50);

type Condition = fn(&Snapshot) -> bool;

/// A watch whose every snapshot is checked for what holds of all of them.
pub(super) struct Observer {
    watch: Watch,
    service: ServiceName,
    last: Option<Arc<Snapshot>>,
    never: Vec<(&'static str, Condition)>,
}

impl Observer {
    pub(super) fn new(watch: Watch, service: ServiceName) -> Self {
        Self {
            watch,
            service,
            last: None,
            never: Vec::new(),
        }
    }

    /// Fails the case if any later snapshot satisfies `condition`.
    pub(super) fn never(&mut self, what: &'static str, condition: Condition) {
        self.never.push((what, condition));
    }

    /// Takes back every [`never`](Self::never).
    pub(super) fn allow_all(&mut self) {
        self.never.clear();
    }

    /// The next snapshot, whatever it says.
    pub(super) async fn next(&mut self, within: Duration, what: &str) -> Arc<Snapshot> {
        match self.step(Instant::now() + within).await {
            Some(snapshot) => snapshot,
            None => panic!(
                "expected {what} within {within:?}, but nothing came; last seen: {}",
                self.seen()
            ),
        }
    }

    /// Reads on until the latest snapshot satisfies `wanted`, which may look at more than the
    /// snapshot: an owner can learn later than its watchers that it is registered.
    pub(super) async fn until(
        &mut self,
        within: Duration,
        what: &str,
        mut wanted: impl FnMut(&Snapshot) -> bool + Send,
    ) -> Arc<Snapshot> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(last) = &self.last
                && self
                    .watch
                    .latest()
                    .is_some_and(|latest| Arc::ptr_eq(&latest, last))
                && wanted(last)
            {
                return Arc::clone(last);
            }
            let again = Instant::now() + (within / 100).clamp(LEAST_PAUSE, MOST_PAUSE);
            let step = self.step(again.min(deadline)).await;
            assert!(
                step.is_some() || Instant::now() < deadline,
                "expected a watch to yield {what} within {within:?}; last seen: {}",
                self.seen()
            );
        }
    }

    /// Reads on for `span`, and fails if a snapshot does not satisfy `wanted`, the present one
    /// included.
    pub(super) async fn stays(
        &mut self,
        span: Duration,
        what: &str,
        mut wanted: impl FnMut(&Snapshot) -> bool + Send,
    ) {
        let deadline = Instant::now() + span;
        loop {
            let holds = self.last.as_deref().is_some_and(&mut wanted);
            assert!(
                holds,
                "expected a watch to keep {what} for {span:?}; seen: {}",
                self.seen()
            );
            if self.step(deadline).await.is_none() {
                return;
            }
        }
    }

    /// Fails if anything is yielded within `span`.
    pub(super) async fn silent(&mut self, span: Duration, what: &str) {
        let before = self.seen();
        if self.step(Instant::now() + span).await.is_some() {
            let after = self.seen();
            panic!("expected no watcher to wake for {what}; it had {before} and yielded {after}");
        }
    }

    /// Takes in what is still on its way, until there is nothing new for `span`.
    pub(super) async fn drain(&mut self, span: Duration) {
        while self.step(Instant::now() + span).await.is_some() {}
    }

    /// Reads on in the background, so that no state passes unseen while the case does other things.
    pub(super) fn attend(mut self) -> Attending {
        let enough = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&enough);
        let task = tokio::spawn(async move {
            while !told.load(Ordering::Relaxed) {
                self.drain(Duration::from_millis(5)).await;
            }
            self
        });
        Attending { enough, task }
    }

    /// The latest snapshot without marking it as seen.
    pub(super) fn peek(&self) -> Option<Arc<Snapshot>> {
        self.watch.latest()
    }

    async fn step(&mut self, deadline: Instant) -> Option<Arc<Snapshot>> {
        let yielded = timeout_at(deadline, self.watch.next()).await.ok()?;
        let Some(snapshot) = yielded else {
            panic!("a watch ended by itself; last seen: {}", self.seen());
        };
        self.check(&snapshot);
        self.last = Some(Arc::clone(&snapshot));
        Some(snapshot)
    }

    fn check(&self, snapshot: &Snapshot) {
        let seen = show(snapshot);
        assert_eq!(
            snapshot.service(),
            &self.service,
            "a watch on one service yields another"
        );
        for member in snapshot.members() {
            let service = member.instance().service();
            assert_eq!(
                service, &self.service,
                "a member of another service: {seen}"
            );
        }
        let sorted = snapshot.members().is_sorted_by(|a, b| a.id() < b.id());
        assert!(
            sorted,
            "the members are not sorted by id, each once: {seen}"
        );
        if let Some(last) = &self.last {
            let back = snapshot.revision().is_before(last.revision());
            assert!(
                !back,
                "the revision goes back from {} to {seen}",
                last.revision()
            );
        }
        for (what, condition) in &self.never {
            assert!(
                !condition(snapshot),
                "a watcher must never see {what}, and saw {seen}"
            );
        }
    }

    fn seen(&self) -> String {
        self.last
            .as_deref()
            .map_or_else(|| "nothing yet".to_owned(), show)
    }
}

/// An observer at work.
pub(super) struct Attending {
    enough: Arc<AtomicBool>,
    task: JoinHandle<Observer>,
}

impl Attending {
    /// Fails the case if the observer has seen what it must not.
    pub(super) async fn report(self) -> Observer {
        self.enough.store(true, Ordering::Relaxed);
        match self.task.await {
            Ok(observer) => observer,
            Err(failed) => resume_unwind(failed.into_panic()),
        }
    }
}

/// A snapshot on one line.
pub(super) fn show(snapshot: &Snapshot) -> String {
    let members: Vec<String> = snapshot
        .members()
        .iter()
        .map(|member| {
            format!(
                "{} ({} {:?} {:?} load {:?})",
                member.id(),
                member.incarnation(),
                member.instance().status(),
                member.standing(),
                member.load().get()
            )
        })
        .collect();
    format!(
        "{} members [{}], {:?}, {} skipped, revision {}",
        members.len(),
        members.join(", "),
        snapshot.freshness(),
        snapshot.skipped(),
        snapshot.revision()
    )
}

/// The ids of a snapshot, in order.
pub(super) fn ids(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .members()
        .iter()
        .map(|member| member.id().as_str())
        .collect()
}
