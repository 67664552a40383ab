//! The end, where memory goes with its owner: whoever is done stays until nobody needs its memory any more.

use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

use super::core::{Core, Turn};
use super::ground::Ground;
use super::memory::LEAVING;
use super::protocol::Want;

/// How long to sleep between looks.
const NAP: Duration = Duration::from_micros(500);

impl<G: Ground> Core<G> {
    /// All say that they are done; and, once all have said so, that they have seen it. Who has seen that of all others is
    /// needed by nobody. Waits for an operation's time at most.
    pub(super) fn leave(&mut self) {
        if !self.worker.can_lose() {
            return;
        }
        let until = Instant::now() + self.timeout;
        for stage in [1, 2] {
            self.ground.own().words[LEAVING].store(stage, Release);
            for worker in 0..self.shape.workers() {
                while self.is_needed(worker, stage) && Instant::now() < until {
                    self.stay();
                    std::thread::sleep(NAP);
                }
            }
        }
    }

    /// Whether a worker may still need this one's memory.
    fn is_needed(&mut self, worker: u16, stage: u64) -> bool {
        let said = self.ground.load(worker, LEAVING);
        said.is_some_and(|said| said < stage) && !self.ground.is_gone(worker)
    }

    /// Others may lose the words, and need to be told what their next home continues from.
    fn stay(&mut self) {
        if self.failure.is_some() {
            return;
        }
        if self.worker.want() == Want::Compute {
            self.look_if_changed();
        }
        while let Ok(Turn::Moved) = self.turn() {}
    }
}
