//! The latest departures of a service, as far as this handle knows of them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll_discovery_api::{Incarnation, ServiceName};

/// So many departures of a service are remembered: more than leave during a reconnect, and still a
/// small node.
const REMEMBERED: usize = 128;
/// What has left through this handle, so that a removal that did without the list is made up for
/// by the next.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    latest: Mutex<VecDeque<(ServiceName, Incarnation)>>,
    /// Held by the one removal that writes the list: it speaks for those beside it.
    pub(super) writing: tokio::sync::Mutex<()>,
}

impl Departures {
    pub(super) fn note(&self, service: &ServiceName, life: Incarnation) {
        let mut latest = self.latest();
        let departure = (service.clone(), life);
        if !latest.contains(&departure) {
            latest.truncate(REMEMBERED - 1);
            latest.push_front(departure);
        }
    }

    /// `list` with what has left `service` through this handle, latest first.
    pub(super) fn added_to(&self, list: &[Incarnation], service: &ServiceName) -> String {
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
