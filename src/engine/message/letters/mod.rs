//! Messages between two ranks that reach each other by messages: the sender offers one, the receiver answers where in
//! its window it is to come to lie, the sender writes it there and says so. Both windows are registered ones, so nothing
//! is copied.

mod road;

use std::task::Waker;
use std::time::Instant;

use super::execution::{Blocked, On};
use super::inner::Inner;
use super::note::Note;
use super::trouble::{Failure, Verdict};
use crate::engine::letter::{Header, Letter, UnderWay, Way, Windows};
use crate::engine::{EngineError, Extent, Liveness, Observers, Ticket, Trouble, reduce};
use crate::observe::Kind;
use road::Road;

#[derive(Debug)]
enum State {
    /// Of a send: not offered yet. Of a receive: not offered to.
    New,
    Offered,
    /// The receiver has said where to, or what it wants instead.
    Answered {
        place: Option<u64>,
        wanted: Header,
    },
    /// The sender writes: to where, bytes posted, pieces posted and completed, and whether the receiver has been told.
    Writing {
        to: Extent,
        posted: usize,
        pieces: u32,
        completed: u32,
        told: bool,
    },
    /// The sender has no such window.
    Failing,
    /// The sender offers this.
    Wanted(Header),
    /// The receiver has said where to.
    Taking(Header),
    /// The sender has written everything, or had no such window.
    Over(Header, bool),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Letters {
    under_way: Vec<UnderWay<State>>,
    /// What peers have offered that is not received yet.
    offers: Vec<(u32, u64, Header)>,
    pub windows: Windows,
}

impl Letters {
    pub fn take_up(&mut self, letter: Letter, ticket: Ticket, began: Instant) {
        let known = |(peer, number, _): &(u32, u64, Header)| (*peer, *number) == (letter.peer, letter.number);
        let offered = match letter.way {
            Way::Receive => self.offers.iter().position(known),
            Way::Send => None,
        };
        let state = offered.map_or(State::New, |at| State::Wanted(self.offers.swap_remove(at).2));
        self.under_way.push(UnderWay {
            letter,
            ticket,
            began,
            state,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    fn find(&mut self, way: Way, peer: u32, number: u64) -> Option<&mut State> {
        let this = |one: &&mut UnderWay<State>| {
            (one.letter.way, one.letter.peer, one.letter.number) == (way, peer, number)
        };
        self.under_way.iter_mut().find(this).map(|one| &mut one.state)
    }

    pub fn offered(&mut self, peer: u32, number: u64, header: Header) {
        match self.find(Way::Receive, peer, number) {
            Some(state) => *state = State::Wanted(header),
            None => self.offers.push((peer, number, header)),
        }
    }

    pub fn answered(&mut self, peer: u32, number: u64, place: Option<u64>, wanted: Header) {
        if let Some(state) = self.find(Way::Send, peer, number) {
            *state = State::Answered { place, wanted };
        }
    }

    pub fn written(&mut self, peer: u32, number: u64, well: bool) {
        if let Some(state) = self.find(Way::Receive, peer, number)
            && let State::Taking(header) = *state
        {
            *state = State::Over(header, well);
        }
    }

    /// A piece has arrived.
    pub fn completed(&mut self, peer: u32, number: u32) {
        let this = |one: &&mut UnderWay<State>| {
            (one.letter.way, one.letter.peer, one.letter.number as u32) == (Way::Send, peer, number)
        };
        if let Some(State::Writing { completed, .. }) =
            self.under_way.iter_mut().find(this).map(|one| &mut one.state)
        {
            *completed += 1;
        }
    }

    /// Ends everything with `error`; answers how many that were.
    pub fn end_all(&mut self, error: &EngineError, woken: &mut Vec<Waker>) -> usize {
        let count = self.under_way.len();
        for UnderWay { ticket, .. } in self.under_way.drain(..) {
            woken.extend(ticket.end(Some(error.clone())));
        }
        self.offers.clear();
        count
    }

    /// A send to this rank itself, and its receive.
    fn to_oneself(&self, rank: u32) -> Option<(usize, usize)> {
        let own = |way| {
            let all = self.under_way.iter().enumerate();
            all.filter(move |(_, one)| (one.letter.way, one.letter.peer) == (way, rank))
        };
        own(Way::Send).find_map(|(send, one)| {
            let same = own(Way::Receive).find(|(_, other)| other.letter.number == one.letter.number);
            same.map(|(receive, _)| (send, receive))
        })
    }
}

impl Inner {
    /// Moves messages on; says whether anything moved.
    pub fn move_letters(&mut self, observers: &Observers) -> bool {
        let mut progressed = false;
        while let Some((send, receive)) = self.letters.to_oneself(self.rank) {
            progressed = true;
            self.move_within(send, receive);
        }
        let mut index = 0;
        while index < self.letters.under_way.len() {
            let Letters {
                under_way, windows, ..
            } = &mut self.letters;
            let one = &mut under_way[index];
            let Some(link) = self.links[one.letter.peer as usize].as_deref_mut() else {
                // One to this rank itself, of which the other end has not come.
                index += 1;
                continue;
            };
            let mut road = Road {
                rank: self.rank,
                generation: self.generation,
                endpoint: &mut **self.endpoint.as_mut().expect(super::inner::LEFT),
                link,
                windows,
            };
            match road.advance(one, &mut progressed) {
                None => index += 1,
                Some(outcome) => {
                    progressed = true;
                    let one = self.letters.under_way.remove(index);
                    self.end_letter(one, outcome, observers);
                }
            }
        }
        progressed
    }

    fn end_letter(
        &mut self,
        one: UnderWay<State>,
        outcome: Result<usize, EngineError>,
        observers: &Observers,
    ) {
        let UnderWay { letter, ticket, .. } = one;
        let (way, peer, number) = (letter.way, letter.peer, letter.number as u32);
        // The memory is let go of before anybody hears of the end.
        drop(letter);
        let moved = *outcome.as_ref().unwrap_or(&0) as u64;
        observers.counters.operation();
        if way == Way::Receive && peer != self.rank {
            observers.counters.exchanged(moved);
        }
        observers.recorder.mark(Kind::End, number, 0, 0, peer, moved);
        self.woken.extend(ticket.end_with(outcome));
        self.finished += 1;
        self.finished_letters += 1;
    }

    /// A message to oneself.
    fn move_within(&mut self, send: usize, receive: usize) {
        let under_way = &mut self.letters.under_way;
        let (sent, wanted) = (
            under_way[send].letter.header(),
            under_way[receive].letter.header(),
        );
        let [mut outcome, mut other] = [Ok(sent.bytes as usize), Ok(sent.bytes as usize)];
        if Letter::fits(sent, wanted) {
            let (from, to) = (
                under_way[send].letter.extent.own(),
                under_way[receive].letter.extent.own(),
            );
            // SAFETY: both extents were checked for these lengths; their windows are borrowed apart by who called.
            unsafe { reduce::copy(to, from, sent.bytes as usize) };
        } else {
            outcome = Err(under_way[send].letter.unfit(self.rank, wanted));
            other = Err(under_way[receive].letter.unfit(self.rank, sent));
        }
        let (first, second) = (send.max(receive), send.min(receive));
        for index in [first, second] {
            let one = self.letters.under_way.remove(index);
            let end = if index == send { &outcome } else { &other };
            self.woken.extend(one.ticket.end_with(end.clone()));
            self.finished += 1;
            self.finished_letters += 1;
        }
    }

    /// Looks after deadlines and other ranks, for messages. Asked before each sleep.
    pub fn look_after_letters(&mut self, liveness: &dyn Liveness) -> Result<(), Failure> {
        if self.letters.is_empty() {
            return Ok(());
        }
        if let Some(told) = self.told.take() {
            return Err(self.judge(0, told));
        }
        let now = Instant::now();
        for index in 0..self.letters.under_way.len() {
            let peer = self.letters.under_way[index].letter.peer;
            let blocked = Blocked {
                task: 0,
                chunk: 0,
                peer,
                on: On::Begin,
            };
            // One look at the system's witnesses is enough for all that go to one rank.
            let mut before = self.letters.under_way[..index].iter();
            let gone = match before.any(|one| one.letter.peer == peer) {
                false => self.departed(&blocked, liveness, now),
                true => None,
            };
            let UnderWay {
                letter, began, state, ..
            } = &self.letters.under_way[index];
            let on = || {
                letter.waited(match (letter.way, state) {
                    (Way::Receive, State::New) => "it has not sent it yet",
                    (Way::Send, State::New) => "it has not taken in what was sent before",
                    (Way::Send, State::Offered) => "it has not received it yet",
                    _ => "it has come, and the message is on its way",
                })
            };
            let rank = self.rank;
            let failed = if let Some((peer, how)) = gone {
                let on = on().to_string();
                Some((EngineError::Gone { rank, peer, how, on }, Trouble::Gone(peer)))
            } else if began.elapsed() >= letter.timeout {
                let waited = began.elapsed();
                Some((
                    EngineError::Deadline {
                        rank,
                        waited,
                        on: on(),
                    },
                    Trouble::Deadline(peer),
                ))
            } else {
                None
            };
            if let Some((error, trouble)) = failed {
                let note = Some(Note::Trouble {
                    origin: rank,
                    trouble,
                });
                return Err(Box::new(Verdict { error, note }));
            }
        }
        Ok(())
    }

    /// The earliest deadline of a message.
    pub fn letters_deadline(&self) -> Option<Instant> {
        let under_way = self.letters.under_way.iter();
        under_way.map(|one| one.began + one.letter.timeout).min()
    }
}

impl super::MessageCore {
    /// Takes up one end of a message, whose end the ticket is to tell.
    ///
    /// # Errors
    /// An earlier failure.
    ///
    /// # Safety
    /// As [`crate::engine::Core::post`]; the window has keys, and the two ranks are connected.
    pub unsafe fn post(&self, letter: Letter, ticket: Ticket) -> Result<(), EngineError> {
        self.check()?;
        self.put_into_box(super::inner::Boxed::Letter(letter, ticket, Instant::now()))
    }

    /// Lets messages lie in a window.
    pub fn remember(&self, window: &std::sync::Arc<crate::engine::WindowMap>) {
        self.with(|inner| inner.letters.windows.remember(window));
    }
}
