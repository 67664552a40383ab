//! The collectives. Each checks its arguments, takes a sequence number, and runs the small path or a plan.

use std::ops::Range;
use std::sync::Arc;

use super::window::Shared;
use super::{Communicator, CommunicatorError, Pending, SLOT_BYTES, Shape, Window};
use crate::engine::reduce::{self, Operation};
use crate::engine::{
    Call, Core, Engine, EngineError, MAXIMUM_COUNT, Scale, Signature, Small, Ticket, small_exchange,
};
use crate::memory::{DataType, Element};
use crate::observe::{CopySite, Kind, NONE};
use crate::plan::{Collective, default_chunk_bytes};

pub(super) const BARRIER: Shape<'static> = Shape {
    call: "barrier",
    collective: Collective::Barrier,
    operation: Operation::Sum,
    data_type: DataType::U8,
    count: 0,
    memory: None,
    shared: [None, None],
};

/// Takes windows into custody when dropped: by what was called on them nothing ended well.
struct Held<'a>([Option<&'a Shared>; 2]);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0
            .into_iter()
            .flatten()
            .for_each(|window| window.set_custody(true));
    }
}

impl Communicator {
    /// Every rank's `window` becomes the reduction of all of them, element by element. Bit-identical on every rank
    /// and from run to run (for the same number of ranks and the same plan).
    ///
    /// # Errors
    /// A rank that does not come by the deadline, is gone, or called something else: named. The communicator is
    /// unusable afterwards, and the window in custody.
    pub fn all_reduce<T: Element>(
        &self,
        window: &mut Window<T>,
        operation: Operation,
    ) -> Result<(), CommunicatorError> {
        let all = 0..window.len();
        self.all_reduce_range(window, all, operation)
    }

    /// As [`Communicator::all_reduce`], for a range of the elements.
    ///
    /// # Errors
    /// As there, and a range that leaves the window.
    pub fn all_reduce_range<T: Element>(
        &self,
        window: &mut Window<T>,
        range: Range<usize>,
        operation: Operation,
    ) -> Result<(), CommunicatorError> {
        let call = "all-reduce";
        self.reducible(call, operation, T::TYPE)?;
        self.own(call, window, &range)?;
        let pointer = window[range.clone()].as_mut_ptr().cast::<u8>();
        if let Some(core) = self.small_core(Collective::AllReduce, range.len() * size_of::<T>()) {
            // SAFETY: the range is borrowed mutably for the whole call.
            return unsafe { self.small(core, operation, T::TYPE, range.len(), pointer, pointer) };
        }
        let extent = window.extent(range.start, range.len());
        self.run(&Shape {
            call,
            collective: Collective::AllReduce,
            operation,
            data_type: T::TYPE,
            count: range.len(),
            memory: Some((extent.clone(), extent)),
            shared: [Some(window.shared()), None],
        })
    }

    /// Every rank's `result` becomes the reduction of all `input`s, which stay as they are.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`], and lengths that differ.
    pub fn all_reduce_into<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
        operation: Operation,
    ) -> Result<(), CommunicatorError> {
        let all = 0..input.len().max(result.len());
        self.all_reduce_range_into(input, result, all, operation)
    }

    /// As [`Communicator::all_reduce_into`], for the same range of both.
    ///
    /// # Errors
    /// As there, and a range that leaves one of the windows.
    pub fn all_reduce_range_into<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
        range: Range<usize>,
        operation: Operation,
    ) -> Result<(), CommunicatorError> {
        let call = "all-reduce";
        self.reducible(call, operation, T::TYPE)?;
        self.own(call, input, &range)?;
        self.own(call, result, &range)?;
        let from = input[range.clone()].as_ptr().cast::<u8>();
        let to = result[range.clone()].as_mut_ptr().cast::<u8>();
        if let Some(core) = self.small_core(Collective::AllReduce, range.len() * size_of::<T>()) {
            // SAFETY: both ranges are borrowed for the whole call, the result mutably.
            return unsafe { self.small(core, operation, T::TYPE, range.len(), from, to) };
        }
        self.run(&Shape {
            call,
            collective: Collective::AllReduce,
            operation,
            data_type: T::TYPE,
            count: range.len(),
            memory: Some((
                input.extent(range.start, range.len()),
                result.extent(range.start, range.len()),
            )),
            shared: [Some(input.shared()), Some(result.shared())],
        })
    }

    /// As [`Communicator::all_reduce`] for memory that is not in a window. Small ones go as fast as there; larger
    /// ones are copied into a window and back, and the copies are counted.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn all_reduce_slice<T: Element>(
        &self,
        slice: &mut [T],
        operation: Operation,
    ) -> Result<(), CommunicatorError> {
        self.reducible("all-reduce", operation, T::TYPE)?;
        let (count, bytes) = (slice.len(), size_of_val(slice));
        let pointer = slice.as_mut_ptr().cast::<u8>();
        if let Some(core) = self.small_core(Collective::AllReduce, bytes) {
            self.usable()?;
            // SAFETY: the slice is borrowed mutably for the whole call.
            return unsafe { self.small(core, operation, T::TYPE, count, pointer, pointer) };
        }
        self.usable()?;
        let plan = self.plan_for(Collective::AllReduce, bytes);
        self.countable("all-reduce", count)?;
        let signature = Signature::new(Collective::AllReduce, operation, T::TYPE, &plan, count);
        let mut bounce = self.bounce_of(bytes, signature)?;
        let copied = |site| {
            let caller = self.engine().caller();
            caller.counters.copied(site, bytes as u64);
            caller.recorder.mark(Kind::Copy, 0, 0, 0, NONE, bytes as u64);
        };
        // SAFETY: the bounce window is at least as long, and nobody else uses either during the call.
        unsafe { reduce::copy(bounce.as_mut_ptr(), pointer, bytes) };
        copied(CopySite::StageIn);
        let extent = bounce.extent(0, bytes);
        self.run(&Shape {
            call: "all-reduce",
            collective: Collective::AllReduce,
            operation,
            data_type: T::TYPE,
            count,
            memory: Some((extent.clone(), extent)),
            shared: [Some(bounce.shared()), None],
        })?;
        // SAFETY: as above.
        unsafe { reduce::copy(pointer, bounce.as_ptr(), bytes) };
        copied(CopySite::StageOut);
        *self.bounce.borrow_mut() = Some(bounce);
        Ok(())
    }

    /// The root's `window` becomes the reduction of all of them; the others' stay as they are.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`], and a root that does not exist.
    pub fn reduce<T: Element>(
        &self,
        window: &mut Window<T>,
        operation: Operation,
        root: u32,
    ) -> Result<(), CommunicatorError> {
        self.reducible("reduce", operation, T::TYPE)?;
        self.rooted("reduce", Collective::Reduce { root }, window, operation, root)
    }

    /// Every rank's `window` becomes the root's.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`], and a root that does not exist.
    pub fn broadcast<T: Element>(&self, window: &mut Window<T>, root: u32) -> Result<(), CommunicatorError> {
        self.rooted(
            "broadcast",
            Collective::Broadcast { root },
            window,
            Operation::Sum,
            root,
        )
    }

    fn rooted<T: Element>(
        &self,
        call: &'static str,
        collective: Collective,
        window: &mut Window<T>,
        operation: Operation,
        root: u32,
    ) -> Result<(), CommunicatorError> {
        self.root(call, root)?;
        self.own(call, window, &(0..window.len()))?;
        let extent = window.extent(0, window.len());
        self.run(&Shape {
            call,
            collective,
            operation,
            data_type: T::TYPE,
            count: window.len(),
            memory: Some((extent.clone(), extent)),
            shared: [Some(window.shared()), None],
        })
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn barrier(&self) -> Result<(), CommunicatorError> {
        if let Some(core) = self.small_core(Collective::Barrier, 0) {
            self.usable()?;
            let nothing = std::ptr::NonNull::<u8>::dangling().as_ptr();
            // SAFETY: no element is accessed.
            return unsafe {
                self.small_of(
                    core,
                    Collective::Barrier,
                    Operation::Sum,
                    DataType::U8,
                    0,
                    (nothing, nothing),
                )
            };
        }
        self.run(&BARRIER)
    }

    /// Starts an all-reduce in place; the window comes back when it has ended.
    ///
    /// # Errors
    /// Wrong arguments, or an earlier failure. (How the operation itself ends, the handle says.)
    pub fn start_all_reduce<T: Element>(
        &self,
        window: Window<T>,
        operation: Operation,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.start(window, Collective::AllReduce, operation)
    }

    /// Starts a reduction to the root; the window comes back when it has ended.
    ///
    /// # Errors
    /// As [`Communicator::start_all_reduce`].
    pub fn start_reduce<T: Element>(
        &self,
        window: Window<T>,
        operation: Operation,
        root: u32,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.root("reduce", root)?;
        self.start(window, Collective::Reduce { root }, operation)
    }

    /// Starts a broadcast; the window comes back when it has ended.
    ///
    /// # Errors
    /// As [`Communicator::start_all_reduce`].
    pub fn start_broadcast<T: Element>(
        &self,
        window: Window<T>,
        root: u32,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.root("broadcast", root)?;
        self.start(window, Collective::Broadcast { root }, Operation::Sum)
    }

    fn start<T: Element>(
        &self,
        window: Window<T>,
        collective: Collective,
        operation: Operation,
    ) -> Result<Pending<T>, CommunicatorError> {
        self.reducible(collective.name(), operation, T::TYPE)?;
        self.own(collective.name(), &window, &(0..window.len()))?;
        let extent = window.extent(0, window.len());
        let shape = Shape {
            call: collective.name(),
            collective,
            operation,
            data_type: T::TYPE,
            count: window.len(),
            memory: Some((extent.clone(), extent)),
            shared: [None, None],
        };
        let call = self.call(&shape, None)?;
        // SAFETY: the window is moved into the handle, which gives it back only after the end.
        let ticket = unsafe { self.engine().start(call) }?;
        Ok(Pending {
            engine: self.engine().clone(),
            ticket,
            window: Some(window),
        })
    }

    fn run(&self, shape: &Shape<'_>) -> Result<(), CommunicatorError> {
        self.usable()?;
        let call = self.call(shape, None)?;
        // SAFETY: the caller's borrow of the windows lasts until this returns, and it returns only after the end.
        let started = unsafe { self.engine().start(call) };
        // A panic on the way takes the windows into custody too.
        let held = Held(shape.shared);
        started.and_then(|ticket| self.engine().wait(&ticket))?;
        std::mem::forget(held);
        Ok(())
    }

    /// What the engine is to run, under the next sequence number or a reserved one.
    fn call(&self, shape: &Shape<'_>, sequence: Option<u64>) -> Result<Call, CommunicatorError> {
        let Shape {
            collective,
            operation,
            data_type,
            count,
            ..
        } = *shape;
        let size = data_type.size();
        self.countable(shape.call, count)?;
        let plan = self.plan_for(collective, count * size);
        let signature = Signature::new(collective, operation, data_type, &plan, count);
        let program = self.shape(collective, &plan, signature)?;
        let mut chunk = default_chunk_bytes(count * size / program.blocks as usize);
        if program.staged {
            chunk = chunk.min(SLOT_BYTES);
        }
        // Over messages each rank has slots of its own, which its engine gives out.
        let staging = self.staging.as_ref().filter(|_| program.staged);
        let staging = staging.map(|staging| (staging.clone(), SLOT_BYTES));
        let sequence = sequence.unwrap_or_else(|| self.reserve(1));
        Ok(Call {
            prepared: program.prepared.clone(),
            sequence,
            signature,
            kernel: reduce::kernel(data_type, operation),
            scale: scale(data_type, operation),
            element: size,
            count,
            chunk: (chunk / size).max(1),
            divisor: if operation == Operation::Average {
                self.size()
            } else {
                1
            },
            memory: shape.memory.clone(),
            staging,
            timeout: self.timeout(),
        })
    }

    /// # Safety
    /// As [`Communicator::small_of`].
    #[inline]
    unsafe fn small(
        &self,
        core: &Core,
        operation: Operation,
        data_type: DataType,
        count: usize,
        input: *const u8,
        result: *mut u8,
    ) -> Result<(), CommunicatorError> {
        self.usable()?;
        // SAFETY: passed on.
        unsafe {
            self.small_of(
                core,
                Collective::AllReduce,
                operation,
                data_type,
                count,
                (input, result),
            )
        }
    }

    /// # Safety
    /// Input and result are valid for `count` elements and nobody else accesses them during the call.
    #[inline]
    unsafe fn small_of(
        &self,
        core: &Core,
        collective: Collective,
        operation: Operation,
        data_type: DataType,
        count: usize,
        (input, result): (*const u8, *mut u8),
    ) -> Result<(), CommunicatorError> {
        let turn = self.small_turn.get();
        if count != 0 {
            self.small_turn.set(turn + 1);
        }
        let small = Small {
            sequence: self.reserve(1),
            turn,
            signature: Signature::new(collective, operation, data_type, "flat", count),
            kernel: reduce::kernel(data_type, operation),
            scale: scale(data_type, operation),
            element: data_type.size(),
            count,
            divisor: if operation == Operation::Average {
                self.size()
            } else {
                1
            },
            timeout: self.timeout(),
        };
        // SAFETY: passed on; every rank makes the same calls in the same order, so the turns agree, and
        // `is_small` has said that it fits.
        let outcome = unsafe { small_exchange(core, &small, input, result) };
        outcome.map_err(|error| {
            core.abandon(&error);
            error.into()
        })
    }

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

    /// Refuses operations that a type does not have.
    fn reducible(
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

    fn countable(&self, call: &'static str, count: usize) -> Result<(), CommunicatorError> {
        if count <= MAXIMUM_COUNT {
            return Ok(());
        }
        Err(self.argument(
            call,
            format!("{count} elements, at most {MAXIMUM_COUNT} can be moved"),
        ))
    }

    /// Waits until all ranks have come here, under the signature of what they have come for: one that called
    /// something else is found at once.
    pub(super) fn meet(&self, signature: Signature) -> Result<(), CommunicatorError> {
        let mut meeting = self.call(&BARRIER, None)?;
        meeting.signature = signature;
        // SAFETY: no memory is involved.
        let ticket = unsafe { self.engine().start(meeting) }?;
        Ok(self.engine().wait(&ticket)?)
    }

    /// A window of at least so many bytes, taken from the communicator or made anew. Collective when made: the ranks
    /// meet first, under the signature of what it is for, since one that called something else would not come.
    fn bounce_of(&self, bytes: usize, signature: Signature) -> Result<Window<u8>, CommunicatorError> {
        if let Some(window) = self.bounce.borrow_mut().take()
            && window.len() >= bytes
        {
            return Ok(window);
        }
        self.meet(signature)?;
        self.window(bytes.next_power_of_two())
    }
}

/// For the exchange: starts an operation under a reserved number from any thread that holds what it needs.
#[derive(Clone, Debug)]
pub(crate) struct Starter {
    engine: Arc<Engine>,
    call: Call,
}

impl Starter {
    /// Starts it as operation `sequence`.
    ///
    /// # Safety
    /// As [`Engine::start`].
    pub(crate) unsafe fn start(&self, sequence: u64) -> Result<Ticket, EngineError> {
        // SAFETY: passed on.
        unsafe {
            self.engine.start(Call {
                sequence,
                ..self.call.clone()
            })
        }
    }
}

impl Communicator {
    /// Prepares an in-place all-reduce of a window (as a part of one) that will be started many times, whatever its
    /// size by a plan: nothing is copied.
    pub(crate) fn starter<T: Element>(
        &self,
        window: &Window<T>,
        operation: Operation,
    ) -> Result<Starter, CommunicatorError> {
        let extent = window.extent(0, window.len());
        let shape = Shape {
            call: "exchange",
            collective: Collective::AllReduce,
            operation,
            data_type: T::TYPE,
            count: window.len(),
            memory: Some((extent.clone(), extent)),
            shared: [None, None],
        };
        Ok(Starter {
            engine: self.engine().clone(),
            call: self.call(&shape, Some(0))?,
        })
    }
}

/// How contributions are multiplied, where they are.
fn scale(data_type: DataType, operation: Operation) -> Option<Scale> {
    let factor = operation.factor()?;
    let kernel = reduce::scaled_kernel(data_type)?;
    Some(Scale { factor, kernel })
}
