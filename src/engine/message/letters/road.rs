//! One message, moved on as far as it goes.

use super::State;
use crate::engine::EngineError;
use crate::engine::letter::{Letter, UnderWay, Way, Windows};
use crate::engine::message::link::{Class, Link, Tag};
use crate::engine::message::note::Note;
use crate::fabric::{Endpoint, Operation};

/// Bytes of one write.
const PIECE: usize = 1 << 20;

/// What moving a message on needs.
pub(super) struct Road<'a> {
    pub rank: u32,
    pub generation: u32,
    pub endpoint: &'a mut dyn Endpoint,
    pub link: &'a mut Link,
    pub windows: &'a Windows,
}

type Moved = Option<Result<usize, EngineError>>;

impl Road<'_> {
    fn say(&mut self, note: Note) -> bool {
        self.link
            .send(self.endpoint, Class::Ordinary, note, self.generation)
    }

    /// One step, if it can be taken; the end, once it has come.
    pub fn advance(&mut self, one: &mut UnderWay<State>, progressed: &mut bool) -> Moved {
        let UnderWay { letter, state, .. } = one;
        let number = letter.number;
        let own = letter.header();
        match state {
            State::New if letter.way == Way::Send => {
                if self.say(Note::Offer { number, header: own }) {
                    *state = State::Offered;
                    *progressed = true;
                }
            }
            State::New | State::Offered | State::Taking(_) => {}
            State::Answered { place: None, wanted } => return Some(Err(letter.unfit(self.rank, *wanted))),
            State::Answered {
                place: Some(place), ..
            } => {
                *state = match self.windows.find(*place, letter.bytes) {
                    Some(to) => State::Writing {
                        to,
                        posted: 0,
                        pieces: 0,
                        completed: 0,
                        told: false,
                    },
                    None => State::Failing,
                };
                *progressed = true;
            }
            State::Failing => {
                if self.say(Note::Written { number, well: false }) {
                    return Some(Err(letter.without_window(self.rank, self.rank)));
                }
            }
            State::Writing { .. } => return self.write(letter, state, progressed),
            State::Wanted(sent) => {
                let sent = *sent;
                let fits = Letter::fits(sent, own);
                let place = fits.then(|| letter.extent.place());
                if self.say(Note::Answer {
                    number,
                    place,
                    header: own,
                }) {
                    *progressed = true;
                    if !fits {
                        return Some(Err(letter.unfit(self.rank, sent)));
                    }
                    *state = State::Taking(sent);
                }
            }
            State::Over(sent, true) => return Some(Ok(sent.bytes as usize)),
            State::Over(_, false) => return Some(Err(letter.without_window(self.rank, letter.peer))),
        }
        None
    }

    fn write(&mut self, letter: &Letter, state: &mut State, progressed: &mut bool) -> Moved {
        let State::Writing {
            to,
            posted,
            pieces,
            completed,
            told,
        } = state
        else {
            return None;
        };
        while *posted < letter.bytes {
            let len = PIECE.min(letter.bytes - *posted);
            let operation = Operation::Write {
                local: letter.extent.local(*posted, len),
                remote: to.remote(letter.peer, *posted),
                immediate: None,
            };
            if !self
                .link
                .write(self.endpoint, Tag::Letter(letter.number as u32), operation)
            {
                return None;
            }
            *posted += len;
            *pieces += 1;
            *progressed = true;
        }
        // On the same queue pair as the writes, and after them.
        if !*told {
            *told = self.say(Note::Written {
                number: letter.number,
                well: true,
            });
            *progressed |= *told;
        }
        (*told && completed == pieces).then_some(Ok(letter.bytes))
    }
}
