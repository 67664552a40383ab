//! A job that no launcher has described: what its ranks must know to meet, in so many bytes, which the caller carries.

use std::fmt;

use zeroize::Zeroizing;

use super::{BootstrapError, Job, Rank, Rendezvous, Secret, interface};

/// The first bytes of every id; the last of them is the version.
const MARK: &[u8; 8] = b"sapwood\x01";
const SECRET_BYTES: usize = 32;
const PLACE_AT: usize = MARK.len() + SECRET_BYTES + 1;

/// Where the ranks of a job meet, and the secret that they prove to each other that they know: for programs that no
/// launcher has told, and that have a way of their own to pass bytes on (a broadcast of another library, a file, a
/// socket).
///
/// The process that is to be rank 0 makes one, passes the [bytes](UniqueId::to_bytes) on, and joins with the value that
/// it made, which holds the place open; the others join with what they [read](UniqueId::from_bytes). One id is for one
/// job. Whoever has the bytes can join it: they are to be carried as a secret is. `Debug` shows the place alone.
#[derive(Clone)]
pub struct UniqueId {
    place: Rendezvous,
    secret: Secret,
    /// Rank 0's, with the place open, where it was opened already.
    opened: Option<Job>,
}

impl UniqueId {
    /// The length of an id, which is always the same.
    pub const BYTES: usize = 128;

    /// For ranks on any hosts: they meet at a free port of this host, at the address by which other networks are
    /// reached, or the one in `SAPWOOD_RENDEZVOUS_SUBNET`.
    ///
    /// # Errors
    /// There is no address, or no port; the environment holds something that cannot be used.
    pub fn new() -> Result<Self, BootstrapError> {
        let subnet = Job::local(1)?.remove(0).with_environment()?.subnet;
        Self::at(&interface::own_address(subnet.as_ref())?.to_string())
    }

    /// As [`Self::new`], at this address (or name) of this host.
    ///
    /// # Errors
    /// It is not this host's, or too long to be carried.
    pub fn at(host: &str) -> Result<Self, BootstrapError> {
        let secret = Secret::random()?;
        let place = Rendezvous::network(host, 0)?;
        let mut opened = Job::new(0, 1, 0, place, secret.clone())?.with_environment()?;
        opened.open()?;
        let place = opened.rendezvous.clone();
        if place.to_string().len() > Self::BYTES - PLACE_AT {
            return Err(BootstrapError::InvalidJob(format!(
                "{host} is too long a name for a unique id, which holds {} bytes of it: give an address",
                Self::BYTES - PLACE_AT
            )));
        }
        Ok(Self {
            place,
            secret,
            opened: Some(opened),
        })
    }

    /// For ranks on this host alone, also as threads of one process: they meet at a Unix socket, and any of them may be
    /// rank 0.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn on_one_host() -> Result<Self, BootstrapError> {
        Ok(Self {
            place: Rendezvous::random()?,
            secret: Secret::random()?,
            opened: None,
        })
    }

    /// What the other ranks must be given.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let place = self.place.to_string();
        bytes[..MARK.len()].copy_from_slice(MARK);
        bytes[MARK.len()..PLACE_AT - 1].copy_from_slice(self.secret.bytes());
        bytes[PLACE_AT - 1] = place.len() as u8;
        bytes[PLACE_AT..][..place.len()].copy_from_slice(place.as_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] says what is wrong with the bytes, and shows none of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BootstrapError> {
        let odd = |what: String| BootstrapError::InvalidJob(format!("these bytes are no unique id: {what}"));
        if bytes.len() != Self::BYTES {
            return Err(odd(format!("they are {}, not {}", bytes.len(), Self::BYTES)));
        }
        if bytes[..7] != MARK[..7] {
            return Err(odd("they do not begin as one".into()));
        }
        if bytes[7] != MARK[7] {
            return Err(odd(format!("it is of version {}, not {}", bytes[7], MARK[7])));
        }
        let secret = Zeroizing::new(bytes[MARK.len()..PLACE_AT - 1].to_vec());
        let (place, rest) = bytes[PLACE_AT..]
            .split_at_checked(usize::from(bytes[PLACE_AT - 1]))
            .ok_or_else(|| odd("the place is longer than the id".into()))?;
        let place = std::str::from_utf8(place)
            .ok()
            .and_then(|place| place.parse::<Rendezvous>().ok());
        let place = place.ok_or_else(|| odd("there is no place in it".into()))?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(odd("something stands behind the place".into()));
        }
        Ok(Self {
            place,
            secret: Secret::from_bytes(secret.to_vec())?,
            opened: None,
        })
    }

    /// The job, for one of its ranks. What else there is to say (`SAPWOOD_TIMEOUT`, `SAPWOOD_FABRIC`) comes from the
    /// environment.
    ///
    /// # Errors
    /// [`BootstrapError::InvalidJob`] for a rank or size that cannot be; an environment that holds something that
    /// cannot be used.
    pub fn job(&self, rank: Rank, size: u32) -> Result<Job, BootstrapError> {
        let job = Job::new(rank, size, rank, self.place.clone(), self.secret.clone())?.with_environment()?;
        Ok(match &self.opened {
            Some(opened) if rank == 0 => job.at(opened.clone()),
            _ => job,
        })
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UniqueId({}, ..)", self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_carry_all_that_is_needed_and_debug_shows_no_secret() {
        for id in [
            UniqueId::on_one_host(),
            UniqueId::at("127.0.0.1"),
            UniqueId::at("::1"),
            UniqueId::new(),
        ] {
            let id = id.unwrap();
            let bytes = id.to_bytes();
            let read = UniqueId::from_bytes(&bytes).unwrap();
            assert_eq!((&read.place, read.secret.bytes()), (&id.place, id.secret.bytes()));
            assert_eq!(read.to_bytes(), bytes);
            assert_eq!(format!("{id:?}"), format!("UniqueId({}, ..)", id.place));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let bytes = UniqueId::on_one_host().unwrap().to_bytes();
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes;
            bytes[at] = byte;
            UniqueId::from_bytes(&bytes).unwrap_err().to_string()
        };
        assert!(with(0, b'S').contains("do not begin"));
        assert!(with(7, 9).contains("version 9"));
        assert!(with(PLACE_AT - 1, 255).contains("longer"));
        assert!(with(PLACE_AT, b'?').contains("no place"));
        assert!(with(127, 1).contains("behind"));
        assert!(
            UniqueId::from_bytes(&bytes[1..])
                .unwrap_err()
                .to_string()
                .contains("127")
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 120..140)) {
            let _ = UniqueId::from_bytes(&bytes);
        }
    }
}
