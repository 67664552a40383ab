//! What the parcels of every fabric have in common: a kind, a version and a checksum around numbers of fixed width, and
//! whom a connection is between. Decoding takes bytes from outside: it checks everything and never reads past what it
//! got. What the numbers mean is each fabric's own.

use super::{Access, Rank};

/// Writes a parcel.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// `kind` is of one sort of parcel of one fabric.
    pub fn new(kind: [u8; 3], version: u8) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&kind);
        bytes.push(version);
        Self(bytes)
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub fn ends(&mut self, ends: Ends) {
        let Ends { from, to, generation } = ends;
        for number in [from, to, generation] {
            self.u32(number);
        }
    }

    pub fn access(&mut self, access: Access) {
        let Access {
            remote_read,
            remote_write,
            remote_atomic,
        } = access;
        self.u32(u32::from(remote_read) | u32::from(remote_write) << 1 | u32::from(remote_atomic) << 2);
    }

    pub fn finish(mut self) -> Vec<u8> {
        let sum = checksum(&self.0);
        self.u64(sum);
        self.0
    }
}

/// Reads a parcel. What is wrong is said in words that follow a colon.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(kind: [u8; 3], version: u8, bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() < 4 || bytes[..3] != kind {
            return Err(
                "it is not a parcel of this kind and fabric; both sides must use the same fabric".into(),
            );
        }
        if bytes[3] != version {
            return Err(format!(
                "it has version {} of the format, this side has {version}: ranks of one job run the same release",
                bytes[3]
            ));
        }
        let (body, sum) = bytes[4..]
            .split_last_chunk()
            .ok_or("it ends before its checksum")?;
        if checksum(&bytes[..4 + body.len()]).to_le_bytes() != *sum {
            return Err("it was damaged on its way".into());
        }
        Ok(Self(body))
    }

    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, tail) = self.0.split_first_chunk().ok_or("it ends too early")?;
        self.0 = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, String> {
        self.take().map(u8::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn ends(&mut self) -> Result<Ends, String> {
        Ok(Ends {
            from: self.u32()?,
            to: self.u32()?,
            generation: self.u32()?,
        })
    }

    pub fn access(&mut self) -> Result<Access, String> {
        let rights = self.u32()?;
        if rights >= 8 {
            return Err(format!("it gives unknown rights ({rights:#x})"));
        }
        Ok(Access {
            remote_read: rights & 1 != 0,
            remote_write: rights & 2 != 0,
            remote_atomic: rights & 4 != 0,
        })
    }

    /// Bytes, at least one and no more than memory can have.
    pub fn region_len(&mut self) -> Result<u64, String> {
        let len = self.u64()?;
        if len == 0 || len > isize::MAX as u64 {
            return Err(format!("a region cannot have {len} bytes"));
        }
        Ok(len)
    }

    pub fn finish(self) -> Result<(), String> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("it is longer than it should be".into())
        }
    }
}

/// FNV-1a: finds accidents. Malice is kept out by the channel that parcels travel on.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Whom a parcel of a connection is from, whom it is for, and of which generation both endpoints are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub from: Rank,
    pub to: Rank,
    pub generation: u32,
}

impl Ends {
    /// Whether this is what `peer` tells `rank`, whose endpoint is of `generation`.
    pub fn expect(self, peer: Rank, rank: Rank, generation: u32) -> Result<(), String> {
        if (self.from, self.to) != (peer, rank) {
            return Err(format!(
                "it is for a queue pair from rank {} to rank {}",
                self.from, self.to
            ));
        }
        if self.generation != generation {
            return Err(format!(
                "it is of generation {}, this endpoint is of generation {generation}",
                self.generation
            ));
        }
        Ok(())
    }
}

/// What every fabric's parcels must stand, for their tests.
#[cfg(test)]
pub(super) mod trials {
    use super::Writer;

    /// A parcel of random fields with the right beginning and the right sum.
    pub fn sealed(kind: [u8; 3], version: u8, fields: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(kind, version);
        writer.bytes(fields);
        writer.finish()
    }

    /// That a flipped bit and a cut are noticed.
    pub fn damaged<T>(whole: &[u8], bit: usize, cut: usize, decode: impl Fn(&[u8]) -> Result<T, String>) {
        let mut bytes = whole.to_vec();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes).is_err(), "bit {bit} flipped");
        let cut = cut % (whole.len() - 1) + 1;
        assert!(
            decode(&whole[..whole.len() - cut]).is_err(),
            "{cut} bytes cut off"
        );
    }
}
