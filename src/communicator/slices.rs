//! All-reduces of memory that is in no window: small ones as fast as in one, larger ones copied through a window.

use super::request::{Fitted, Request};
use super::running::Quick;
use super::{Communicator, CommunicatorError, Window};
use crate::engine::Signature;
use crate::engine::reduce::{self, Operation};
use crate::memory::Element;
use crate::observe::{CopySite, Kind, NONE};
use crate::plan::partition::Partition;

impl Communicator {
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
        self.usable()?;
        let request = Request::all_reduce(operation);
        self.reducible(request.name(), operation, T::TYPE)?;
        let (count, bytes) = (slice.len(), size_of_val(slice));
        let pointer = slice.as_mut_ptr().cast::<u8>();
        let mut fitted = Fitted {
            collective: request.collective,
            operation,
            data_type: T::TYPE,
            partition: Partition::even(count),
            counts: 0,
            total: count,
            input: None,
            result: None,
        };
        if let Some(core) = self.small_way(request.collective, bytes) {
            let quick = Quick {
                collective: request.collective,
                operation,
                data_type: T::TYPE,
                count,
                total: count,
            };
            // SAFETY: the slice is borrowed mutably for the whole call.
            return unsafe { self.small(core, &quick, pointer, pointer) };
        }
        self.countable(request.name(), count)?;
        let plan = self.plan_for(request.collective, bytes);
        let signature = Signature::new(request.collective, operation, T::TYPE, plan, count);
        let mut bounce = self.bounce_of(bytes, signature)?;
        let copied = |site| {
            let caller = self.engine().caller();
            caller.counters.copied(site, bytes as u64);
            caller.recorder.mark(Kind::Copy, 0, 0, 0, NONE, bytes as u64);
        };
        // SAFETY: the bounce window is at least as long, and nobody else uses either during the call.
        unsafe { reduce::copy(bounce.as_mut_ptr(), pointer, bytes) };
        copied(CopySite::StageIn);
        let mut piece = self.piece(request.name(), &mut bounce, 0..bytes)?;
        // Of the slice's elements, not of bytes.
        piece.len = count;
        fitted.input = Some(piece);
        self.run_plan(&fitted)?;
        // SAFETY: as above.
        unsafe { reduce::copy(pointer, bounce.as_ptr(), bytes) };
        copied(CopySite::StageOut);
        *self.bounce.borrow_mut() = Some(bounce);
        Ok(())
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
