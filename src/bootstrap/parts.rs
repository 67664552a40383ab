//! What several ranks brought to a step, in one message: as many messages go out as there are ranks, and not one for
//! each pair of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Rank;
use super::message;

/// Small payloads are put together up to this many bytes; a larger one goes alone.
const TOGETHER_BYTES: usize = 1 << 20;

/// What one rank brought: its payload, and how many descriptors it has for its host-mates.
pub(super) type Brought = (Vec<u8>, u32);

/// What stands before the payloads, which follow each other in this order.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    sequence: u64,
    parts: Vec<Part>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Part {
    rank: Rank,
    apart: u32,
    bytes: u64,
}

/// A message's body, and who brought what is in it.
pub(super) struct Parts {
    pub(super) body: Arc<Vec<u8>>,
    pub(super) ranks: std::ops::Range<Rank>,
}

/// The bodies that carry what all ranks brought, by rank.
pub(super) fn join(sequence: u64, brought: impl Iterator<Item = Brought>) -> Vec<Parts> {
    let mut joined = Vec::new();
    let (mut parts, mut payloads, mut first) = (Vec::new(), Vec::new(), 0);
    let mut end = |parts: Vec<Part>, payloads: &[u8], first: Rank| {
        let ranks = first..first + parts.len() as Rank;
        let body = Arc::new(message::encode_with_payload(
            &Header { sequence, parts },
            payloads,
        ));
        joined.push(Parts { body, ranks });
    };
    for (rank, (payload, apart)) in (0..).zip(brought) {
        if rank > first && payloads.len() + payload.len() > TOGETHER_BYTES {
            end(std::mem::take(&mut parts), &payloads, first);
            payloads.clear();
            first = rank;
        }
        let bytes = payload.len() as u64;
        parts.push(Part { rank, apart, bytes });
        payloads.extend_from_slice(&payload);
    }
    end(parts, &payloads, first);
    joined
}

/// Takes a body apart again, which must be of the step with this number.
pub(super) fn split(body: Vec<u8>, sequence: u64) -> Result<Vec<(Rank, Brought)>, String> {
    let (header, payloads): (Header, _) = message::decode_with_payload(body)?;
    if header.sequence != sequence {
        return Err("passed on a part of another step".into());
    }
    let mut rest = payloads.as_slice();
    let cut = |part: Part| {
        let bytes = usize::try_from(part.bytes).unwrap_or(usize::MAX);
        let (payload, after) = rest
            .split_at_checked(bytes)
            .ok_or("passed on less than it said")?;
        rest = after;
        Ok((part.rank, (payload.to_vec(), part.apart)))
    };
    header.parts.into_iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_joined_comes_apart_again(
            sizes in prop::collection::vec(prop_oneof![0usize..100, Just(TOGETHER_BYTES / 3), Just(TOGETHER_BYTES + 1)], 1..12),
        ) {
            let brought: Vec<Brought> = (0u32..)
                .zip(&sizes)
                .map(|(rank, size)| (vec![rank as u8; *size], rank * 2))
                .collect();
            let joined = join(7, brought.iter().cloned());
            let mut next = 0;
            let mut apart = Vec::new();
            for Parts { body, ranks } in joined {
                prop_assert!(ranks.start == next && ranks.end > next);
                next = ranks.end;
                let parts = split(body.to_vec(), 7).unwrap();
                prop_assert!(parts.iter().map(|part| part.0).eq(ranks));
                apart.extend(parts.into_iter().map(|part| part.1));
            }
            prop_assert!(apart == brought);
        }

        #[test]
        fn random_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = split(body, 1);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let lying = message::encode_with_payload(
            &Header {
                sequence: 1,
                parts: vec![Part {
                    rank: 0,
                    apart: 0,
                    bytes: u64::MAX,
                }],
            },
            b"short",
        );
        assert!(split(lying.clone(), 2).unwrap_err().contains("another step"));
        assert!(split(lying, 1).unwrap_err().contains("less than it said"));
    }
}
