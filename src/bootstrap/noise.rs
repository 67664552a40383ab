//! The Noise handshake, keyed by the job's secret: both sides prove that they know it, and neither sends it.

use snow::params::{HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

use super::{BootstrapError, Secret};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// What both sides must agree on before the first byte; a different protocol's Noise session cannot pass for ours.
const PROLOGUE: &[u8] = b"sapwood bootstrap";
/// Each of the two handshake messages: an ephemeral public key and the tag of an empty payload.
pub(super) const HANDSHAKE_BYTES: usize = 32 + 16;
/// The largest Noise message.
pub(super) const MESSAGE_LIMIT: usize = 65_535;
/// The tag that encryption adds to each message.
pub(super) const TAG_BYTES: usize = 16;

/// The random generator of the cryptographic library, which is the operating system's.
pub(super) fn fill_random(bytes: &mut [u8]) -> Result<(), BootstrapError> {
    DefaultResolver
        .resolve_rng()
        .and_then(|mut random| random.try_fill_bytes(bytes).ok())
        .ok_or_else(|| BootstrapError::System {
            doing: "random bytes".into(),
            source: rustix::io::Errno::IO,
        })
}

/// The 32-byte pre-shared key of a secret of any length.
fn pre_shared_key(secret: &Secret) -> Result<Zeroizing<[u8; 32]>, snow::Error> {
    let mut hash = DefaultResolver
        .resolve_hash(&HashChoice::Blake2s)
        .ok_or(snow::Error::Input)?;
    hash.reset();
    hash.input(b"sapwood job secret, version 1\0");
    hash.input(secret.bytes());
    let mut key = Zeroizing::new([0; 32]);
    hash.result(&mut key[..]);
    Ok(key)
}

/// 32 bytes that only who knows the secret can make, different for each purpose, salt and number.
pub(super) fn derive(
    secret: &Secret,
    purpose: &str,
    salt: u128,
    number: u32,
) -> Result<Zeroizing<[u8; 32]>, BootstrapError> {
    let hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s);
    let mut hash = hash.ok_or_else(|| BootstrapError::System {
        doing: "preparing a hash".into(),
        source: rustix::io::Errno::IO,
    })?;
    hash.reset();
    // Lengths are fixed or said, so that no two inputs make one text.
    hash.input(b"sapwood derived, version 1\0");
    hash.input(&(purpose.len() as u64).to_le_bytes());
    hash.input(purpose.as_bytes());
    hash.input(&salt.to_le_bytes());
    hash.input(&number.to_le_bytes());
    hash.input(secret.bytes());
    let mut derived = Zeroizing::new([0; 32]);
    hash.result(&mut derived[..]);
    Ok(derived)
}

/// 16 bytes that are the same wherever these words are, and hardly anywhere else. Not a secret.
pub(super) fn fingerprint(words: &[&str]) -> Result<[u8; 16], BootstrapError> {
    let hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s);
    let mut hash = hash.ok_or_else(|| BootstrapError::System {
        doing: "preparing a hash".into(),
        source: rustix::io::Errno::IO,
    })?;
    hash.reset();
    for word in words {
        hash.input(&(word.len() as u64).to_le_bytes());
        hash.input(word.as_bytes());
    }
    let mut whole = [0; 32];
    hash.result(&mut whole);
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    Ok(half)
}

/// One side of a handshake that has not finished.
pub(super) struct Handshake(snow::HandshakeState);

impl Handshake {
    pub(super) fn initiator(secret: &Secret) -> Result<Self, BootstrapError> {
        Self::new(secret, true)
    }

    pub(super) fn responder(secret: &Secret) -> Result<Self, BootstrapError> {
        Self::new(secret, false)
    }

    fn new(secret: &Secret, initiates: bool) -> Result<Self, BootstrapError> {
        let build = || -> Result<snow::HandshakeState, snow::Error> {
            let parameters: NoiseParams = PATTERN.parse()?;
            let key = pre_shared_key(secret)?;
            let builder = snow::Builder::new(parameters).prologue(PROLOGUE)?.psk(0, &key)?;
            if initiates {
                builder.build_initiator()
            } else {
                builder.build_responder()
            }
        };
        // Nothing in here depends on outside bytes; it fails only if the machine gives no random numbers.
        build().map(Self).map_err(|error| BootstrapError::System {
            doing: format!("preparing the handshake ({error})"),
            source: rustix::io::Errno::IO,
        })
    }

    /// This side's next handshake message.
    pub(super) fn write(&mut self) -> Result<[u8; HANDSHAKE_BYTES], snow::Error> {
        let mut message = [0; HANDSHAKE_BYTES];
        let written = self.0.write_message(&[], &mut message)?;
        if written == HANDSHAKE_BYTES {
            Ok(message)
        } else {
            Err(snow::Error::Input)
        }
    }

    /// Takes the other side's handshake message; fails unless it was made with the same secret.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<(), snow::Error> {
        let mut payload = [0; HANDSHAKE_BYTES];
        match self.0.read_message(message, &mut payload)? {
            0 => Ok(()),
            _ => Err(snow::Error::Input),
        }
    }

    pub(super) fn finish(self) -> Result<snow::TransportState, snow::Error> {
        self.0.into_transport_mode()
    }
}

/// Both ends of a connection that does not leave this process.
pub(super) fn both_ends(
    secret: &Secret,
) -> Result<(snow::TransportState, snow::TransportState), BootstrapError> {
    let (mut left, mut right) = (Handshake::initiator(secret)?, Handshake::responder(secret)?);
    let shake = || -> Result<_, snow::Error> {
        right.read(&left.write()?)?;
        left.read(&right.write()?)?;
        Ok((left.finish()?, right.finish()?))
    };
    shake().map_err(|error| BootstrapError::System {
        doing: format!("a handshake within this process ({error})"),
        source: rustix::io::Errno::IO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(byte: u8) -> Secret {
        Secret::from_bytes(vec![byte; 32]).unwrap()
    }

    #[test]
    fn two_sides_with_one_secret_meet() {
        let (mut left, mut right) = (
            Handshake::initiator(&secret(1)).unwrap(),
            Handshake::responder(&secret(1)).unwrap(),
        );
        right.read(&left.write().unwrap()).unwrap();
        left.read(&right.write().unwrap()).unwrap();
        let (mut left, mut right) = (left.finish().unwrap(), right.finish().unwrap());
        let (mut sealed, mut opened) = ([0; 64], [0; 64]);
        let length = left.write_message(b"gradient", &mut sealed).unwrap();
        let length = right.read_message(&sealed[..length], &mut opened).unwrap();
        assert_eq!(&opened[..length], b"gradient");
    }

    #[test]
    fn another_secret_is_refused_at_the_first_message() {
        let (mut left, mut right) = (
            Handshake::initiator(&secret(1)).unwrap(),
            Handshake::responder(&secret(2)).unwrap(),
        );
        assert!(right.read(&left.write().unwrap()).is_err());
    }

    #[test]
    fn what_is_derived_differs_in_everything_it_is_derived_from() {
        let made = [
            derive(&secret(1), "name", 1, 1),
            derive(&secret(2), "name", 1, 1),
            derive(&secret(1), "secret", 1, 1),
            derive(&secret(1), "name", 2, 1),
            derive(&secret(1), "name", 1, 2),
        ];
        let different: std::collections::HashSet<[u8; 32]> = made.into_iter().map(|d| *d.unwrap()).collect();
        assert_eq!(different.len(), 5);
        assert_eq!(
            derive(&secret(1), "name", 1, 1).unwrap(),
            derive(&secret(1), "name", 1, 1).unwrap()
        );
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused(message in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Handshake::responder(&secret(1)).unwrap().read(&message).is_err());
            let mut initiator = Handshake::initiator(&secret(1)).unwrap();
            initiator.write().unwrap();
            prop_assert!(initiator.read(&message).is_err());
        }
    }
}
