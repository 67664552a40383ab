//! Session keys, and what proves that bytes come from the other end, whole, once and in order: each header and each
//! body has a tag over its bytes and its number in its direction, under a key of that direction. Nothing is encrypted.
//!
//! The keys are made of a secret from each side's connection parcel, and of a number that each side draws anew for each
//! connection: whatever was recorded of an earlier one fits none of its keys. Parcels travel between members of the job
//! only, encrypted.

use std::fmt;

use blake3::Hasher;

use super::frame::{PLAIN, TAG};
use crate::fabric::{FabricError, Rank};

/// Bytes of a side's share of the secret.
pub(super) const SECRET: usize = 32;
/// Bytes by which a visitor shows that it has seen a parcel.
pub(super) const TOKEN: usize = 16;
/// Bytes that each side draws for one connection.
pub(super) const NONCE: usize = 16;
/// Of so many bytes the hash makes a subtree with all that the processor has; ragged pieces cost it up to twice as much.
pub(super) const STRIDE: usize = 64 << 10;

/// Random bytes of the system's.
pub(super) fn random<const N: usize>() -> Result<[u8; N], FabricError> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| super::system("drawing random bytes", error))?;
    Ok(bytes)
}

/// Whether two byte strings are the same, in a time that tells nothing.
pub(super) fn same<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// The keys of one direction, and how far it came.
pub(super) struct Seal {
    header: [u8; 32],
    /// Of the body at hand; as large as all the rest, so it stays where it is and begins anew for each.
    body: Hasher,
    /// Of the next header. A body has the number of the header before it.
    number: u64,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// What both ends of a queue pair know before there is a connection: who they are, and what each drew.
pub(super) struct Pact {
    dialer: (Rank, [u8; SECRET]),
    listener: (Rank, [u8; SECRET]),
    generation: u32,
}

/// What one connection's two sides drew for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonces {
    pub listener: [u8; NONCE],
    pub dialer: [u8; NONCE],
}

/// What both ends of a connection know.
pub(super) struct Session {
    /// For the connecting side's first words.
    hello: [u8; 32],
    pub dialer_to_listener: Seal,
    pub listener_to_dialer: Seal,
}

impl Pact {
    /// The same on both sides.
    pub fn new(dialer: (Rank, &[u8; SECRET]), listener: (Rank, &[u8; SECRET]), generation: u32) -> Self {
        Self {
            dialer: (dialer.0, *dialer.1),
            listener: (listener.0, *listener.1),
            generation,
        }
    }

    /// The keys of one connection.
    pub fn session(&self, nonces: &Nonces) -> Session {
        let key = |what: &str| {
            let mut hasher = Hasher::new_derive_key(what);
            for (rank, secret) in [&self.dialer, &self.listener] {
                hasher.update(&rank.to_le_bytes()).update(secret);
            }
            hasher.update(&self.generation.to_le_bytes());
            hasher.update(&nonces.listener).update(&nonces.dialer);
            *hasher.finalize().as_bytes()
        };
        let seal = |header, body| Seal {
            header: key(header),
            body: Hasher::new_keyed(&key(body)),
            number: 0,
        };
        Session {
            hello: key("sapwood fabric tcp v2: first words"),
            dialer_to_listener: seal(
                "sapwood fabric tcp v2: headers from the connecting side",
                "sapwood fabric tcp v2: bodies from the connecting side",
            ),
            listener_to_dialer: seal(
                "sapwood fabric tcp v2: headers from the listening side",
                "sapwood fabric tcp v2: bodies from the listening side",
            ),
        }
    }
}

impl Session {
    /// The tag of the first words.
    pub fn hello_tag(&self, words: &[u8]) -> [u8; TAG] {
        shorten(blake3::keyed_hash(&self.hello, words))
    }
}

fn shorten(hash: blake3::Hash) -> [u8; TAG] {
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

impl Seal {
    /// The tag of the next header.
    #[inline]
    pub fn header(&mut self, plain: &[u8; PLAIN]) -> [u8; TAG] {
        // One block of the hash.
        let mut bytes = [0; PLAIN + 8];
        bytes[..PLAIN].copy_from_slice(plain);
        bytes[PLAIN..].copy_from_slice(&self.number.to_le_bytes());
        self.number += 1;
        shorten(blake3::keyed_hash(&self.header, &bytes))
    }

    /// Whether no header was tagged so far.
    pub fn is_fresh(&self) -> bool {
        self.number == 0
    }

    /// Begins the body behind the last header.
    pub fn begin_body(&mut self) {
        self.body.reset();
    }

    /// More bytes of it. Fast if it is cut at multiples of [`STRIDE`] from its beginning.
    ///
    /// # Safety
    /// `len` bytes are readable there. Others may write them meanwhile: what is then hashed is any mixture.
    pub unsafe fn add(&mut self, bytes: *const u8, len: usize) {
        // SAFETY: readable by the contract. Peers and owners may store to registered memory at any time, as with any
        // fabric; the hash reads each byte once, and nothing but the tag, which then fits nothing, depends on it.
        self.body
            .update(unsafe { std::slice::from_raw_parts(bytes, len) });
    }

    /// The tag of the body, all of which was added.
    pub fn body_tag(&mut self) -> [u8; TAG] {
        self.body.update(&self.number.to_le_bytes());
        shorten(self.body.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(secret: u8) -> Session {
        of_connection(secret, [0; NONCE], [0; NONCE])
    }

    fn of_connection(secret: u8, listener: [u8; NONCE], dialer: [u8; NONCE]) -> Session {
        let pact = Pact::new((3, &[secret; SECRET]), (1, &[2; SECRET]), 5);
        pact.session(&Nonces { listener, dialer })
    }

    #[test]
    fn no_two_connections_have_the_same_keys() {
        let tag = |listener, dialer| {
            of_connection(7, [listener; NONCE], [dialer; NONCE])
                .dialer_to_listener
                .header(&[9; PLAIN])
        };
        assert_eq!(tag(1, 2), tag(1, 2));
        assert_ne!(tag(1, 2), tag(3, 2), "the listening side's number");
        assert_ne!(tag(1, 2), tag(1, 3), "the connecting side's number");
    }

    #[test]
    fn both_ends_make_the_same_tags_and_each_only_once() {
        let (mut one, mut other) = (session(7), session(7));
        let plain = [9; PLAIN];
        let first = one.dialer_to_listener.header(&plain);
        assert_eq!(first, other.dialer_to_listener.header(&plain));
        let second = one.dialer_to_listener.header(&plain);
        assert_ne!(first, second, "the same header again is another one");
        assert_ne!(
            first,
            other.listener_to_dialer.header(&plain),
            "another direction"
        );
        assert_ne!(
            first,
            session(8).dialer_to_listener.header(&plain),
            "another secret"
        );
        assert_eq!(one.hello_tag(b"words"), other.hello_tag(b"words"));
        assert_ne!(one.hello_tag(b"words"), one.hello_tag(b"worms"));
    }

    #[test]
    fn a_body_has_one_tag_however_it_is_cut() {
        let mut session = session(7);
        let bytes: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let seal = &mut session.dialer_to_listener;
        let mut tag = |pieces: &[usize]| {
            seal.begin_body();
            let mut from = 0;
            for len in pieces {
                // SAFETY: bytes of this function's own.
                unsafe { seal.add(bytes[from..from + len].as_ptr(), *len) };
                from += len;
            }
            seal.body_tag()
        };
        let whole = tag(&[100_000]);
        assert_eq!(tag(&[7_777, 92_223]), whole);
        assert_eq!(tag(&[STRIDE, 100_000 - STRIDE]), whole);
        assert_ne!(tag(&[7_778]), whole);
        assert!(same(&whole, &tag(&[100_000])) && !same(&whole, &[0; TAG]));
        let number = |session: &mut Session| {
            session.dialer_to_listener.header(&[0; PLAIN]);
            session.dialer_to_listener.begin_body();
            session.dialer_to_listener.body_tag()
        };
        assert_ne!(
            number(&mut session),
            number(&mut session),
            "the same body again is another one"
        );
    }
}
