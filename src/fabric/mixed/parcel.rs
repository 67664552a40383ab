//! Two fabrics' parcels in one. A connection's holds one part, that of the pair's fabric; a region's holds both, since
//! whoever exports does not know who imports. Decoding checks everything and never reads past what it got.

use std::os::fd::OwnedFd;

use super::Side;
use crate::fabric::Parcel;

const VERSION: u8 = 1;
/// The most descriptors of one part.
const MOST_DESCRIPTORS: u8 = 16;

/// What a parcel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    Region,
}

impl Kind {
    fn mark(self) -> [u8; 4] {
        match self {
            Self::Connection => *b"SWmq",
            Self::Region => *b"SWmr",
        }
    }
}

/// What one fabric contributes.
#[derive(Debug)]
pub(super) enum Part {
    /// Nothing, and that is as it should be.
    None,
    /// Nothing, for this reason.
    Missing(String),
    /// A parcel of its own.
    Own(Parcel),
}

/// Puts both parts into one parcel; the near one's descriptors come first.
pub(super) fn compose(kind: Kind, near: Part, far: Part) -> Parcel {
    let mut parcel = Parcel {
        bytes: kind.mark().to_vec(),
        descriptors: Vec::new(),
    };
    parcel.bytes.push(VERSION);
    for part in [near, far] {
        let (state, descriptors, bytes) = match part {
            Part::None => (0, Vec::new(), Vec::new()),
            Part::Missing(why) => (1, Vec::new(), why.into_bytes()),
            Part::Own(own) => (2, own.descriptors, own.bytes),
        };
        parcel.bytes.extend([state, descriptors.len() as u8]);
        parcel.bytes.extend((bytes.len() as u32).to_le_bytes());
        parcel.bytes.extend(bytes);
        parcel.descriptors.extend(descriptors);
    }
    let sum = checksum(&parcel.bytes);
    parcel.bytes.extend(sum.to_le_bytes());
    parcel
}

/// The part for `side`. Descriptors of the other side may be missing: they do not travel between hosts.
///
/// # Errors
/// In words: what is wrong with it.
pub(super) fn take(parcel: Parcel, kind: Kind, side: Side) -> Result<Parcel, String> {
    let [near, far] = decode(&parcel.bytes, kind)?;
    let (ours, theirs) = match side {
        Side::Near => (&near, &far),
        Side::Far => (&far, &near),
    };
    let bytes = match ours.state {
        2 => ours.bytes.to_vec(),
        1 => {
            let why = String::from_utf8_lossy(ours.bytes);
            return Err(format!(
                "its owner could not make it reachable over the {} fabric: {why}",
                side.name()
            ));
        }
        _ if theirs.state == 2 => {
            return Err(format!(
                "this rank reaches its sender over the {} fabric, but the sender takes this rank for one of the other \
                 side: they do not agree on who is on which host",
                side.name()
            ));
        }
        _ => return Err("it is empty".into()),
    };
    let (all, came) = (near.descriptors + far.descriptors, parcel.descriptors.len());
    let mut descriptors: Vec<OwnedFd> = parcel.descriptors;
    if came == all {
        let from = if side == Side::Near { 0 } else { near.descriptors };
        descriptors = descriptors
            .into_iter()
            .skip(from)
            .take(ours.descriptors)
            .collect();
    } else if came != ours.descriptors {
        return Err(format!(
            "it came with {came} descriptors instead of {}",
            ours.descriptors
        ));
    }
    Ok(Parcel { bytes, descriptors })
}

struct Written<'a> {
    state: u8,
    descriptors: usize,
    bytes: &'a [u8],
}

fn decode(bytes: &[u8], kind: Kind) -> Result<[Written<'_>; 2], String> {
    let early = || "it ends too early".to_string();
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(early)?;
    let (mark, rest) = body.split_first_chunk::<4>().ok_or_else(early)?;
    if *mark != kind.mark() {
        return Err("it is not a parcel of this kind and fabric".into());
    }
    if checksum(body).to_le_bytes() != *sum {
        return Err("it was damaged on its way".into());
    }
    let (version, mut rest) = rest.split_first().ok_or_else(early)?;
    if *version != VERSION {
        return Err(format!(
            "it has version {version} of the format, this side has {VERSION}: ranks of one job run the same release"
        ));
    }
    let mut part = || {
        let ([state, descriptors], after) = rest.split_first_chunk().ok_or_else(early)?;
        let (length, after) = after.split_first_chunk().ok_or_else(early)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (bytes, after) = after.split_at_checked(length).ok_or_else(early)?;
        rest = after;
        if *state > 2 || *descriptors > MOST_DESCRIPTORS {
            return Err(format!(
                "a part of it is of kind {state} with {descriptors} descriptors"
            ));
        }
        Ok(Written {
            state: *state,
            descriptors: usize::from(*descriptors),
            bytes,
        })
    };
    let parts = [part()?, part()?];
    if rest.is_empty() {
        Ok(parts)
    } else {
        Err("it is longer than it should be".into())
    }
}

/// FNV-1a: finds accidents. Malice is kept out by the channel that parcels travel on.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(bytes: &[u8], descriptors: usize) -> Part {
        let descriptor = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        Part::Own(Parcel {
            bytes: bytes.to_vec(),
            descriptors: (0..descriptors).map(|_| descriptor()).collect(),
        })
    }

    #[test]
    fn each_side_gets_its_part() {
        let composed = || compose(Kind::Region, own(b"near", 2), own(b"far", 1));
        let near = take(composed(), Kind::Region, Side::Near).unwrap();
        assert_eq!((&near.bytes[..], near.descriptors.len()), (&b"near"[..], 2));
        let far = take(composed(), Kind::Region, Side::Far).unwrap();
        assert_eq!((&far.bytes[..], far.descriptors.len()), (&b"far"[..], 1));
        // From another host none come.
        let mut alone = compose(Kind::Region, own(b"near", 2), own(b"far", 0));
        alone.descriptors.clear();
        assert_eq!(take(alone, Kind::Region, Side::Far).unwrap().bytes, b"far");
        let mut robbed = composed();
        robbed.descriptors.truncate(1);
        assert!(
            take(robbed, Kind::Region, Side::Near)
                .unwrap_err()
                .contains("1 descriptors instead of 2")
        );
    }

    #[test]
    fn what_is_not_there_is_said() {
        let missing = || compose(Kind::Region, Part::Missing("no".into()), own(b"far", 0));
        assert!(
            take(missing(), Kind::Region, Side::Near)
                .unwrap_err()
                .contains("near fabric: no")
        );
        assert!(take(missing(), Kind::Region, Side::Far).is_ok());
        let one = || compose(Kind::Connection, Part::None, own(b"far", 0));
        assert!(
            take(one(), Kind::Connection, Side::Near)
                .unwrap_err()
                .contains("agree")
        );
        assert!(take(one(), Kind::Region, Side::Far).unwrap_err().contains("kind"));
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            for side in [Side::Near, Side::Far] {
                let parcel = Parcel { bytes: bytes.clone(), descriptors: Vec::new() };
                prop_assert!(take(parcel, Kind::Region, side).is_err());
            }
        }

        #[test]
        fn random_fields_never_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = Kind::Region.mark().to_vec();
            bytes.push(VERSION);
            bytes.extend(body);
            let sum = checksum(&bytes);
            bytes.extend(sum.to_le_bytes());
            for side in [Side::Near, Side::Far] {
                let parcel = Parcel { bytes: bytes.clone(), descriptors: Vec::new() };
                let _ = take(parcel, Kind::Region, side);
            }
        }
    }
}
