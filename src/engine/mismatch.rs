//! Who called what, in words, where the ranks did not call the same.

use super::details::Details;
use super::{EngineError, Signature};

/// What a rank called, if it did, and on what memory where only that differs.
type Announced = Option<(Signature, Option<Details>)>;

/// The error of `rank` that says what each of the ranks `found` called as operation `sequence`, the odd one first.
#[cold]
pub(super) fn disagreement(
    rank: u32,
    sequence: u64,
    found: impl Iterator<Item = (u32, Option<(Signature, Details)>)>,
) -> EngineError {
    let found = found.collect::<Vec<_>>();
    let signatures = || {
        found
            .iter()
            .filter_map(|(_, call)| call.map(|(signature, _)| signature))
    };
    // Where all have the same signature, it is something else that differs.
    let same = signatures().all(|signature| Some(signature) == signatures().next());
    let mut calls: Vec<(Announced, Vec<u32>)> = Vec::new();
    for (rank, call) in found {
        let call = call.map(|(signature, details)| (signature, same.then_some(details)));
        match calls.iter_mut().find(|(known, _)| *known == call) {
            Some((_, ranks)) => ranks.push(rank),
            None => calls.push((call, vec![rank])),
        }
    }
    calls.sort_by_key(|(_, ranks)| ranks.len());
    let odd = calls.iter().map(|(call, ranks)| {
        let called = match call {
            None => "has not called it".to_owned(),
            Some((signature, None)) => format!("called {signature}"),
            Some((signature, Some(details))) => format!("called {signature}{details}"),
        };
        format!("{} {called}", name_ranks(ranks))
    });
    let odd = odd.collect::<Vec<_>>().join("; ");
    EngineError::Mismatch { rank, sequence, odd }
}

/// `rank 3`, or `ranks 0, 1 and 4`.
fn name_ranks(ranks: &[u32]) -> String {
    match ranks {
        [one] => format!("rank {one}"),
        [most @ .., last] => {
            let most = most.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            format!("ranks {most} and {last}")
        }
        [] => "no rank".into(),
    }
}
