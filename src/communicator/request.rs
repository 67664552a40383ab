//! What is asked for: a collective with its operation and counts; and whether the memory brought to it fits.

use std::ops::Range;

use super::window::Shared;
use super::{Communicator, CommunicatorError, Window};
use crate::engine::reduce::Operation;
use crate::engine::{Extent, MAXIMUM_COUNT};
use crate::memory::{DataType, Element};
use crate::plan::Collective;
use crate::plan::Cut;
use crate::plan::partition::{Partition, Placement, Side};

/// A collective to be called: which, with what operation, and how many elements are whose. The same on every rank.
///
/// Where the vector is made of one part for each rank, all parts are equally long unless [`Request::varying`] says
/// otherwise. The parts lie one after the other, in the order of the ranks. In place a rank's own part lies where it
/// lies among all of them: in an all-gather or gather of `n` elements from each, rank `r` gives elements `r * n ..` of
/// its window (in a gather, ranks other than the root give the first `n`), and in a reduce-scatter or scatter it gets
/// them there (ranks other than a scatter's root at the start).
///
/// ```
/// use sapwood::{bootstrap::Job, communicator::{Communicator, Request}, engine::reduce::Operation};
///
/// let job = Job::local(1)?.remove(0);
/// let communicator = Communicator::builder().join(&job)?;
/// let window = communicator.window::<f32>(8)?;
/// let pending = communicator.start(&Request::all_reduce(Operation::Sum), window)?;
/// let window = pending.wait()?;
/// # assert_eq!(window[0], 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub(super) collective: Collective,
    pub(super) operation: Operation,
    /// Of each rank's part, or for an all-to-all of each pair.
    counts: Option<Vec<usize>>,
    /// Where parts begin, if it was said: one list, or for an all-to-all one for inputs and one for results.
    displacements: Vec<Vec<usize>>,
}

impl Request {
    fn new(collective: Collective, operation: Operation) -> Self {
        Self {
            collective,
            operation,
            counts: None,
            displacements: Vec::new(),
        }
    }

    /// Every rank gets the reduction of all contributions.
    pub fn all_reduce(operation: Operation) -> Self {
        Self::new(Collective::AllReduce, operation)
    }

    /// The root gets the reduction of all contributions.
    pub fn reduce(operation: Operation, root: u32) -> Self {
        Self::new(Collective::Reduce { root }, operation)
    }

    /// Every rank gets what the root has.
    pub fn broadcast(root: u32) -> Self {
        Self::new(Collective::Broadcast { root }, Operation::Sum)
    }

    /// Every rank gets its own part of the reduction of all contributions.
    pub fn reduce_scatter(operation: Operation) -> Self {
        Self::new(Collective::ReduceScatter, operation)
    }

    /// Every rank gets the parts of all.
    pub fn all_gather() -> Self {
        Self::new(Collective::AllGather, Operation::Sum)
    }

    /// The root gets the parts of all.
    pub fn gather(root: u32) -> Self {
        Self::new(Collective::Gather { root }, Operation::Sum)
    }

    /// Every rank gets its part of what the root has.
    pub fn scatter(root: u32) -> Self {
        Self::new(Collective::Scatter { root }, Operation::Sum)
    }

    /// Every rank gets from each rank what that has for it. Not in place.
    pub fn all_to_all() -> Self {
        Self::new(Collective::AllToAll, Operation::Sum)
    }

    /// With parts of different lengths, in elements: `counts[r]` is rank `r`'s, and for an all-to-all
    /// `counts[s * ranks + r]` is what rank `s` sends to rank `r`. Counts may be 0.
    pub fn varying(mut self, counts: &[usize]) -> Self {
        self.counts = Some(counts.to_vec());
        self
    }

    /// With parts of [`Request::varying`] lengths that begin where `displacements[r]` says, in elements from the start of
    /// the window that has the parts of all; what lies between them is left alone. The parts must not overlap. Not for an
    /// all-to-all, which has [`Request::displaced_pairs`].
    pub fn displaced(mut self, displacements: &[usize]) -> Self {
        self.displacements = vec![displacements.to_vec()];
        self
    }

    /// The same for an all-to-all: what rank `s` sends to rank `r` begins at element `sent[s * ranks + r]` of the sender's
    /// input and at element `received[s * ranks + r]` of the receiver's result.
    pub fn displaced_pairs(mut self, sent: &[usize], received: &[usize]) -> Self {
        self.displacements = vec![sent.to_vec(), received.to_vec()];
        self
    }

    /// The operation of an all-reduce.
    #[inline]
    pub(super) fn plain_all_reduce(&self) -> Option<Operation> {
        let plain = self.collective == Collective::AllReduce && !self.has_counts();
        plain.then_some(self.operation)
    }

    /// Whether parts differ in length.
    #[inline]
    pub(super) fn has_counts(&self) -> bool {
        self.counts.is_some() || !self.displacements.is_empty()
    }

    /// The collective's name.
    pub fn name(&self) -> &'static str {
        self.collective.name()
    }
}

/// Elements of a window that a call is given.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) shared: &'a Shared,
    /// In the window, in bytes.
    pub(super) at: usize,
    pub(super) pointer: *mut u8,
    /// In elements.
    pub(super) len: usize,
}

impl Piece<'_> {
    pub(super) fn extent(&self, element: usize) -> Extent {
        Extent::new(self.shared.map.clone(), self.at, self.len * element)
    }
}

/// A request whose memory fits it.
pub(super) struct Fitted<'a> {
    pub(super) collective: Collective,
    pub(super) operation: Operation,
    pub(super) data_type: DataType,
    /// How many elements are whose.
    pub(super) partition: Partition,
    /// Stands for counts that differ.
    pub(super) counts: u64,
    /// Elements of the longest buffer of a rank.
    pub(super) total: usize,
    pub(super) input: Option<Piece<'a>>,
    /// None in place.
    pub(super) result: Option<Piece<'a>>,
}

impl Fitted<'_> {
    pub(super) fn in_place(&self) -> bool {
        self.input.is_some() && self.result.is_none()
    }

    /// Input and result, as the engine addresses them.
    pub(super) fn memory(&self) -> Option<(Extent, Extent)> {
        let element = self.data_type.size();
        let input = self.input.as_ref()?.extent(element);
        let result = self.result.as_ref().map(|result| result.extent(element));
        let result = result.unwrap_or_else(|| input.clone());
        Some((input, result))
    }
}

impl<'a> Fitted<'a> {
    /// What is taken into custody where it fails.
    pub(super) fn shared(&self) -> [Option<&'a Shared>; 2] {
        [self.input, self.result].map(|piece| piece.map(|piece| piece.shared))
    }
}

/// A barrier brings nothing.
pub(super) const BARRIER: Fitted<'static> = Fitted {
    collective: Collective::Barrier,
    operation: Operation::Sum,
    data_type: DataType::U8,
    partition: Partition::even(0),
    counts: 0,
    total: 0,
    input: None,
    result: None,
};

impl Communicator {
    /// Elements `range` of a window that a call may write.
    pub(super) fn piece<'a, T: Element>(
        &self,
        call: &'static str,
        window: &'a mut Window<T>,
        range: Range<usize>,
    ) -> Result<Piece<'a>, CommunicatorError> {
        self.own(call, window, &range)?;
        // Refused while it is in custody.
        let pointer = window[range.clone()].as_mut_ptr().cast::<u8>();
        Ok(Self::taken(window, range, pointer))
    }

    /// The same for one that it only reads.
    pub(super) fn read_piece<'a, T: Element>(
        &self,
        call: &'static str,
        window: &'a Window<T>,
        range: Range<usize>,
    ) -> Result<Piece<'a>, CommunicatorError> {
        self.own(call, window, &range)?;
        let pointer = window[range.clone()].as_ptr().cast_mut().cast::<u8>();
        Ok(Self::taken(window, range, pointer))
    }

    #[inline]
    fn taken<T: Element>(window: &Window<T>, range: Range<usize>, pointer: *mut u8) -> Piece<'_> {
        Piece {
            shared: window.shared(),
            at: window.place() + range.start * size_of::<T>(),
            pointer,
            len: range.len(),
        }
    }

    #[inline]
    fn own<T: Element>(
        &self,
        call: &'static str,
        window: &Window<T>,
        range: &Range<usize>,
    ) -> Result<(), CommunicatorError> {
        self.usable()?;
        if window.shared().owner != self.id {
            return Err(self.argument(call, "the window was registered with another communicator".into()));
        }
        if range.start > range.end || range.end > window.len() {
            let Range { start, end } = range;
            let len = window.len();
            return Err(self.argument(call, format!("elements {start}..{end} of a window of {len}")));
        }
        Ok(())
    }

    /// Checks a request and the memory that is brought to it: `result` is none in place. What is refused on one rank
    /// is refused on all that call alike, since windows are as long on each.
    pub(super) fn fit<'a>(
        &self,
        request: &Request,
        data_type: DataType,
        input: Piece<'a>,
        result: Option<Piece<'a>>,
    ) -> Result<Fitted<'a>, CommunicatorError> {
        let Request {
            collective,
            operation,
            ref counts,
            ref displacements,
        } = *request;
        let call = collective.name();
        let refuse = |what: String| Err(self.argument(call, what));
        if let Some(root) = collective.root().filter(|root| *root >= self.ranks) {
            let last = self.ranks - 1;
            return refuse(format!("root {root} does not exist, the ranks are 0 to {last}"));
        }
        self.reducible(call, operation, data_type)?;
        if result.is_none() && collective == Collective::AllToAll {
            return refuse("it cannot be done in place: take two windows".into());
        }
        let mut fitted = Fitted {
            collective,
            operation,
            data_type,
            partition: Partition::even(0),
            counts: 0,
            total: 0,
            input: Some(input),
            result,
        };
        match counts {
            None if !displacements.is_empty() => {
                return refuse("displacements need counts: Request::varying gives them".into());
            }
            None => {
                let count = self.even_count(collective, input.len, result.map(|result| result.len))?;
                fitted.partition = Partition::even(count);
                fitted.total = input.len.max(result.map_or(0, |result| result.len));
            }
            Some(counts) => {
                let partition = match (collective, &displacements[..]) {
                    (Collective::AllToAll, []) => Partition::per_pair(self.ranks, counts),
                    (Collective::AllToAll, [sent, received]) => {
                        Partition::per_pair_at(self.ranks, counts, sent, received)
                    }
                    (_, []) => Partition::per_rank(counts),
                    (_, [begins]) if collective != Collective::AllToAll => {
                        Partition::per_rank_at(counts, begins)
                    }
                    _ => {
                        return refuse(
                            "an all-to-all takes displacements for each pair, on both sides; others one for each rank"
                                .into(),
                        );
                    }
                };
                let wrong = |error: crate::plan::PlanError| self.argument(call, error.to_string());
                fitted.partition = partition.map_err(wrong)?;
                fitted.counts = fingerprint(displacements.iter().chain([counts]).flatten());
                fitted.total = self.varying(&fitted).map_err(|what| self.argument(call, what))?;
            }
        }
        self.countable(call, fitted.total)?;
        Ok(fitted)
    }

    /// How many elements each part has, of windows of these lengths.
    pub(super) fn even_count(
        &self,
        collective: Collective,
        input: usize,
        result: Option<usize>,
    ) -> Result<usize, CommunicatorError> {
        let ranks = self.ranks as usize;
        let call = collective.name();
        let refuse = |what: String| Err(self.argument(call, what));
        let divided = |len: usize| match len % ranks {
            0 => Ok(len / ranks),
            _ => refuse(format!(
                "{len} elements are no whole number for each of {ranks} ranks"
            )),
        };
        let Some(result) = result else {
            return if collective.has_parts() {
                divided(input)
            } else {
                Ok(input)
            };
        };
        let (short, long, names) = match collective {
            Collective::AllGather | Collective::Gather { .. } => (input, result, ("input", "result")),
            Collective::ReduceScatter | Collective::Scatter { .. } => (result, input, ("result", "input")),
            _ if input != result => {
                return refuse(format!(
                    "an input of {input} elements and a result of {result}: they must be equally long"
                ));
            }
            Collective::AllToAll => return divided(input),
            _ => return Ok(input),
        };
        if short.checked_mul(ranks) != Some(long) {
            let (one, other) = names;
            return refuse(format!(
                "an {one} of {short} elements and an {other} of {long}: with {ranks} ranks the {other} must be {ranks} \
                 times as long as the {one}"
            )
            .replace("an result", "a result"));
        }
        Ok(short)
    }

    /// Whether counts that differ stay within the windows, on every rank; the sum of the longest side.
    fn varying(&self, fitted: &Fitted<'_>) -> Result<usize, String> {
        let collective = fitted.collective;
        // As many blocks as parts: where parts lie does not depend on how a plan cuts them.
        let parts = match collective {
            Collective::AllToAll => self.ranks.checked_mul(self.ranks),
            _ if collective.has_parts() => Some(self.ranks),
            _ => return Err(format!("{collective} does not take a count for each rank")),
        };
        let parts = parts.ok_or("too many ranks for a count for each pair")?;
        let cut = Cut::new(collective, self.ranks, parts).map_err(|error| error.to_string())?;
        let placement = Placement::new(cut, &fitted.partition, fitted.in_place());
        let placement = placement.map_err(|error| error.to_string())?;
        let lengths =
            [fitted.input, fitted.result.or(fitted.input)].map(|piece| piece.map_or(0, |piece| piece.len));
        let mut longest = 0;
        for rank in 0..self.ranks {
            for (side, len, name) in [
                (Side::Input, lengths[0], "an input"),
                (Side::Result, lengths[1], "a result"),
            ] {
                let needed = placement.elements(side, rank);
                longest = longest.max(needed);
                if needed > len {
                    return Err(format!(
                        "the counts need {name} of {needed} elements on rank {rank}, the windows have {len}"
                    ));
                }
            }
        }
        Ok(longest)
    }

    pub(super) fn countable(&self, call: &'static str, count: usize) -> Result<(), CommunicatorError> {
        if count <= MAXIMUM_COUNT {
            return Ok(());
        }
        let what = format!("{count} elements, at most {MAXIMUM_COUNT} can be moved");
        Err(self.argument(call, what))
    }

    /// Refuses operations that a type does not have.
    pub(super) fn reducible(
        &self,
        call: &'static str,
        operation: Operation,
        data_type: DataType,
    ) -> Result<(), CommunicatorError> {
        if operation.factor().is_some() && !data_type.is_float() {
            let what = format!("{data_type} has no pre-multiplied sum; float, double, half and bfloat16 do");
            return Err(self.argument(call, what));
        }
        Ok(())
    }
}

/// FNV-1a of counts and displacements: the same on every rank that has the same.
pub(super) fn fingerprint<'a>(counts: impl Iterator<Item = &'a usize>) -> u64 {
    let bytes = counts.flat_map(|count| (*count as u64).to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
