//! What is measured.

use crate::set::Key;

/// Something that picks endpoints, shared by the threads that pick.
pub trait Subject: Send + Sync + 'static {
    /// What one thread holds to pick with.
    type Handle<'a>;

    fn handle(&self) -> Self::Handle<'_>;

    /// Chooses an endpoint, touches it, lets go of whatever the pick holds, and returns the
    /// endpoint's number. Panics rather than choose none.
    fn pick(handle: &mut Self::Handle<'_>, key: &Key) -> u64;

    /// Runs `picks` where they find what the subject wants around them.
    fn around(&self, picks: &mut dyn FnMut()) {
        picks();
    }

    /// Panics unless so many picks were made since the beginning and none is still held.
    fn settled(&self, _picks: u64) {}
}

/// How picks are spread where nothing is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// As it happens: by measured latency, or not at all.
    Free,
    /// In every cycle exactly by weight.
    Turns,
    /// By chance, in proportion to weight.
    Chance,
    /// Equal keys to one endpoint, and every endpoint has some.
    Keys,
}

/// What stands behind a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours through a handle of one task.
    Local,
    /// Ours shared.
    Shared,
    /// Ours without client and guard, for context.
    Bare,
    /// Another crate that brings the algorithm and follows changes of membership.
    Peer,
    /// A part of one, or a crate, that only looks up: what it picks from cannot change.
    Part,
    /// The yardstick for `Local`: the same arithmetic and an in-flight guard on a bare slice.
    PlainLocal,
    /// The yardstick for `Shared`: the same behind one shared atomic snapshot.
    PlainShared,
    /// For context.
    Plain,
}
