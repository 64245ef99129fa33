//! Keys, loads and lives that come and go.

use plimsoll_discovery_api::{ErrorKind, Instance};

use super::*;

const RAW: &str = "10.0.0.1:80";
const ESCAPED: &str = "10.0.0.1%3A80";

/// A value is a host; none is understood of an empty one, and `-` is the last word of its owner.
fn read(service: &ServiceName, row: &Row<'_>) -> Result<Reading, Skipped> {
    let host = std::str::from_utf8(row.bytes).unwrap_or_default();
    if host == "-" {
        return Ok(Reading::Departed);
    }
    let instance = Instance::builder(service, host, 1).with_id(id_of(&row.key));
    let instance = instance
        .build()
        .map_err(|e| Skipped::new(id_of(&row.key), e))?;
    let life = Incarnation::from_bits(u128::from(row.created));
    Ok(Reading::Present(Entry::new(instance, life)))
}

fn rows() -> Rows {
    Rows::new("orders".parse().unwrap(), Revision::new(1, 0), read)
}

/// Created and written at `at`, by the owner 7.
fn row<'a>(key: &'a str, host: &'a str, at: u64) -> Row<'a> {
    Row::new(key, host.as_bytes(), (at, at), Some(7))
}

fn unowned<'a>(key: &'a str, host: &'a str, at: u64) -> Row<'a> {
    Row::new(key, host.as_bytes(), (at, at), None)
}

fn unreadable() -> Error {
    Error::new(ErrorKind::PermissionDenied, "no")
}

/// What the change says.
fn told(change: Option<Change>) -> String {
    match change {
        None => "nothing".into(),
        Some(Change::Put(entry)) => entry.instance.host().to_string(),
        Some(Change::Skipped(skipped)) => format!("{} skipped", skipped.key),
        Some(Change::Load { id, load, .. }) => format!("{id} at {load}"),
        Some(Change::Removed { key, departure }) => match departure {
            Departure::Graceful => format!("{key} left"),
            Departure::Unannounced => format!("{key} lost"),
        },
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn an_id_under_two_keys_is_shown_by_the_escaped_one_as_long_as_that_is_there() {
    let mut rows = rows();
    assert_eq!(told(rows.put(&row(RAW, "raw", 1))), "raw");
    assert_eq!(told(rows.put(&row(ESCAPED, "escaped", 2))), "escaped");
    assert_eq!(told(rows.put(&row(RAW, "raw", 3))), "nothing");
    assert_eq!(told(rows.deleted(ESCAPED)), "raw");
    assert_eq!(told(rows.put(&row(ESCAPED, "escaped", 5))), "escaped");
    assert_eq!(told(rows.deleted(RAW)), "nothing");
    assert_eq!(told(rows.deleted(ESCAPED)), format!("{RAW} lost"));
    assert_eq!(told(rows.put(&row(RAW, "raw", 8))), "raw");
    assert_eq!(told(rows.deleted(RAW)), format!("{RAW} lost"));
    assert_eq!(rows.revision(), Revision::new(1, 8));
    rows.advance(9);
    rows.advance(2);
    assert_eq!(rows.revision(), Revision::new(1, 9));
}

/// What is shown of an id beyond the limits is not the key that leads back to it.
#[test]
fn an_id_of_any_length_is_shown_again_when_its_escaped_one_goes() {
    let raw = format!("{}:80", "h".repeat(300));
    let escaped = crate::escape(&raw);
    let mut rows = rows();
    assert_eq!(told(rows.put(&row(&raw, "raw", 1))), "raw");
    assert_eq!(told(rows.put(&row(&escaped, "escaped", 2))), "escaped");
    assert_eq!(told(rows.deleted(&escaped)), "raw");
}

#[test]
fn an_id_under_two_keys_is_listed_once() {
    for keys in [[RAW, ESCAPED], [ESCAPED, RAW]] {
        let mut rows = rows();
        for key in keys {
            rows.list(&row(key, if key == RAW { "raw" } else { "escaped" }, 1));
        }
        let listed = rows.take_listing().entries;
        let hosts: Vec<_> = listed
            .iter()
            .map(|e| e.instance.host().to_string())
            .collect();
        assert_eq!(hosts, ["escaped"]);
        assert_eq!(told(rows.deleted(ESCAPED)), "raw");
    }
}

/// The id `a%2Fb` is escaped to a key that has the key of the id `a/b` in it, and is not its twin.
#[test]
fn an_id_that_looks_like_an_escaped_one_hides_nobody() {
    for keys in [["a%2Fb", "a%252Fb"], ["a%252Fb", "a%2Fb"]] {
        let mut rows = rows();
        rows.list(&row(keys[0], "first", 1));
        assert_eq!(told(rows.put(&row(keys[1], "second", 2))), "second");
        assert_eq!(rows.take_listing().entries.len(), 1);
        assert!(rows.shows(keys[0]) && rows.shows(keys[1]));
        let gone = format!("{} lost", id_of(keys[1]));
        assert_eq!(told(rows.deleted(keys[1])), gone);
        assert!(rows.shows(keys[0]));
    }
}

#[test]
fn one_that_may_not_be_read_is_told_of_once_and_takes_its_turn_like_any_other() {
    let mut rows = rows();
    rows.list_unreadable(ESCAPED, unreadable());
    rows.list(&row(RAW, "raw", 1));
    let listed = rows.take_listing();
    assert_eq!((listed.entries.len(), listed.skipped.len()), (0, 1));
    assert_eq!(told(rows.unreadable(ESCAPED, unreadable())), "nothing");
    assert_eq!(told(rows.deleted(ESCAPED)), "raw");
    assert_eq!(
        told(rows.unreadable(RAW, unreadable())),
        format!("{RAW} skipped")
    );
    assert_eq!(told(rows.put(&row(ESCAPED, "escaped", 2))), "escaped");
    assert_eq!(told(rows.deleted(ESCAPED)), format!("{RAW} skipped"));
    // One that may be read again is news, whenever it was written.
    assert_eq!(told(rows.put(&row(RAW, "raw", 1))), "raw");
}

#[test]
fn what_is_told_again_is_no_news_and_garbage_is_news_of_its_own_key_alone() {
    let mut rows = rows();
    assert_eq!(told(rows.put(&row("a", "h", 5))), "h");
    assert_eq!(told(rows.put(&row("a", "h", 5))), "nothing");
    assert_eq!(told(rows.put(&row("b", "", 6))), "b skipped");
    assert_eq!(told(rows.deleted("b")), "b lost");
    assert_eq!(told(rows.deleted("b")), "nothing");
    assert!(rows.shows("a") && !rows.shows("b"));
}

/// Nobody but an operator, or its owner, can have deleted what hangs on no lease.
#[test]
fn the_deletion_of_what_nobody_owns_is_a_departure_and_the_end_of_an_owner_a_loss() {
    let mut rows = rows();
    rows.put(&unowned("permanent", "h", 1));
    rows.put(&row("leased", "h", 1));
    rows.put(&unowned("garbage", "", 1));
    assert!(!rows.would_be_lost("permanent") && rows.would_be_lost("leased"));
    assert!(!rows.would_be_lost("unknown"));
    assert_eq!(told(rows.deleted("permanent")), "permanent left");
    assert_eq!(told(rows.deleted("leased")), "leased lost");
    assert_eq!(told(rows.deleted("garbage")), "garbage lost");
}

#[test]
fn who_says_so_before_has_left_by_its_value_or_by_its_life() {
    let mut rows = rows();
    rows.put(&row("a", "h", 1));
    rows.put(&row("b", "h", 2));
    assert_eq!(told(rows.put(&row("a", "-", 3))), "a left");
    assert_eq!(told(rows.deleted("a")), "nothing");
    rows.note_departed(Incarnation::from_bits(2));
    assert!(!rows.would_be_lost("b"));
    assert_eq!(told(rows.deleted("b")), "b left");
    // The word was for that life.
    rows.put(&row("b", "h", 6));
    assert_eq!(told(rows.deleted("b")), "b lost");
}

#[test]
fn departures_of_nobody_known_are_forgotten_before_any_other() {
    let mut rows = rows();
    rows.put(&row("a", "h", 1));
    rows.note_departed(Incarnation::from_bits(1));
    for life in 0..2 * DEPARTED as u128 {
        rows.note_departed(Incarnation::from_bits(1_000 + life));
    }
    assert!(rows.departed.len() <= DEPARTED);
    assert_eq!(told(rows.deleted("a")), "a left");
}

#[test]
fn a_load_is_of_the_life_that_its_owner_and_its_time_say() {
    let mut rows = rows();
    rows.note_load(&row("a", "3", 1));
    rows.list(&row("a", "h", 1));
    assert_eq!(rows.take_listing().entries[0].load, Some(3));
    assert_eq!(told(rows.published(&row("a", "4", 2))), "a at 4");
    assert_eq!(told(rows.published(&row("a", "x", 3))), "nothing");
    assert_eq!(told(rows.published(&row("b", "5", 3))), "nothing", "nobody");
    assert_eq!(told(rows.published(&unowned("a", "6", 4))), "nothing");
    // Of the next life: it is there before its identity.
    assert_eq!(told(rows.put(&row("a", "h", 9))), "h");
    assert_eq!(
        told(rows.published(&row("a", "7", 8))),
        "nothing",
        "a former life's"
    );
    rows.note_load(&row("a", "8", 9));
    assert_eq!(told(rows.load("a")), "a at 8");
    rows.unpublished("a");
    assert_eq!(told(rows.load("a")), "nothing");
}

#[test]
fn what_is_shown_and_not_present_is_missing() {
    let mut rows = rows();
    for key in ["a", "b", RAW, ESCAPED] {
        rows.put(&row(key, "h", 1));
    }
    let present = ["a", ESCAPED].map(str::to_owned).into();
    assert_eq!(rows.missing(&present), ["b"]);
}
