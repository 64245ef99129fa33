//! What other clients usually have under way at an endpoint.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Endpoint;
use crate::Timestamp;

/// What others have there for as long as this counts half of the usual, and half of that which
/// was usual before: three reports at the usual 2 s, so that what comes and goes with each of
/// them evens out.
const HALF_BELIEVED: Duration = Duration::from_secs(6);

/// What an endpoint's reports say of other clients: the last difference between what it published
/// and what this client had under way there then, and how such differences went before it. `f64`
/// as bits; what a reader gets that races a writer may be of two reports.
#[derive(Debug, Default)]
pub(super) struct Record {
    last: AtomicU64,
    usual: AtomicU64,
    deviation: AtomicU64,
}

/// Requests of other clients at an endpoint, as its reports tell over time.
///
/// A report is a level that holds until the next one. What is usual follows it the more the longer
/// it has held: after 6 s by half, after 18 s by three quarters. So what lasts is told from what
/// comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Others {
    /// How many there usually are. May be below 0, as what was published and what this client
    /// had under way were not counted at the same moment.
    pub usual: f64,
    /// How far from that the reports usually are; at least 0.
    pub deviation: f64,
}

impl Others {
    /// After `last` has held for `span`.
    fn after(self, last: f64, span: Duration) -> Self {
        let span = span.as_secs_f64();
        let part = span / (span + HALF_BELIEVED.as_secs_f64());
        let usual = self.usual + (last - self.usual) * part;
        let off = (last - usual).abs();
        Self {
            usual,
            deviation: self.deviation + (off - self.deviation) * part,
        }
    }
}

impl Record {
    fn get(place: &AtomicU64) -> f64 {
        f64::from_bits(place.load(Ordering::Relaxed))
    }

    fn at(&self, held: Duration) -> Others {
        let before = Others {
            usual: Self::get(&self.usual),
            deviation: Self::get(&self.deviation),
        };
        before.after(Self::get(&self.last), held)
    }

    /// Takes in that there are `others` from now on, after what was before has `held` for so long;
    /// `None` if nothing was: then half of it may be chance, as
    /// [RFC 6298](https://www.rfc-editor.org/rfc/rfc6298#section-2) has it of a first round trip.
    pub(super) fn take(&self, others: f64, held: Option<Duration>) {
        let Others { usual, deviation } = match held {
            Some(held) => self.at(held),
            None => Others {
                usual: others,
                deviation: others.abs() / 2.0,
            },
        };
        let put = |place: &AtomicU64, number: f64| place.store(number.to_bits(), Ordering::Relaxed);
        put(&self.usual, usual);
        put(&self.deviation, deviation);
        put(&self.last, others);
    }
}

impl Endpoint {
    /// What other clients usually have under way there, as of the reports for which
    /// [`unreported`](Self::unreported) took the mark; `None` before the first.
    #[inline]
    #[must_use]
    pub fn others(&self, now: Timestamp) -> Option<Others> {
        let seen = self.seen_report.load(Ordering::Relaxed).checked_sub(1)?;
        let held = now.since(Timestamp::from_nanos(seen));
        Some(self.others.at(held))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Incarnation, Instance, Member, Pick, PublishedLoad};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    /// An endpoint, and the load that its server publishes.
    fn endpoint() -> (Endpoint, Arc<PublishedLoad>) {
        let instance = Instance::builder("s", "h", 1).with_id("a").build().unwrap();
        let load = Arc::new(PublishedLoad::new());
        let (instance, incarnation) = (Arc::new(instance), Incarnation::from_bits(1));
        let member = Member::new(instance, incarnation, Arc::clone(&load));
        (Endpoint::new(&member), load)
    }

    #[test]
    fn others_are_what_was_published_beyond_what_this_client_had() {
        let (endpoint, load) = endpoint();
        assert_eq!(endpoint.others(at(0)), None);
        let _own: Vec<_> = (0..30).map(|_| Pick::new(&endpoint)).collect();
        load.store(130, at(0));
        assert_eq!(endpoint.others(at(0)), None, "nobody has looked yet");
        let _mark = endpoint.unreported();
        let _more: Vec<_> = (0..70).map(|_| Pick::new(&endpoint)).collect();
        let others = endpoint.others(at(60)).unwrap();
        assert_eq!(others.usual, 100.0, "whatever this client does since");
        assert!(others.deviation < 10.0, "it has held for long: {others:?}");
        assert_eq!(endpoint.others(at(0)).unwrap().deviation, 50.0);
    }

    #[test]
    fn what_comes_and_goes_evens_out_and_is_said_to_deviate() {
        let (endpoint, load) = endpoint();
        for turn in 0..100 {
            load.store(if turn % 2 == 0 { 40 } else { 0 }, at(turn * 2));
            let _mark = endpoint.unreported();
        }
        let others = endpoint.others(at(200)).unwrap();
        assert!((15.0..25.0).contains(&others.usual), "{others:?}");
        assert!((15.0..25.0).contains(&others.deviation), "{others:?}");
    }

    #[test]
    fn what_lasts_becomes_usual_without_a_further_report() {
        let (endpoint, load) = endpoint();
        load.store(0, at(0));
        let _mark = endpoint.unreported();
        load.store(100, at(60));
        let _mark = endpoint.unreported();
        let usual = |now| endpoint.others(at(now)).unwrap().usual;
        assert_eq!((usual(60), usual(66), usual(78)), (0.0, 50.0, 75.0));
        let later = endpoint.others(at(600)).unwrap();
        assert!(later.usual > 98.0 && later.deviation < 5.0, "{later:?}");
    }

    #[test]
    fn the_largest_loads_and_ages_stay_finite() {
        let (endpoint, load) = endpoint();
        for now in [0, 1, u64::MAX / 1_000_000_000] {
            load.store(if now == 1 { u64::MAX } else { 0 }, at(now));
            let _mark = endpoint.unreported();
            let others = endpoint.others(Timestamp::from_nanos(u64::MAX)).unwrap();
            assert!(others.usual.is_finite() && others.deviation.is_finite());
        }
    }
}
