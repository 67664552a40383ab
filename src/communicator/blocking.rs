//! Collectives that return when they have ended. Each names a request and runs it.

use std::ops::Range;

use super::recent::Part;
use super::request::{BARRIER, Request};
use super::running::Quick;
use super::{Communicator, CommunicatorError, Window};
use crate::engine::reduce::Operation;
use crate::memory::{DataType, Element};
use crate::plan::Collective;

impl Communicator {
    /// Runs a request in place and returns when it has ended.
    ///
    /// # Errors
    /// A window that does not fit the request, a root that does not exist, an operation that the type does not have:
    /// nothing is changed then. A rank that does not come by the deadline, is gone, or called something else: named.
    /// The communicator is unusable afterwards, and the window in custody if others may still reach it.
    pub fn call<T: Element>(
        &self,
        request: &Request,
        window: &mut Window<T>,
    ) -> Result<(), CommunicatorError> {
        let all = 0..window.len();
        if let Some(operation) = request.plain_all_reduce() {
            return self.all_reduce_range(window, all, operation);
        }
        let piece = self.piece(request.name(), window, all)?;
        self.run::<T>(request, piece, None)
    }

    /// As [`Communicator::call`], out of place: the input stays as it is.
    ///
    /// # Errors
    /// As there.
    pub fn call_into<T: Element>(
        &self,
        request: &Request,
        input: &Window<T>,
        result: &mut Window<T>,
    ) -> Result<(), CommunicatorError> {
        if let Some(operation) = request.plain_all_reduce() {
            return self.all_reduce_into(input, result, operation);
        }
        let (all, whole) = (0..input.len(), 0..result.len());
        let input = self.read_piece(request.name(), input, all)?;
        let result = self.piece(request.name(), result, whole)?;
        self.run::<T>(request, input, Some(result))
    }

    /// Every rank's `window` becomes the reduction of all of them, element by element. Bit-identical on every rank
    /// and from run to run (for the same number of ranks and the same plan).
    ///
    /// # Errors
    /// As [`Communicator::call`].
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
        if range.start <= range.end && range.end <= window.len() {
            let part = Part::new(window, range.start);
            // SAFETY: the range lies in the window, which is borrowed for the whole call.
            let done = unsafe { self.again(operation, T::TYPE, range.len(), part, part) };
            if let Some(done) = done {
                return done.map_err(CommunicatorError::from);
            }
        }
        let request = Request::all_reduce(operation);
        let piece = self.piece(request.name(), window, range)?;
        self.run::<T>(&request, piece, None)
    }

    /// Every rank's `result` becomes the reduction of all `input`s, which stay as they are.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn all_reduce_into<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
        operation: Operation,
    ) -> Result<(), CommunicatorError> {
        if input.len() == result.len() {
            let (from, to) = (Part::new(input, 0), Part::new(result, 0));
            // SAFETY: as long as asked for; both are borrowed for the whole call.
            let done = unsafe { self.again(operation, T::TYPE, input.len(), from, to) };
            if let Some(done) = done {
                return done.map_err(CommunicatorError::from);
            }
        }
        let request = Request::all_reduce(operation);
        let (all, whole) = (0..input.len(), 0..result.len());
        let input = self.read_piece(request.name(), input, all)?;
        let result = self.piece(request.name(), result, whole)?;
        self.run::<T>(&request, input, Some(result))
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
        let request = Request::all_reduce(operation);
        let input = self.read_piece(request.name(), input, range.clone())?;
        let result = self.piece(request.name(), result, range)?;
        self.run::<T>(&request, input, Some(result))
    }

    /// The root's `window` becomes the reduction of all of them; the others' stay as they are.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn reduce<T: Element>(
        &self,
        window: &mut Window<T>,
        operation: Operation,
        root: u32,
    ) -> Result<(), CommunicatorError> {
        self.call(&Request::reduce(operation, root), window)
    }

    /// The root's `result` becomes the reduction of all `input`s; other results stay as they are.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn reduce_into<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
        operation: Operation,
        root: u32,
    ) -> Result<(), CommunicatorError> {
        self.call_into(&Request::reduce(operation, root), input, result)
    }

    /// Every rank's `window` becomes the root's.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn broadcast<T: Element>(&self, window: &mut Window<T>, root: u32) -> Result<(), CommunicatorError> {
        self.call(&Request::broadcast(root), window)
    }

    /// Every rank's `result` becomes the root's `input`.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn broadcast_into<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
        root: u32,
    ) -> Result<(), CommunicatorError> {
        self.call_into(&Request::broadcast(root), input, result)
    }

    /// Rank `r` gets part `r` of the reduction of all windows, where that part lies in its own; what else its window holds
    /// afterwards is of no use. The window's length is a multiple of the number of ranks.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn reduce_scatter<T: Element>(
        &self,
        window: &mut Window<T>,
        operation: Operation,
    ) -> Result<(), CommunicatorError> {
        self.call(&Request::reduce_scatter(operation), window)
    }

    /// Rank `r`'s `result` becomes part `r` of the reduction of all `input`s, which are as many times longer as there are
    /// ranks.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn reduce_scatter_into<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
        operation: Operation,
    ) -> Result<(), CommunicatorError> {
        self.call_into(&Request::reduce_scatter(operation), input, result)
    }

    /// Part `r` of every rank's `window` becomes that of rank `r`. The window's length is a multiple of the number of ranks.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn all_gather<T: Element>(&self, window: &mut Window<T>) -> Result<(), CommunicatorError> {
        self.call(&Request::all_gather(), window)
    }

    /// Every rank's `result` becomes the `input`s of all, in the order of the ranks; it is as many times longer as there are
    /// ranks.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn all_gather_into<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
    ) -> Result<(), CommunicatorError> {
        self.call_into(&Request::all_gather(), input, result)
    }

    /// Part `r` of the root's `window` becomes the first part of rank `r`'s; the root's own part is in its place. The
    /// window's length is a multiple of the number of ranks.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn gather<T: Element>(&self, window: &mut Window<T>, root: u32) -> Result<(), CommunicatorError> {
        self.call(&Request::gather(root), window)
    }

    /// The root's `result` becomes the `input`s of all, in the order of the ranks; it is as many times longer as there are
    /// ranks, on every rank.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn gather_into<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
        root: u32,
    ) -> Result<(), CommunicatorError> {
        self.call_into(&Request::gather(root), input, result)
    }

    /// The first part of rank `r`'s `window` becomes part `r` of the root's, whose own stays in its place. The window's
    /// length is a multiple of the number of ranks.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn scatter<T: Element>(&self, window: &mut Window<T>, root: u32) -> Result<(), CommunicatorError> {
        self.call(&Request::scatter(root), window)
    }

    /// Rank `r`'s `result` becomes part `r` of the root's `input`, which is as many times longer as there are ranks, on every
    /// rank.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn scatter_into<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
        root: u32,
    ) -> Result<(), CommunicatorError> {
        self.call_into(&Request::scatter(root), input, result)
    }

    /// Part `s` of rank `r`'s `result` becomes part `r` of rank `s`'s `input`. Both are a multiple of the number of ranks
    /// long.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn all_to_all<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
    ) -> Result<(), CommunicatorError> {
        self.call_into(&Request::all_to_all(), input, result)
    }

    /// As [`Communicator::all_gather_into`], with `counts[r]` elements from rank `r`, the same list on every rank. The
    /// windows may be longer than is needed.
    ///
    /// # Errors
    /// As [`Communicator::call`], and counts that leave a window on any rank.
    pub fn all_gather_varying<T: Element>(
        &self,
        input: &Window<T>,
        result: &mut Window<T>,
        counts: &[usize],
    ) -> Result<(), CommunicatorError> {
        self.call_into(&Request::all_gather().varying(counts), input, result)
    }

    /// Each rank sends `send[r]` elements to rank `r` and gets `receive[s]` from rank `s`: what goes to the ranks lies
    /// in `input` one after the other, what comes from them in `result`. The windows may be longer than is needed.
    ///
    /// The ranks show each other their counts before, through the bootstrap: who knows them all and calls often takes
    /// [`Request::varying`].
    ///
    /// # Errors
    /// As [`Communicator::call`]. Counts that leave a window on any rank, and what a rank means to get that is not what
    /// the other sends: refused on every rank, with both.
    pub fn all_to_all_varying<T: Element>(
        &self,
        input: &Window<T>,
        send: &[usize],
        result: &mut Window<T>,
        receive: &[usize],
    ) -> Result<(), CommunicatorError> {
        let counts = self.agree_on_pairs(send, receive)?;
        self.call_into(&Request::all_to_all().varying(&counts), input, result)
    }

    /// Every rank's counts, by sender and receiver.
    fn agree_on_pairs(&self, send: &[usize], receive: &[usize]) -> Result<Vec<usize>, CommunicatorError> {
        let (call, ranks) = ("all-to-all", self.ranks as usize);
        // Also from who is wrong, so that every rank hears of it.
        let mine = serde_json::to_vec(&(send, receive)).expect("plain data");
        let given = self.all_gather_bytes("the counts of an all-to-all", &mine)?;
        let mut rows = Vec::with_capacity(ranks);
        for (rank, bytes) in given.iter().enumerate() {
            let row: (Vec<usize>, Vec<usize>) = serde_json::from_slice(bytes)
                .map_err(|_| self.argument(call, format!("rank {rank} sent counts that are none")))?;
            if row.0.len() != ranks || row.1.len() != ranks {
                let (send, receive) = (row.0.len(), row.1.len());
                let what = format!(
                    "rank {rank} gave {send} counts to send and {receive} to receive, for {ranks} ranks"
                );
                return Err(self.argument(call, what));
            }
            rows.push(row);
        }
        let mut counts = Vec::with_capacity(ranks * ranks);
        for (sender, (send, _)) in rows.iter().enumerate() {
            for (receiver, count) in send.iter().enumerate() {
                let wanted = rows[receiver].1[sender];
                if wanted != *count {
                    let what = format!(
                        "rank {sender} sends {count} elements to rank {receiver}, which means to get {wanted}"
                    );
                    return Err(self.argument(call, what));
                }
                counts.push(*count);
            }
        }
        Ok(counts)
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// As [`Communicator::call`].
    pub fn barrier(&self) -> Result<(), CommunicatorError> {
        self.usable()?;
        let Some(core) = self.small_way(Collective::Barrier, 0) else {
            return self.run_plan(&BARRIER);
        };
        let nothing = std::ptr::NonNull::<u8>::dangling().as_ptr();
        let quick = Quick {
            collective: Collective::Barrier,
            operation: Operation::Sum,
            data_type: DataType::U8,
            count: 0,
            total: 0,
            lengths: None,
        };
        // SAFETY: no element is accessed.
        Ok(unsafe { self.small(core, &quick, nothing, nothing) }?)
    }
}
