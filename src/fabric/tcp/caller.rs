//! What the side that calls knows of the other, until that has answered.

use super::dial::Dial;
use super::parcel::{ConnectionParcel, Hello};
use super::seal::{SECRET, Session};
use crate::fabric::Rank;

/// See the module.
pub(super) struct Caller {
    pub dial: Dial,
    rank: Rank,
    told: ConnectionParcel,
}

impl Caller {
    pub fn new(rank: Rank, told: ConnectionParcel, dial: Dial) -> Self {
        Self { dial, rank, told }
    }

    /// The session, and what is said first.
    pub fn first_words(&self, peer: Rank, secret: &[u8; SECRET]) -> (Session, [u8; Hello::BYTES]) {
        let Self { rank, told, .. } = self;
        let session = Session::new((*rank, secret), (peer, &told.secret), told.ends.generation);
        let words = Hello::encode(*rank, peer, told.ends.generation, told.token, &session);
        (session, words)
    }
}
