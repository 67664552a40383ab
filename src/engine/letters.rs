//! Messages between two ranks that see each other's memory: the sender writes on its board where the message lies, the
//! receiver copies it from there and answers on its own. Lines for both are kept for each other rank, used in turn.

use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use super::board::{LETTERS, Post};
use super::letter::{Header, Letter, UnderWay, Way, Windows};
use super::{EngineError, Extent, Group, Ticket, Trouble, reduce};
use crate::observe::{Kind, NONE};

/// Bytes that one message moves before others get their turn.
const TURN: usize = 1 << 20;

#[derive(Debug, Default)]
enum State {
    /// The sender has not shown it: the line is that of an earlier one. The receiver has not seen it.
    #[default]
    New,
    /// The sender has shown it.
    Shown,
    /// The receiver is copying: from where, how many bytes, and how many of them are here.
    Copying(Extent, usize, usize),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Letters {
    under_way: Vec<UnderWay<State>>,
    /// The board says whom this rank waits for.
    waits: bool,
    pub windows: Windows,
}

impl Letters {
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    pub fn take_up(&mut self, letter: Letter, ticket: Ticket) {
        self.under_way.push(UnderWay {
            letter,
            ticket,
            began: Instant::now(),
            state: State::New,
        });
    }

    /// Moves on what can move; says whether anything did.
    pub fn round(&mut self, group: &Group, woken: &mut Vec<Waker>) -> bool {
        let Self {
            under_way,
            waits,
            windows,
        } = self;
        let mut progressed = false;
        let mut index = 0;
        while index < under_way.len() {
            let has_line = has_line(under_way, index);
            let one = &mut under_way[index];
            let outcome = match one.letter.way {
                Way::Send if !has_line => None,
                Way::Send => send(one, group, &mut progressed),
                Way::Receive => receive(one, group, windows, &mut progressed),
            };
            let Some(outcome) = outcome else {
                index += 1;
                continue;
            };
            progressed = true;
            if std::mem::take(waits) {
                // Else a later deadline would be blamed on whom this rank waited for long ago.
                group.board().wait_for(None);
            }
            let UnderWay { letter, ticket, .. } = under_way.remove(index);
            let (peer, number) = (letter.peer, letter.number as u32);
            // The memory is let go of before anybody hears of the end.
            drop(letter);
            group.engine.counters.operation();
            let moved = *outcome.as_ref().unwrap_or(&0);
            group
                .engine
                .recorder
                .mark(Kind::End, number, 0, 0, peer, moved as u64);
            woken.extend(ticket.end_with(outcome));
            group.bell().ring();
        }
        progressed
    }

    /// Whether waiting on makes sense. Asked before sleeping.
    pub fn look(&mut self, group: &Group) -> Result<(), EngineError> {
        self.waits |= !self.under_way.is_empty();
        for UnderWay { letter, began, .. } in &self.under_way {
            let peer = letter.peer;
            let still = || !is_answered(letter, group);
            group.board().wait_for(Some(peer));
            let describe = || {
                letter.waited(match letter.way {
                    Way::Send => "it has not received it yet",
                    Way::Receive => "it has not sent it yet",
                })
            };
            if let Some(error) = group.look_after(0, peer, still, describe) {
                return Err(error);
            }
            let waited = began.elapsed();
            if waited >= letter.timeout && still() {
                group.give_up(Trouble::Deadline(peer));
                return Err(EngineError::Deadline {
                    rank: group.rank,
                    waited,
                    on: describe(),
                });
            }
        }
        Ok(())
    }

    /// Ends everything with `error`.
    pub fn end_all(&mut self, error: &EngineError, woken: &mut Vec<Waker>) {
        for UnderWay { ticket, .. } in self.under_way.drain(..) {
            woken.extend(ticket.end(Some(error.clone())));
        }
    }
}

/// Whether what a message waits for has come.
fn is_answered(letter: &Letter, group: &Group) -> bool {
    let theirs = &group.boards[letter.peer as usize];
    let number = match letter.way {
        Way::Send => {
            theirs
                .answer(group.rank, letter.number)
                .number
                .load(Ordering::Acquire)
                >> 1
        }
        Way::Receive => theirs
            .letter(group.rank, letter.number)
            .number
            .load(Ordering::Acquire),
    };
    number == letter.number
}

/// Whether the line of a message to be sent is free: the one that had it before has ended here. (That it has been answered
/// is not enough: the next answer takes the line of that answer, which this rank may not have looked at.)
fn has_line(under_way: &[UnderWay<State>], index: usize) -> bool {
    let Letter { peer, number, .. } = under_way[index].letter;
    // Messages to one rank are in the order of their numbers.
    !under_way[..index].iter().any(|UnderWay { letter, .. }| {
        letter.way == Way::Send && letter.peer == peer && letter.number + LETTERS <= number
    })
}

type Moved = Option<Result<usize, EngineError>>;

fn send(one: &mut UnderWay<State>, group: &Group, progressed: &mut bool) -> Moved {
    let UnderWay { letter, state, .. } = one;
    let (peer, number) = (letter.peer, letter.number);
    let theirs = &group.boards[peer as usize];
    if matches!(state, State::New) {
        let own = letter.header();
        let post = group.board().letter(peer, number);
        write(post, number, letter.extent.place(), own);
        group.ring(peer);
        *state = State::Shown;
        *progressed = true;
    }
    let answer = theirs.answer(group.rank, number);
    let word = answer.number.load(Ordering::Acquire);
    if word >> 1 != number {
        return None;
    }
    if word & 1 == 0 {
        return Some(Ok(letter.bytes));
    }
    let theirs = read(answer);
    Some(Err(match Letter::fits(letter.header(), theirs) {
        false => letter.unfit(group.rank, theirs),
        true => letter.without_window(group.rank, peer),
    }))
}

fn receive(one: &mut UnderWay<State>, group: &Group, windows: &Windows, progressed: &mut bool) -> Moved {
    let UnderWay { letter, state, .. } = one;
    let (peer, number) = (letter.peer, letter.number);
    if let State::New = state {
        let post = group.boards[peer as usize].letter(group.rank, number);
        if post.number.load(Ordering::Acquire) != number {
            return None;
        }
        let (theirs, place) = (read(post), post.place.load(Ordering::Relaxed));
        let bytes = theirs.bytes as usize;
        let source = windows.find(place, bytes);
        let refusal = match (Letter::fits(theirs, letter.header()), source) {
            (false, _) => Err(letter.unfit(group.rank, theirs)),
            (true, None) => Err(letter.without_window(group.rank, group.rank)),
            (true, Some(source)) => Ok(source),
        };
        match refusal {
            Ok(source) => *state = State::Copying(source, bytes, 0),
            Err(error) => {
                write(
                    group.board().answer(peer, number),
                    number << 1 | 1,
                    0,
                    letter.header(),
                );
                group.ring(peer);
                return Some(Err(error));
            }
        }
    }
    let State::Copying(source, bytes, done) = state else {
        return None;
    };
    let turn = TURN.min(*bytes - *done);
    // SAFETY: the extents were checked for this length; the sender keeps its memory as it is until this rank has
    // answered, and nobody else has this rank's until the message has ended. (A message to oneself may not overlap: its
    // windows are borrowed apart.)
    unsafe {
        reduce::copy(
            letter.extent.of(group.rank).add(*done),
            source.of(peer).add(*done),
            turn,
        );
    }
    *done += turn;
    *progressed = true;
    if *done < *bytes {
        return None;
    }
    let bytes = *bytes;
    if peer != group.rank {
        group.engine.counters.exchanged(bytes as u64);
    }
    let from = if peer == group.rank { NONE } else { peer };
    group
        .engine
        .recorder
        .mark(Kind::Pull, number as u32, 0, 0, from, bytes as u64);
    write(
        group.board().answer(peer, number),
        number << 1,
        0,
        letter.header(),
    );
    group.ring(peer);
    Some(Ok(bytes))
}

/// The number comes last: who sees it sees the rest.
fn write(line: &Post, number: u64, place: u64, header: Header) {
    line.place.store(place, Ordering::Relaxed);
    line.bytes.store(header.bytes, Ordering::Relaxed);
    line.label.store(header.label(), Ordering::Relaxed);
    line.number.store(number, Ordering::Release);
}

fn read(line: &Post) -> Header {
    let bytes = line.bytes.load(Ordering::Relaxed);
    Header::labelled(bytes, line.label.load(Ordering::Relaxed))
}
