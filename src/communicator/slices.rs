//! All-reduces of memory that is in no window: small ones as fast as in one, larger ones copied through a window. Where
//! ranks see each other's memory that window is short and is used again and again: it stays in the cache, so that only the
//! caller's memory is fetched from farther away. That measures better than to have the kernel copy from the other ranks'
//! memory (cross-memory attach), at every size: `benches/unregistered.rs`.

use super::request::{Fitted, Request};
use super::running::Quick;
use super::{Communicator, CommunicatorError, Window};
use crate::engine::reduce::{self, Operation};
use crate::engine::{Call, Engine, Signature};
use crate::memory::Element;
use crate::observe::{CopySite, Kind, NONE};
use crate::plan::Collective;
use crate::plan::partition::Partition;

/// Of a slice, in bytes for each rank and in all.
const STAGED_PER_RANK: usize = 128 << 10;
const MOST_STAGED: usize = 1 << 20;

impl Communicator {
    /// As [`Communicator::all_reduce`] for memory that is not in a window. Small ones go as fast as there; larger
    /// ones are copied into a window and back, piece by piece, and the copies are counted. After an error some pieces may
    /// hold the outcome already.
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
        if let Some(core) = self.small_way(request.collective, bytes) {
            let quick = Quick {
                collective: request.collective,
                operation,
                data_type: T::TYPE,
                count,
                total: count,
                lengths: None,
            };
            // SAFETY: the slice is borrowed mutably for the whole call.
            return Ok(unsafe { self.small(core, &quick, pointer, pointer) }?);
        }
        self.countable(request.name(), count)?;
        let size = T::TYPE.size();
        let at_once = self.staged_at_once(size, bytes).min(count);
        let plan = self.plan_for(request.collective, at_once * size);
        // Of all elements, whichever of them are on their way.
        let signature = Signature::new(request.collective, operation, T::TYPE, plan, count);
        let mut bounce = self.bounce_of(at_once * size, signature)?;
        let mut done = 0;
        // At least once: ranks meet even over nothing.
        loop {
            let now = at_once.min(count - done);
            let (piece, bytes) = (pointer.wrapping_add(done * size), now * size);
            // SAFETY: the bounce window is at least as long, and nobody else uses either during the call.
            unsafe { reduce::copy(bounce.as_mut_ptr(), piece, bytes) };
            self.count_copy(CopySite::StageIn, bytes);
            let mut staged = self.piece(request.name(), &mut bounce, 0..bytes)?;
            // Elements of the slice, not bytes.
            staged.len = now;
            let fitted = Fitted {
                collective: request.collective,
                operation,
                data_type: T::TYPE,
                partition: Partition::even(now),
                counts: 0,
                total: now,
                input: Some(staged),
                result: None,
            };
            let call = self.prepare(&fitted, None)?;
            self.run_call(Call { signature, ..call }, fitted.shared())?;
            // SAFETY: as above.
            unsafe { reduce::copy(piece, bounce.as_ptr(), bytes) };
            self.count_copy(CopySite::StageOut, bytes);
            done += now;
            if done == count {
                break;
            }
        }
        *self.bounce.borrow_mut() = Some(bounce);
        Ok(())
    }

    /// So many elements of `size` bytes, of a slice of so many bytes, go through the window at a time. On one host it is
    /// what stays in a core's second-level cache beside the caller's, more where more ranks share it; over messages all,
    /// which are then under way together. So are they where the order of a sum follows from the element's place in the
    /// vector, as it does in every plan but the direct one: the sums of a plan are the same on every fabric.
    fn staged_at_once(&self, size: usize, bytes: usize) -> usize {
        let piece = (self.ranks as usize * STAGED_PER_RANK).min(MOST_STAGED);
        let is_direct = |bytes| self.plan_for(Collective::AllReduce, bytes) == "direct";
        match &*self.engine {
            Engine::Boards(_) if is_direct(bytes) && is_direct(piece) => piece / size,
            Engine::Boards(_) | Engine::Messages(_) => usize::MAX,
        }
    }

    fn count_copy(&self, site: CopySite, bytes: usize) {
        let caller = self.engine().caller();
        caller.counters.copied(site, bytes as u64);
        caller.recorder.mark(Kind::Copy, 0, 0, 0, NONE, bytes as u64);
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
