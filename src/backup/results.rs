//! Results: shown to the others with whose gradients are in them, and copied from one who holds them.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::catching_up::whole;
use super::core::{Core, Progress};
use super::ground::Ground;
use super::memory::{MARK, STATE};
use super::protocol::{Did, Members, Tag, scan};
use super::racing;

impl<G: Ground> Core<G> {
    /// The members of an attempt, unless the words are a later step's or gone.
    pub(super) fn members_of(&mut self, tag: Tag) -> Option<Members> {
        let words = self.ground.words(tag.view(), tag.step()).ok()?;
        let scanned = scan(&words, &self.shape, tag.step(), tag.attempt(), |_, _, _| {})?;
        scanned.complete.then_some(scanned.members)
    }

    /// What lies where this result is going to is about to be written over: nobody may count on it, nor this worker itself
    /// should the words be lost before the new one is whole.
    pub(super) fn hide_result(&mut self, tag: Tag) {
        let marked = self.worker.held();
        self.worker.writes_over(tag);
        let own = self.ground.own();
        if self.worker.held() != marked {
            own.words[MARK].store(self.worker.held().0, Release);
        }
        own.words[self.ground.places().result_tag(tag)].store(0, Relaxed);
        racing::before_writing();
    }

    /// Shows the result that lies in its place, with its members, and marks it.
    pub(super) fn show_result(&self, tag: Tag) {
        let (places, own) = (self.ground.places(), self.ground.own());
        for index in 0..places.set {
            own.words[places.result_set(tag, index)].store(self.members.word(index), Relaxed);
        }
        own.words[places.result_tag(tag)].store(tag.0, Release);
        own.words[MARK].store(tag.0, Release);
    }

    /// Copies a result from one who holds it, and holds it still after the copy.
    ///
    /// The root has it first, and all members before it is committed. Others are asked, too, but none to whom there is no way
    /// yet, unless the root is gone or has nothing to tell for long.
    pub(super) fn pull(&mut self, tag: Tag) -> Progress {
        let (first, me) = (self.root_of(tag), self.me);
        let mut over = false;
        if first != me {
            match self.copy_result(tag, first) {
                Did::Done => return Progress::Did(Did::Done),
                did => over = did == Did::Gone,
            }
        }
        let any = over || self.pulls_long(tag) || self.ground.has_left(first);
        for worker in (0..self.shape.workers()).filter(|worker| *worker != first && *worker != me) {
            if !any && !self.ground.has_way(worker) {
                continue;
            }
            match self.copy_result(tag, worker) {
                Did::Done => return Progress::Did(Did::Done),
                did => over |= did == Did::Gone,
            }
        }
        // Whoever has committed it had it, and has a later one in its place by now.
        match over {
            true => Progress::Did(Did::Gone),
            false if any && self.is_unkept(tag) => Progress::Did(Did::Unkept),
            false => Progress::Waits,
        }
    }

    /// Whether a result that was decided is nobody's any more of all who live, and one has the state that it has led to: those
    /// who had it have died, or come back. (Members look for it before it is decided, and find out by the words that it is.)
    fn is_unkept(&mut self, tag: Tag) -> bool {
        let places = *self.ground.places();
        let may = self.worker.can_lose() && self.worker.root_of(tag).is_none();
        if !may || places.state == 0 {
            return false;
        }
        // One that is stopped, and to whom there is no way, is waited for no longer than for anything else.
        let (long, mut further) = (self.pulling.now(tag) >= 2 * self.suspicion, false);
        for worker in (0..self.shape.workers()).filter(|worker| *worker != self.me) {
            // In this order: whoever shows the state by then had the result before that, if it ever had.
            let state = self.ground.load(worker, STATE);
            match (state, self.ground.load(worker, places.result_tag(tag))) {
                (Some(_), Some(held)) if held == tag.0 => return false,
                (Some(word), Some(_)) => {
                    further |= whole(word).is_some_and(|state| state.step() >= tag.step());
                }
                _ if long || self.ground.has_left(worker) => {}
                _ => return false,
            }
        }
        further
    }

    /// Whether it is being pulled for half as long as makes a doubt.
    fn pulls_long(&mut self, tag: Tag) -> bool {
        self.worker.can_lose() && self.pulling.now(tag) >= self.suspicion / 2
    }

    /// Of the attempt's tree, as far as this worker knows it or can find out.
    fn root_of(&mut self, tag: Tag) -> u16 {
        let known = self.worker.root_of(tag);
        let found = known.or_else(|| match self.worker.can_lose() {
            true => self.members_of(tag)?.at(0),
            false => None,
        });
        found.unwrap_or(self.worker.root())
    }

    /// The same from one worker, or whoever else holds it: that one may have caught up with state alone.
    pub(super) fn adopt(&mut self, tag: Tag, from: u16) -> Progress {
        if self.copy_result(tag, from) == Did::Done {
            return Progress::Did(Did::Done);
        }
        match self.pull(tag) {
            Progress::Did(did @ (Did::Done | Did::Unkept)) => Progress::Did(did),
            Progress::Waits if self.is_unkept(tag) => Progress::Did(Did::Unkept),
            _ => Progress::Did(Did::Gone),
        }
    }

    /// [`Did::Done`]; [`Did::Gone`] if the worker has a later result there, [`Did::Unknown`] if it has not had it yet or is
    /// gone itself.
    fn copy_result(&mut self, tag: Tag, from: u16) -> Did {
        let places = *self.ground.places();
        let theirs = places.result_tag(tag);
        match self.ground.load(from, theirs).map(Tag) {
            Some(found) if found == tag => {}
            Some(found) if found.step() > tag.step() => return Did::Gone,
            _ => return Did::Unknown,
        }
        self.hide_result(tag);
        self.engine.caller().counters.exchanged(places.bytes as u64);
        let at = places.result(tag);
        let mut done = 0;
        while done < places.bytes {
            let now = LARGEST.min(places.bytes - done);
            if self.ground.fetch(from, at + done, at + done, now).is_none() {
                return Did::Unknown;
            }
            done += now;
        }
        for index in 0..places.set {
            let Some(word) = self.ground.load(from, places.result_set(tag, index)) else {
                return Did::Unknown;
            };
            self.members.set_word(index, word);
        }
        racing::after();
        match self.ground.load(from, theirs) {
            Some(word) if word == tag.0 => {
                self.show_result(tag);
                Did::Done
            }
            Some(_) => Did::Gone,
            None => Did::Unknown,
        }
    }

    /// Whether every member has marked it.
    pub(super) fn gather(&mut self, tag: Tag) -> Progress {
        let members = self.members.clone();
        let all = members.iter().all(|member| self.has_marked(member, tag));
        match all {
            true => Progress::Did(Did::Done),
            false => Progress::Waits,
        }
    }

    pub(super) fn has_marked(&mut self, worker: u16, tag: Tag) -> bool {
        self.ground.load(worker, MARK) == Some(tag.0)
    }

    /// The greatest mark of all that are not gone, and who has it.
    ///
    /// A result that anybody can have applied was marked by all N members before it was committed. So it is enough to have
    /// read all marks but b, of the dead and of those that cannot be reached now: one of N among M - b = N others is among them, as
    /// N > b. Where the dead come back their marks are not what they were, and everybody who lives is waited for.
    pub(super) fn survey(&mut self) -> Progress {
        let mut greatest = (self.worker.held(), self.me);
        let (mut unread, mut living) = (0, false);
        for worker in (0..self.shape.workers()).filter(|worker| *worker != self.me) {
            match self.ground.load(worker, MARK) {
                Some(mark) => greatest = greatest.max((Tag(mark), worker)),
                None => {
                    unread += 1;
                    living |= !self.ground.has_left(worker);
                }
            }
        }
        let spare = self.shape.workers() - self.shape.members();
        if living && (self.returns || unread > spare) {
            return Progress::Waits;
        }
        Progress::Did(Did::Marks(greatest.0, greatest.1))
    }
}

/// Bytes that are fetched by one operation at most.
pub(super) const LARGEST: usize = 8 << 20;
