//! A call that fits goes the way of small ones or becomes the engine's, under the next sequence number.

use super::request::{BARRIER, Fitted, Piece, Request};
use super::window::Shared;
use super::{Communicator, CommunicatorError};
use crate::engine::reduce::{self, Operation};
use crate::engine::{
    Call, Core, Engine, EngineError, FARTHEST, MOST_AHEAD, Occasion, SLOT_BYTES, Scale, Signature, Small,
    Straight, fits_units, is_straight, may_run_ahead, parts_shown, small_exchange, straight, units_exchange,
};
use crate::memory::{DataType, Element};
use crate::plan::cost::scaled_chunk_bytes;
use crate::plan::{Collective, default_past_caches_bytes};

/// A call that goes the way of small ones: a request that fits its memory, with equal parts.
pub(super) struct Quick {
    pub(super) collective: Collective,
    pub(super) operation: Operation,
    pub(super) data_type: DataType,
    /// Elements of each part, of the whole where there are no parts.
    pub(super) count: usize,
    /// Elements of the longest buffer of a rank.
    pub(super) total: usize,
    /// Of several calls that were fused into this one: stands for how many elements each has.
    pub(super) lengths: Option<u64>,
}

/// Takes windows into custody when dropped: by what was called on them nothing ended well.
pub(super) struct Held<'a>(pub(super) [Option<&'a Shared>; 2]);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0
            .into_iter()
            .flatten()
            .for_each(|window| window.set_custody(true));
    }
}

impl Communicator {
    /// Runs a request to its end.
    #[inline]
    pub(super) fn run<'a, T: Element>(
        &self,
        request: &Request,
        input: Piece<'a>,
        result: Option<Piece<'a>>,
    ) -> Result<(), CommunicatorError> {
        let to = result.as_ref().map_or(input.pointer, |result| result.pointer);
        if let Some((core, quick)) = self.quick(request, T::TYPE, &input, result.as_ref()) {
            let (input, result) = self.small_places(&quick, result.is_none(), input.pointer, to);
            let small = self.worked_out(&quick);
            self.remember_small(quick.collective, quick.operation, quick.data_type, &small);
            // SAFETY: the pieces are borrowed for the whole call, the result mutably.
            return Ok(unsafe { self.exchange(core, &small, input, result) }?);
        }
        let fitted = self.fit(request, T::TYPE, input, result)?;
        self.run_plan(&fitted)
    }

    /// The engine, and what it is to do, if a request fits its memory and goes the way of small ones. If not, [`Self::fit`]
    /// says what is wrong with it, if anything is.
    #[inline]
    fn quick(
        &self,
        request: &Request,
        data_type: DataType,
        input: &Piece<'_>,
        result: Option<&Piece<'_>>,
    ) -> Option<(&Core, Quick)> {
        let (collective, operation) = (request.collective, request.operation);
        let Engine::Boards(core) = &*self.engine else {
            return None;
        };
        let others = result.map_or(input.len, |result| result.len);
        let count = match collective {
            Collective::AllReduce | Collective::Reduce { .. } | Collective::Broadcast { .. } => {
                (input.len == others).then_some(input.len)?
            }
            Collective::AllToAll if result.is_none() => return None,
            _ => self
                .even_count(collective, input.len, result.map(|_| others))
                .ok()?,
        };
        let part = count.checked_mul(data_type.size())?;
        let fits = !request.has_counts()
            && collective.root().is_none_or(|root| root < self.ranks)
            && (operation.factor().is_none() || data_type.is_float())
            && self.flat_way(collective, part).is_some();
        let quick = Quick {
            collective,
            operation,
            data_type,
            count,
            total: input.len.max(others),
            lengths: None,
        };
        fits.then_some((core, quick))
    }

    /// Where in place the own part of a buffer is that has the parts of all.
    #[inline]
    fn small_places(
        &self,
        quick: &Quick,
        in_place: bool,
        input: *mut u8,
        result: *mut u8,
    ) -> (*const u8, *mut u8) {
        use crate::plan::Collective::{AllGather, Gather, ReduceScatter, Scatter};
        if !in_place {
            return (input, result);
        }
        let own = self.rank as usize * quick.count * quick.data_type.size();
        let has_all = || quick.collective.root().is_none_or(|root| root == self.rank);
        match quick.collective {
            AllGather | Gather { .. } if has_all() => (input.wrapping_add(own), result),
            ReduceScatter | Scatter { .. } if has_all() => (input, result.wrapping_add(own)),
            _ => (input, result),
        }
    }

    pub(super) fn run_plan(&self, fitted: &Fitted<'_>) -> Result<(), CommunicatorError> {
        let call = self.prepare(fitted, None)?;
        if let Engine::Boards(core) = &*self.engine
            && is_straight(&call)
        {
            let (straight, sequence) = (Straight::new(&call), call.sequence);
            // SAFETY: the windows are borrowed until this returns.
            unsafe { self.go_straight(core, &straight, sequence, fitted.shared()) }?;
            self.remember_straight(fitted, straight);
            return Ok(());
        }
        self.run_call(call, fitted.shared())
    }

    /// # Safety
    /// The memory of what it was worked out of lies in these windows, which are borrowed until this returns.
    #[inline]
    pub(super) unsafe fn go_straight(
        &self,
        core: &Core,
        call: &Straight,
        sequence: u64,
        windows: [Option<&Shared>; 2],
    ) -> Result<(), EngineError> {
        let held = Held(windows);
        // SAFETY: passed on.
        match unsafe { straight(core, call, sequence, self.timeout()) } {
            Ok(()) => {
                std::mem::forget(held);
                Ok(())
            }
            Err(error) => {
                core.abandon(&error);
                Err(error)
            }
        }
    }

    /// Runs a call to its end, on these windows, which are borrowed until this returns.
    pub(super) fn run_call(
        &self,
        call: Call,
        windows: [Option<&Shared>; 2],
    ) -> Result<(), CommunicatorError> {
        if let Engine::Boards(core) = &*self.engine
            && is_straight(&call)
        {
            // SAFETY: the windows are borrowed until this returns.
            return Ok(unsafe { self.go_straight(core, &Straight::new(&call), call.sequence, windows) }?);
        }
        // SAFETY: the caller's borrow of the windows lasts until this returns, and it returns only after the end.
        let started = unsafe { self.engine().start(call) };
        // A panic on the way takes the windows into custody too.
        let held = Held(windows);
        started.and_then(|ticket| self.engine().wait(&ticket))?;
        std::mem::forget(held);
        Ok(())
    }

    /// What the engine is to run, under the next sequence number or a reserved one.
    pub(super) fn prepare(
        &self,
        fitted: &Fitted<'_>,
        sequence: Option<u64>,
    ) -> Result<Call, CommunicatorError> {
        let Fitted {
            collective,
            operation,
            data_type,
            total,
            ..
        } = *fitted;
        let size = data_type.size();
        let plan = self.plan_for(collective, total * size);
        let signature = Signature::new(collective, operation, data_type, plan, total);
        let program = self.shape(collective, plan, signature)?;
        let chunk_scale = self.plans.chunk_scale(collective, total * size);
        let mut chunk = scaled_chunk_bytes(program.block_bytes(total * size), chunk_scale);
        if program.staged {
            chunk = chunk.min(SLOT_BYTES);
        }
        // Over messages each rank has slots of its own, which its engine gives out.
        let staging = self.staging.as_ref().filter(|_| program.staged);
        let staging = staging.map(|staging| (staging.clone(), SLOT_BYTES));
        let sequence = match sequence {
            Some(reserved) => reserved,
            None => {
                self.make_room(1)?;
                let sequence = self.reserve(1);
                // Where there is a root, ranks may run ahead: now and then all wait for all.
                let rooted = collective.root().is_some() && self.ahead.get().1 == 0;
                if rooted && self.small_way(Collective::Barrier, 0).is_some() {
                    self.ahead.set((sequence, 1));
                }
                sequence
            }
        };
        Ok(Call {
            prepared: program.prepared.clone(),
            sequence,
            signature,
            kernel: reduce::kernel(data_type, operation),
            scale: scale(data_type, operation),
            element: size,
            count: total,
            partition: fitted.partition.clone(),
            counts: fitted.counts,
            in_place: fitted.in_place(),
            past_caches: !fitted.in_place() && total * size >= default_past_caches_bytes(),
            chunk: (chunk / size).max(1),
            divisor: self.divisor(operation),
            memory: fitted.memory(),
            staging,
            timeout: self.timeout(),
        })
    }

    /// What the sum of all contributions is divided by.
    fn divisor(&self, operation: Operation) -> u32 {
        match operation {
            Operation::Average => self.size(),
            _ => 1,
        }
    }

    /// # Safety
    /// `input` and `result` are valid for what this rank gives and gets, and nobody else accesses them during the call;
    /// [`Self::small_way`] or [`Self::flat_way`] has said that it fits.
    #[inline]
    pub(super) unsafe fn small(
        &self,
        core: &Core,
        quick: &Quick,
        input: *const u8,
        result: *mut u8,
    ) -> Result<(), EngineError> {
        // SAFETY: passed on.
        unsafe { self.exchange(core, &self.worked_out(quick), input, result) }
    }

    /// What follows from what is called; which operation it is, [`Self::exchange`] says.
    #[inline]
    fn worked_out(&self, quick: &Quick) -> Small {
        let Quick {
            collective,
            operation,
            data_type,
            count,
            total,
            lengths,
        } = *quick;
        let shown = count * data_type.size() * parts_shown(collective, self.ranks);
        let scaled = operation.factor().is_some();
        let in_units = lengths.is_none() && !scaled && fits_units(collective, self.ranks, shown);
        Small {
            collective,
            signature: match lengths {
                None if in_units => Signature::units(collective, operation, data_type, total),
                None => Signature::flat(collective, operation, data_type, total),
                Some(_) => Signature::new(collective, operation, data_type, "fused", total),
            },
            in_units,
            lengths,
            kernel: reduce::kernel(data_type, operation),
            scale: scale(data_type, operation),
            element: data_type.size(),
            count,
            shown,
            divisor: self.divisor(operation),
        }
    }

    /// # Safety
    /// As [`Self::small`].
    #[inline]
    pub(super) unsafe fn exchange(
        &self,
        core: &Core,
        small: &Small,
        input: *const u8,
        result: *mut u8,
    ) -> Result<(), EngineError> {
        core.make_room(self.next.get())?;
        let (sequence, turn) = (self.reserve(1), self.small_turn.get());
        let (first, before) = self.ahead.get();
        let far = before == MOST_AHEAD || before != 0 && sequence >= first + FARTHEST;
        let ahead = (may_run_ahead(small.collective, small.shown) && !far).then_some(before);
        if small.count != 0 && ahead.is_none() {
            self.small_turn.set(turn + 1);
        }
        let timeout = self.timeout();
        let occasion = Occasion {
            sequence,
            turn,
            ahead,
            timeout,
        };
        // SAFETY: passed on; every rank makes the same calls in the same order, so the turns agree.
        let outcome = unsafe {
            match small.in_units {
                true => units_exchange(core, small, occasion, input, result),
                false => small_exchange(core, small, occasion, input, result),
            }
        };
        self.ahead.set(match ahead {
            None => (0, 0),
            Some(0) => (sequence, 1),
            Some(before) => (first, before + 1),
        });
        // Not passed on as a whole: what was stored in part takes long to be loaded.
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => {
                core.abandon(&error);
                Err(error)
            }
        }
    }

    /// Waits until all ranks have come here, under the signature of what they have come for: one that called
    /// something else is found at once.
    pub(super) fn meet(&self, signature: Signature) -> Result<(), CommunicatorError> {
        let mut meeting = self.prepare(&BARRIER, None)?;
        meeting.signature = signature;
        // SAFETY: no memory is involved.
        let ticket = unsafe { self.engine().start(meeting) }?;
        Ok(self.engine().wait(&ticket)?)
    }
}

/// How contributions are multiplied, where they are.
fn scale(data_type: DataType, operation: Operation) -> Option<Scale> {
    let factor = operation.factor()?;
    let kernel = reduce::scaled_kernel(data_type)?;
    Some(Scale { factor, kernel })
}
