//! The end, where memory goes with its owner: whoever is done stays until nobody needs its memory any more.
//!
//! The home finds out when all are done, since all have a way to it, and says so; it goes when all have seen that. Should it
//! die, the next one does.

use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

use super::core::Core;
use super::ground::Ground;
use super::memory::LEAVING;
use super::protocol::Want;

/// How long to sleep between looks.
const NAP: Duration = Duration::from_micros(500);

/// Said by who is done.
const DONE: u64 = 1;
/// Said by the home when all are done, and by who has seen that.
const ALL_DONE: u64 = 2;

impl<G: Ground> Core<G> {
    /// Waits for an operation's time at most.
    pub(super) fn leave(&mut self) {
        if !self.worker.can_lose() {
            return;
        }
        let until = Instant::now() + self.timeout;
        self.say(DONE);
        while !self.are_all_done() && Instant::now() < until {
            self.stay();
            std::thread::sleep(NAP);
        }
        self.say(ALL_DONE);
        while self.last_home() == Some(self.me) && !self.have_all_said(ALL_DONE) && Instant::now() < until {
            self.stay();
            std::thread::sleep(NAP);
        }
    }

    fn say(&self, stage: u64) {
        self.ground.own().words[LEAVING].store(stage, Release);
    }

    fn are_all_done(&mut self) -> bool {
        match self.last_home() {
            None => true,
            Some(home) if home == self.me => self.have_all_said(DONE),
            Some(home) => self.has_said(home, ALL_DONE),
        }
    }

    /// Whose words the others go by, or would if they looked; none if no worker's are left.
    fn last_home(&mut self) -> Option<u16> {
        let (workers, view) = (self.shape.workers(), self.worker.view());
        let homes = (0..workers).map(|next| (view % workers + next) % workers);
        homes.into_iter().find(|home| !self.ground.is_lost(*home))
    }

    fn have_all_said(&mut self, stage: u64) -> bool {
        (0..self.shape.workers()).all(|worker| self.has_said(worker, stage))
    }

    /// Whether a worker has come so far, or is not there any more.
    fn has_said(&mut self, worker: u16, stage: u64) -> bool {
        match self.ground.load(worker, LEAVING) {
            Some(said) => said >= stage,
            None => self.ground.has_left(worker),
        }
    }

    /// Others may lose the words, and need to be told what their next home continues from.
    fn stay(&mut self) {
        if self.failure.is_some() {
            return;
        }
        if self.worker.want() == Want::Compute {
            self.look_if_changed();
        }
        self.worker.look_again();
        let _ = self.poll();
    }
}
