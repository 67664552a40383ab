//! An all-reduce in one round that its caller runs itself, from announcement to end: for vectors that are too long to
//! be shown and so short that taking a call up, and handing it round, would count.
//!
//! It does what [`Execution`](super::execution) does with the same program, and is told from it by no other rank: it says
//! that it has begun, waits until all have, stores its block's combination into all results, says so, and waits until all
//! have. It never stores into a peer's memory but with the engine's token in hand, without which no rank falls silent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::awaiting::Awaited;
use super::board::{WHOLE, progress};
use super::details::Details;
use super::reduce::{self, Kernel};
use super::{Call, Core, EngineError, Prepared, Scale, Signature};
use crate::observe::{Kind, NONE};
use crate::plan::lowered::{Action, Buffer, Progress, Task};

/// The task in which a rank says that it has begun.
const BEGIN: usize = 0;

/// The most ranks: pointers to all are held on the stack.
const MOST_RANKS: usize = 32;
/// The longest vector, in bytes. A longer one is worth being moved on by whoever drives, chunk by chunk.
const MOST_BYTES: usize = 1 << 20;

/// The number of the task that stores a block into all results, if a program consists of nothing but beginning, that
/// task, and waiting for every other rank's.
pub(super) fn storing_task(tasks: &[Task], ranks: u32) -> Option<usize> {
    let stores = |task: &Task| match &task.action {
        Action::Reduce { sources, into, .. } => {
            let all_of = |places: &[crate::plan::lowered::Place], buffer| {
                places.len() == ranks as usize && places.iter().all(|place| place.buffer == buffer)
            };
            all_of(sources, Buffer::Input) && all_of(into, Buffer::Result)
        }
        _ => false,
    };
    let number = tasks.iter().position(stores)?;
    let waits = |task: &Task| match (&task.action, &task.waits[..]) {
        (Action::Signal, [wait]) => wait.task as usize == number && wait.progress == Progress::Whole,
        _ => false,
    };
    let others = tasks
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != BEGIN && *index != number);
    let all = others.clone().count() == ranks as usize - 1 && others.clone().all(|(_, task)| waits(task));
    (all && number != BEGIN && ranks as usize <= MOST_RANKS).then_some(number)
}

/// Whether a call can be run in this way.
#[inline]
pub fn is_straight(call: &Call) -> bool {
    call.prepared.storing_task.is_some() && call.count * call.element <= MOST_BYTES
}

/// A call that [`is_straight`], worked out: what it says to the others, and where its block is on every rank. The same for
/// every call like it on the same memory, which must still be there.
#[derive(Debug)]
pub struct Straight {
    prepared: Arc<Prepared>,
    /// Of the task.
    number: usize,
    signature: Signature,
    details: Details,
    kernel: Kernel,
    scale: Option<Scale>,
    divisor: u32,
    past_caches: bool,
    /// Bytes of the vector.
    total: usize,
    /// Elements of the block, and the bytes of one.
    elements: (usize, usize),
    /// In the order in which they are combined.
    from: [*const u8; MOST_RANKS],
    to: [*mut u8; MOST_RANKS],
}

// SAFETY: the pointers are followed in `straight` alone, whose caller answers for them.
unsafe impl Send for Straight {}

impl Straight {
    /// Of a call with memory.
    pub fn new(call: &Call) -> Self {
        let number = call.prepared.storing_task.expect("the caller has asked");
        let task = &call.prepared.program.tasks[number];
        let (Action::Reduce { sources, into, .. }, Some((input, result))) = (&task.action, &call.memory)
        else {
            unreachable!("the task was looked at when the program was prepared, and moves data");
        };
        let placement = call.placement();
        let at = |place| call.offset(&placement, place, task.block) * call.element;
        let (mut from, mut to) = ([std::ptr::null(); MOST_RANKS], [std::ptr::null_mut(); MOST_RANKS]);
        for (pointer, place) in from.iter_mut().zip(sources) {
            *pointer = input.of(place.rank).wrapping_add(at(place)).cast_const();
        }
        for (pointer, place) in to.iter_mut().zip(into) {
            *pointer = result.of(place.rank).wrapping_add(at(place));
        }
        Self {
            number,
            signature: call.signature,
            details: call.details(),
            kernel: call.kernel,
            scale: call.scale,
            divisor: call.divisor,
            past_caches: call.past_caches,
            total: call.count * call.element,
            elements: (placement.len(task.block), call.element),
            from,
            to,
            prepared: call.prepared.clone(),
        }
    }
}

/// Runs a call, under this number, to its end.
///
/// # Errors
/// An earlier failure; the deadline, a rank that is gone, a mismatch: the communicator is unusable afterwards.
///
/// # Safety
/// As [`Core::start`], until this returns, with the memory of the call that it was worked out of.
pub unsafe fn straight(
    core: &Core,
    call: &Straight,
    sequence: u64,
    timeout: Duration,
) -> Result<(), EngineError> {
    let Straight {
        number,
        signature,
        details,
        ..
    } = *call;
    core.check()?;
    core.make_room(sequence)?;
    let group = core.group();
    let observers = &group.caller;
    let recorder = &observers.recorder;
    let total = call.total as u64;
    recorder.mark(Kind::Begin, sequence as u32, 0, 0, NONE, total);
    let board = group.board();
    board.announce_details(sequence, signature, details, call.scale.map(|scale| scale.factor));
    // For who runs this chunk by chunk.
    let say = |task| {
        let counter = board.counter(sequence, task);
        // Release: what this rank has stored comes before.
        counter.store(progress(sequence, WHOLE), Ordering::Release);
        group.ring_others();
    };
    say(BEGIN);
    // While they come. The next operation stores there first, and would wait for the lines at its fences.
    board.expect(sequence + 1);
    board.expect_progress(sequence + 1, number);

    let awaited = |peer, step| Awaited {
        sequence,
        signature,
        details: Some(details),
        plan: &call.prepared.plan,
        peer,
        step,
        timeout,
    };
    let others = || (0..group.ranks).filter(|peer| *peer != group.rank);
    for peer in others() {
        let theirs = &group.boards[peer as usize];
        let here = || theirs.announced(sequence) == sequence;
        if !here() {
            awaited(peer, "it has not called this operation yet").here(core, here)?;
        }
        if group.disagrees(sequence, signature, Some(details), peer) {
            return Err(group.fall_out(sequence));
        }
    }
    {
        let _token = core.token()?;
        // SAFETY: the caller's contract; all ranks have begun and call the same, and no other stores this block.
        unsafe { store(core, call, sequence) };
    }
    say(number);

    for peer in others() {
        let counter = group.boards[peer as usize].counter(sequence, number);
        // Acquire: what the peer has stored here is read after this.
        let here = || counter.load(Ordering::Acquire) >= progress(sequence, WHOLE);
        if !here() {
            awaited(peer, "it has called the operation, but not stored its block yet").here(core, here)?;
        }
    }
    observers.counters.operation();
    recorder.mark(Kind::End, sequence as u32, 0, 0, NONE, total);
    Ok(())
}

/// Combines this rank's block of all inputs and stores it into all results.
///
/// # Safety
/// Nobody writes the block of any input, nor reads or writes it in any result; the call's memory is there.
unsafe fn store(core: &Core, call: &Straight, sequence: u64) {
    let group = core.group();
    let ranks = group.ranks as usize;
    let mut from = [std::ptr::null(); MOST_RANKS];
    from[..ranks].copy_from_slice(&call.from[..ranks]);
    let mut factors = [0.0; MOST_RANKS];
    if call.scale.is_some()
        && let Action::Reduce { sources, .. } = &call.prepared.program.tasks[call.number].action
    {
        for (factor, place) in factors.iter_mut().zip(sources) {
            *factor = group.boards[place.rank as usize].factor(sequence);
        }
    }
    let combine = |into, sources: &[*const u8], count| match call.scale {
        // SAFETY: the caller's contract.
        None => unsafe { (call.kernel)(into, sources, count, call.divisor) },
        // SAFETY: as above.
        Some(scale) => unsafe { (scale.kernel)(into, sources, &factors[..ranks], count) },
    };
    // SAFETY: as above; places of a plan are the same memory or do not overlap.
    unsafe {
        reduce::spread(
            &call.to[..ranks],
            &mut from[..ranks],
            call.elements,
            call.past_caches,
            combine,
        )
    };
    let bytes = call.elements.0 * call.elements.1;
    let moved = 2 * (ranks - 1) * bytes;
    group.caller.counters.exchanged(moved as u64);
    let (sequence, number) = (sequence as u32, call.number as u16);
    group
        .caller
        .recorder
        .mark(Kind::Reduce, sequence, number, 0, NONE, bytes as u64);
}
