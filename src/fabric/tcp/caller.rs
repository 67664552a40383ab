//! What the side that calls knows of the other, until that has answered.

use super::dial::Dial;
use super::parcel::{ConnectionParcel, Hello, Welcome};
use super::seal::{Nonces, Pact, SECRET, Session, random};
use crate::fabric::{FabricError, Rank};

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

    /// The session, and what is said to whoever said `welcome`.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn first_words(
        &self,
        peer: Rank,
        secret: &[u8; SECRET],
        welcome: Welcome,
    ) -> Result<(Session, [u8; Hello::BYTES]), FabricError> {
        let Self { rank, told, .. } = self;
        let generation = told.ends.generation;
        let pact = Pact::new((*rank, secret), (peer, &told.secret), generation);
        let (listener, dialer) = (welcome.nonce, random()?);
        let session = pact.session(&Nonces { listener, dialer });
        let words = Hello::encode([*rank, peer], generation, told.token, dialer, &session);
        Ok((session, words))
    }
}
