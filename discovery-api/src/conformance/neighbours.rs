//! Whoever else writes to the same registry.

use super::Harness;
use super::observer::ids;
use super::scene::{Scene, gone, load_becomes, member};
use crate::Snapshot;

/// An odd thing that was written.
#[derive(Clone, Debug)]
pub struct Oddity {
    pub(super) what: String,
    pub(super) is_entry: bool,
}

impl Oddity {
    /// An entry of the service, which must be counted or be a member of it.
    pub fn entry(what: impl Into<String>) -> Self {
        let what = what.into();
        Self {
            what,
            is_entry: true,
        }
    }

    /// Something else, such as a load that is nobody's or a service with a name that is none.
    pub fn other(what: impl Into<String>) -> Self {
        let what = what.into();
        Self {
            what,
            is_entry: false,
        }
    }
}

/// Values that no program of ours would write, for registries whose entries are bytes: what each is,
/// and its bytes. Those of a registry in the shape of its ecosystem come on top.
#[must_use]
pub fn odd_values() -> Vec<(&'static str, Vec<u8>)> {
    let nested = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
    let plain: [(&str, &[u8]); 13] = [
        ("no bytes", b""),
        ("bytes that are no text", b"\xff\xfe\x00{"),
        ("JSON that ends too early", b"{\"not\": an instance"),
        ("null", b"null"),
        ("a list", b"[1,\"00000000000000000000000000000001\"]"),
        ("a text", b"\"10.0.0.1:80\""),
        ("a number that is none", b"1e999"),
        ("half a character", b"{\"id\":\"\\ud800\"}"),
        ("a byte that is no text within JSON", b"{\"id\":\"\xff\"}"),
        ("one name twice", b"{\"id\":\"a\",\"id\":\"b\"}"),
        ("a record without anything", b"{\"schema\":1}"),
        (
            "a record of another shape",
            br#"{"schema":-1,"id":7,"host":[],"port":-1,"incarnation":{}}"#,
        ),
        (
            "a record with numbers beyond all bounds",
            br#"{"schema":5000000000,"id":"a","host":"h","port":5000000000,"incarnation":"1"}"#,
        ),
    ];
    let plain = plain.map(|(what, bytes)| (what, bytes.to_owned()));
    let mut values = plain.to_vec();
    values.push(("JSON of great depth", nested(50_000).into_bytes()));
    let deep = format!(r#"{{"schema":1,"id":"a","deep":{}}}"#, nested(50_000));
    values.push(("a record of great depth", deep.into_bytes()));
    values.push(("a large value", vec![b'x'; 256 * 1024]));
    values
}

/// Whatever a neighbour writes, of whatever shape, encoding or size, costs at most his own entry.
pub async fn a_neighbours_odd_value_hides_nobody_else(harness: &dyn Harness) {
    let scene = Scene::new(harness);
    let (owner, other) = (scene.process().await, scene.process().await);
    let settle = scene.timing.settle;
    let _first = scene.live(&owner, "first").await;
    let mut early = scene.follow(&other).await;
    early
        .until(settle, "the first", |s| ids(s) == ["first"])
        .await;
    early.never("a set without the first", |s| s.get("first").is_none());
    let mut entries = 0;
    for number in 0.. {
        let Some(oddity) = scene.faults().oddity(&scene.service, number).await else {
            break;
        };
        entries += usize::from(oddity.is_entry);
        let counted = |s: &Snapshot| {
            s.get("first").is_some() && s.members().len() + s.skipped() == entries + 1
        };
        let what = format!(
            "the first, and the neighbour counted who wrote {}",
            oddity.what
        );
        scene.listed(&other, settle, &what, counted).await;
        early.until(settle, &what, counted).await;
    }
    assert!(
        entries >= 10,
        "a neighbour who wrote no more than {entries}"
    );
    let second = scene.live(&owner, "second").await;
    let both = |s: &Snapshot| {
        let counted = s.members().len() + s.skipped() == entries + 2;
        s.get("first").is_some() && s.get("second").is_some() && counted
    };
    early.until(settle, "both", both).await;
    let late = scene.process().await;
    let mut late = scene.follow(&late).await;
    let seen = late.until(settle, "both", both).await;
    second.load().set(7);
    let _in_time_or_by_itself = second.load().flush().await;
    load_becomes(scene.timing.settle, member(&seen, "second"), 7).await;
    let names = other.services().await;
    let named = names.is_ok_and(|names| names.contains(&scene.service));
    assert!(named, "the service is not named any more");
    gone(scene.timing.removal, &second).await;
    let first = |s: &Snapshot| s.get("first").is_some() && s.get("second").is_none();
    early.until(settle, "the first alone again", first).await;
    late.until(settle, "the first alone again", first).await;
}
