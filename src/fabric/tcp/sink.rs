//! Where completions gather until a poll takes them. Its room is reserved when queue pairs are made, so nothing here
//! allocates afterwards.

use std::collections::VecDeque;

use crate::fabric::{Completion, Opcode, Rank, Status};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub completions: VecDeque<Completion>,
    /// Bytes of payload that took a detour.
    pub copied: u64,
    /// Something happened that no completion tells of, such as a peer's end.
    pub news: bool,
}

impl Sink {
    pub fn complete(
        &mut self,
        id: u64,
        peer: Rank,
        opcode: Opcode,
        status: Status,
        bytes: usize,
        immediate: Option<u32>,
    ) {
        self.completions.push_back(Completion {
            id,
            peer,
            opcode,
            status,
            bytes,
            immediate,
        });
    }
}
