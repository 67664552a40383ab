//! Small all-reduces of a group, of one type and operation, as one: their elements lie one after the other in what the
//! rank shows, and all ranks are waited for once. Knows no windows; whoever asks for it keeps the memory.

use std::mem::MaybeUninit;

use super::Communicator;
use super::request::{Fitted, fingerprint};
use super::running::Quick;
use crate::engine::reduce::{self, Operation};
use crate::engine::{Engine, EngineError, SMALL_BYTES};
use crate::memory::DataType;
use crate::observe::CopySite;
use crate::plan::Collective;

/// An all-reduce that can be fused with others: elements, and where they are and go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) data_type: DataType,
    pub(super) operation: Operation,
    pub(super) count: usize,
    pub(super) input: *const u8,
    pub(super) result: *mut u8,
}

impl Part {
    fn bytes(&self) -> usize {
        self.count * self.data_type.size()
    }
}

impl Fitted<'_> {
    /// An all-reduce as one that can be fused with others.
    pub(super) fn part(&self) -> Option<Part> {
        let fusible = self.collective == Collective::AllReduce && self.operation.factor().is_none();
        let input = self.input.filter(|_| fusible)?;
        Some(Part {
            data_type: self.data_type,
            operation: self.operation,
            count: self.total,
            input: input.pointer,
            result: self.result.unwrap_or(input).pointer,
        })
    }
}

/// The parts that go together, by number, at least two at a time: of one type and operation, as many of the next ones as
/// there is room for. The same on every rank that has the same parts.
pub(super) fn sets(parts: &[Option<Part>], fits: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
    let mut sets: Vec<(Part, Vec<usize>, usize)> = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let Some(part) = part.filter(|part| fits(part.bytes())) else {
            continue;
        };
        let same = |set: &&mut (Part, Vec<usize>, usize)| {
            (set.0.data_type, set.0.operation) == (part.data_type, part.operation)
        };
        match sets.iter_mut().rev().find(same) {
            Some((_, numbers, bytes)) if fits(*bytes + part.bytes()) => {
                numbers.push(number);
                *bytes += part.bytes();
            }
            _ => sets.push((part, vec![number], part.bytes())),
        }
    }
    let several = sets.into_iter().map(|(_, numbers, _)| numbers);
    several.filter(|numbers| numbers.len() > 1).collect()
}

#[repr(align(64))]
struct Shown(MaybeUninit<[u8; SMALL_BYTES]>);

impl Communicator {
    /// Runs the parts of a set to their end.
    ///
    /// # Safety
    /// The memory of each part is valid for its elements, and nobody else accesses it during the call.
    pub(super) unsafe fn fused(&self, parts: &[Part]) -> Result<(), EngineError> {
        let (Some(first), Engine::Boards(core)) = (parts.first(), &*self.engine) else {
            unreachable!("only where ranks see each other's boards there are sets, none of them empty")
        };
        let mut shown = Shown(MaybeUninit::uninit());
        let shown = shown.0.as_mut_ptr().cast::<u8>();
        let places = || {
            parts.iter().scan(0, |at, part| {
                let place = shown.wrapping_add(*at);
                *at += part.bytes();
                Some((part, place))
            })
        };
        for (part, place) in places() {
            // SAFETY: the caller's contract; a set was chosen to have room.
            unsafe { reduce::copy(place, part.input, part.bytes()) };
        }
        let total = parts.iter().map(|part| part.count).sum();
        let quick = Quick {
            collective: Collective::AllReduce,
            operation: first.operation,
            data_type: first.data_type,
            count: total,
            total,
            lengths: Some(fingerprint(parts.iter().map(|part| &part.count))),
        };
        // SAFETY: what is shown is this call's own.
        unsafe { self.small(core, &quick, shown, shown) }?;
        for (part, place) in places() {
            // SAFETY: as above.
            unsafe { reduce::copy(part.result, place, part.bytes()) };
        }
        let bytes: usize = parts.iter().map(Part::bytes).sum();
        let counters = &self.engine().caller().counters;
        counters.copied(CopySite::StageIn, bytes as u64);
        counters.copied(CopySite::StageOut, bytes as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_type_and_operation_go_together_as_far_as_there_is_room() {
        let part = |data_type, operation, count| {
            Some(Part {
                data_type,
                operation,
                count,
                input: std::ptr::null(),
                result: std::ptr::null_mut(),
            })
        };
        let float = |count| part(DataType::F32, Operation::Sum, count);
        let parts = [
            float(10),
            None,
            part(DataType::F32, Operation::Max, 10),
            float(20),
            part(DataType::F64, Operation::Sum, 1),
            float(200),
            float(0),
            part(DataType::F32, Operation::Max, 1),
            float(70),
            float(1),
        ];
        let found = sets(&parts, |bytes| bytes <= 400);
        // 120 bytes; 200 floats are too many; then 0 more; 280 more make 400; 4 more do not fit.
        assert_eq!(found, [vec![0, 3, 6, 8], vec![2, 7]]);
    }
}
