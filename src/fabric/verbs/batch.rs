//! Work requests as the device takes them, laid out once and filled in again and again: a linked list for each post,
//! one entry of memory each. Nothing here allocates after it was made.

use std::ptr::null_mut;

use sapwood_sys::verbs::bindings::*;

/// Work requests that are handed to the device at a time.
pub(super) const LENGTH: usize = 32;

/// See the module.
pub(super) struct Batch {
    requests: Box<[ibv_send_wr; LENGTH]>,
    memory: Box<[ibv_sge; LENGTH]>,
    len: usize,
}

// SAFETY: the pointers are to this object's own boxes.
unsafe impl Send for Batch {}

impl Batch {
    pub fn new() -> Self {
        // SAFETY: both structures are numbers, null pointers and unions of these.
        let (mut requests, mut memory) = unsafe {
            (
                Box::new(std::mem::zeroed::<[ibv_send_wr; LENGTH]>()),
                Box::new(std::mem::zeroed::<[ibv_sge; LENGTH]>()),
            )
        };
        let first = requests.as_mut_ptr();
        for (at, request) in requests.iter_mut().enumerate() {
            request.sg_list = &raw mut memory[at];
            request.next = match at + 1 {
                LENGTH => null_mut(),
                // SAFETY: inside of the array.
                next => unsafe { first.add(next) },
            };
        }
        Self {
            requests,
            memory,
            len: 0,
        }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.len == LENGTH
    }

    /// The next work request and its memory, to be filled in completely.
    ///
    /// # Panics
    /// If the batch is full.
    #[inline(always)]
    pub fn add(&mut self) -> (&mut ibv_send_wr, &mut ibv_sge) {
        let at = self.len;
        self.len += 1;
        (&mut self.requests[at], &mut self.memory[at])
    }

    /// The work request that was added last, and its memory.
    ///
    /// # Panics
    /// If there is none.
    pub fn last(&mut self) -> (&mut ibv_send_wr, &mut ibv_sge) {
        let at = self.len - 1;
        (&mut self.requests[at], &mut self.memory[at])
    }

    /// Calls `post` with the list, and empties the batch.
    #[inline(always)]
    pub fn post<R>(&mut self, post: impl FnOnce(*mut ibv_send_wr) -> R) -> R {
        let last = self.len - 1;
        let next = std::mem::replace(&mut self.requests[last].next, null_mut());
        let result = post(self.requests.as_mut_ptr());
        self.requests[last].next = next;
        self.len = 0;
        result
    }

    /// Which of the list's work requests this is.
    pub fn position(&self, request: *const ibv_send_wr) -> usize {
        let start = self.requests.as_ptr() as usize;
        (request as usize).wrapping_sub(start) / size_of::<ibv_send_wr>()
    }
}
