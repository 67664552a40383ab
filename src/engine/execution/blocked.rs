//! What an operation waits for: recorded, looked after before each sleep, and named where it fails.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Execution;
use crate::engine::board::{CHUNK_BITS, WHOLE};
use crate::engine::{Call, EngineError, Group, Trouble, Waited};
use crate::observe::{Kind, OpenWait};
use crate::plan::lowered::Action;

impl Execution {
    pub(super) fn note_progress(&mut self, call: &Call, group: &Group) {
        if let Some((task, chunk, peer)) = self.waiting.take() {
            // Else a later deadline would be blamed on whom this rank waited for long ago.
            group.board().wait_for(None);
            group
                .engine
                .recorder
                .mark(Kind::WaitEnd, call.sequence as u32, task, chunk, peer, 0);
        }
    }

    pub(super) fn note_blocked(&mut self, call: &Call, group: &Group) {
        if let (None, Some((index, wait))) = (self.waiting, self.blocked) {
            let peer = call.prepared.program.tasks[index].waits[wait].rank;
            let (task, chunk) = (index as u16, self.streams[index].done as u32);
            self.waiting = Some((task, chunk, peer));
            group.engine.counters.wait();
            group
                .engine
                .recorder
                .mark(Kind::WaitBegin, call.sequence as u32, task, chunk, peer, 0);
        }
    }

    /// Whether waiting on makes sense. Asked before sleeping.
    pub(in crate::engine) fn look(
        &mut self,
        call: &Call,
        group: &Group,
        began: Instant,
    ) -> Result<(), EngineError> {
        let Some((index, number)) = self.blocked else {
            return Ok(());
        };
        let wait = call.prepared.program.tasks[index].waits[number];
        let counter = group.boards[wait.rank as usize].counter(call.sequence, wait.task as usize);
        let before = self.seen[self.streams[index].first_wait + number].value;
        group.board().wait_for(Some(wait.rank));
        let still = || counter.load(Ordering::Acquire) == before;
        let describe = || self.describe(call, group, index, number);
        if let Some(error) = group.look(
            call.sequence,
            call.signature,
            Some(call.details()),
            wait.rank,
            still,
            describe,
        ) {
            return Err(error);
        }
        let waited = began.elapsed();
        if waited >= call.timeout && still() {
            let on = describe();
            group.give_up(Trouble::Deadline(on.last));
            return Err(EngineError::Deadline {
                rank: group.rank,
                waited,
                on,
            });
        }
        Ok(())
    }

    fn describe(&self, call: &Call, group: &Group, index: usize, number: usize) -> Waited {
        let task = &call.prepared.program.tasks[index];
        let wait = task.waits[number];
        let stream = &self.streams[index];
        let what = match task.action {
            Action::Signal => "sync",
            Action::Reduce { .. } => "reduce",
            Action::Copy { .. } => "pull",
        };
        let board = &group.boards[wait.rank as usize];
        let value = board
            .counter(call.sequence, wait.task as usize)
            .load(Ordering::Acquire);
        let reached = if board.announced(call.sequence) < call.sequence {
            "it has not called this operation yet".to_owned()
        } else if value >> CHUNK_BITS < call.sequence {
            format!(
                "it has called the operation, but not begun its task {}",
                wait.task
            )
        } else {
            format!("its task {} has done {} chunks", wait.task, value & WHOLE)
        };
        let (last, chain) = group.last_awaited(call.sequence, wait.rank);
        // The recorder knows since when it is this very chunk that is waited for.
        let recorder = &group.engine.recorder;
        let here = |wait: &OpenWait| (wait.operation, wait.task) == (call.sequence as u32, index as u16);
        let since = recorder
            .last_waits()
            .into_iter()
            .find(here)
            .map_or(String::new(), |wait| {
                format!(" for {:.1?}", recorder.clock().elapsed(wait.since))
            });
        Waited {
            last,
            operation: call.signature.to_string(),
            sequence: call.sequence,
            plan: call.prepared.plan.clone(),
            peer: wait.rank,
            step: format!(
                "at task {index} ({what}), block {}, chunk {} of {}{since}; {reached}{chain}",
                task.block,
                stream.done + 1,
                stream.chunks
            ),
        }
    }
}
