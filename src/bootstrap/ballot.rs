//! How the survivors of a job on one host agree on who they are, and on whether they have come together again: on a
//! shared page, by compare-and-swap alone, so that it works whoever dies, and whenever.
//!
//! Attempts are numbered from 0. In each of them every rank has a word, which says that it has come, is out, is in or
//! is ready. Whoever sees a rank dead writes it out; once each has come or is out, whoever sees that makes all who have
//! come final: they are in. A word that is final is never changed back, so that everybody reads the same survivors.
//! They then build what they want to have together, and say so. One more word is the outcome: whoever sees all ready
//! writes that it is made; whoever sees one of them dead who was not ready, that it is to be tried again. The first
//! one counts, for all. Nobody here waits: see `survivors`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Rank;

/// Where a rank is in an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Came = 1,
    Out = 2,
    In = 3,
    Ready = 4,
}

/// A rank's word, seen from one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has not come to it.
    Before,
    At(State),
    /// It has gone on to a later one.
    After,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All were ready.
    Made,
    /// Somebody died before he was.
    Again,
    /// This rank, which lives, could not, or was waited for in vain.
    Failed(Rank),
}

/// Why there is no attempt to take part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// An attempt has ended well.
    Over,
    /// The others have seen this rank dead.
    Excluded,
}

fn word(attempt: u32, state: State) -> u64 {
    (u64::from(attempt) + 1) << 8 | state as u64
}

fn standing(word: u64, attempt: u32) -> Standing {
    let at = word >> 8;
    if at <= u64::from(attempt) {
        return Standing::Before;
    }
    if at > u64::from(attempt) + 1 {
        return Standing::After;
    }
    Standing::At(match word & 0xff {
        1 => State::Came,
        2 => State::Out,
        3 => State::In,
        _ => State::Ready,
    })
}

/// The outcome's word: the attempt that is being made, who is to blame for the end of the one before (or nobody, 0),
/// and whether it has ended well.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    attempt: u32,
    blamed: Option<Rank>,
    made: bool,
}

impl Outcome {
    fn pack(self) -> u64 {
        let blamed = self.blamed.map_or(0, |rank| u64::from(rank) + 1);
        u64::from(self.attempt) << 32 | blamed << 8 | u64::from(self.made)
    }

    fn unpack(word: u64) -> Self {
        Self {
            attempt: (word >> 32) as u32,
            blamed: (word >> 8 & 0xff_ffff).checked_sub(1).map(|rank| rank as Rank),
            made: word & 1 != 0,
        }
    }
}

/// One rank's view of the page, which starts as zeroes.
pub(super) struct Ballot<'page> {
    pub(super) own: Rank,
    /// One for each rank.
    pub(super) members: &'page [AtomicU64],
    pub(super) outcome: &'page AtomicU64,
}

impl Ballot<'_> {
    /// Comes to the attempt that is being made, and says which.
    pub(super) fn come(&self) -> Result<u32, Closed> {
        let own = &self.members[self.own as usize];
        loop {
            let outcome = Outcome::unpack(self.outcome.load(Ordering::Acquire));
            let seen = own.load(Ordering::Acquire);
            match standing(seen, outcome.attempt) {
                _ if outcome.made => return Err(Closed::Over),
                Standing::At(State::Out) => return Err(Closed::Excluded),
                Standing::At(_) => return Ok(outcome.attempt),
                // Nobody can end this attempt before this rank has come to it or is out.
                Standing::Before => {
                    let came = word(outcome.attempt, State::Came);
                    let _ = own.compare_exchange(seen, came, Ordering::AcqRel, Ordering::Acquire);
                }
                // It went on between the two looks.
                Standing::After => {}
            }
        }
    }

    /// Writes out who is gone, unless it is final that they are in.
    pub(super) fn exclude(&self, attempt: u32, gone: impl IntoIterator<Item = Rank>) {
        for rank in gone {
            let member = &self.members[rank as usize];
            loop {
                let seen = member.load(Ordering::Acquire);
                if !matches!(
                    standing(seen, attempt),
                    Standing::Before | Standing::At(State::Came)
                ) {
                    break;
                }
                let out = word(attempt, State::Out);
                let _ = member.compare_exchange(seen, out, Ordering::AcqRel, Ordering::Acquire);
            }
        }
    }

    /// The survivors, once each rank has come or is out; else those that are waited for. Nothing, if the attempt is
    /// over by now.
    pub(super) fn survivors(&self, attempt: u32) -> Option<Result<Vec<Rank>, Vec<Rank>>> {
        let at = |state| move |word: u64| standing(word, attempt) == state;
        let missing = self.those(at(Standing::Before));
        if !missing.is_empty() {
            return Some(Err(missing));
        }
        for member in self.members {
            let (came, is_in) = (word(attempt, State::Came), word(attempt, State::In));
            let _ = member.compare_exchange(came, is_in, Ordering::AcqRel, Ordering::Acquire);
        }
        // One look, of which all follows: who goes on to a later attempt meanwhile must not be missed.
        let words = self.members.iter().map(|member| member.load(Ordering::Acquire));
        let standings: Vec<Standing> = words.map(|word| standing(word, attempt)).collect();
        if standings.contains(&Standing::After) {
            return None;
        }
        let is_in = |standing: &Standing| matches!(standing, Standing::At(State::In | State::Ready));
        let survivors = (0..).zip(&standings).filter(|(_, standing)| is_in(standing));
        Some(Ok(survivors.map(|(rank, _)| rank).collect()))
    }

    fn those(&self, are: impl Fn(u64) -> bool) -> Vec<Rank> {
        let members = (0..).zip(self.members);
        let found = members.filter(|(_, member)| are(member.load(Ordering::Acquire)));
        found.map(|(rank, _)| rank).collect()
    }

    /// This rank, which is in, has all that it needs.
    pub(super) fn be_ready(&self, attempt: u32) {
        let (is_in, ready) = (word(attempt, State::In), word(attempt, State::Ready));
        let own = &self.members[self.own as usize];
        let _ = own.compare_exchange(is_in, ready, Ordering::AcqRel, Ordering::Acquire);
    }

    /// How the attempt has ended, if it has by now, or can be seen to.
    pub(super) fn end(&self, attempt: u32, survivors: &[Rank], gone: &[Rank]) -> Option<End> {
        loop {
            let seen = self.outcome.load(Ordering::Acquire);
            let outcome = Outcome::unpack(seen);
            if outcome.attempt > attempt {
                return Some(outcome.blamed.map_or(End::Again, End::Failed));
            }
            if outcome.made {
                return Some(End::Made);
            }
            let late = self.late(attempt, survivors);
            let next = if late.is_empty() {
                Outcome {
                    made: true,
                    ..outcome
                }
            } else if late.iter().any(|rank| gone.contains(rank)) {
                Outcome {
                    attempt: attempt + 1,
                    blamed: None,
                    made: false,
                }
            } else {
                return None;
            };
            let _ = self
                .outcome
                .compare_exchange(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// The survivors that are not ready.
    pub(super) fn late(&self, attempt: u32, survivors: &[Rank]) -> Vec<Rank> {
        let ready = |rank: &Rank| {
            let word = self.members[*rank as usize].load(Ordering::Acquire);
            matches!(
                standing(word, attempt),
                Standing::At(State::Ready) | Standing::After
            )
        };
        survivors.iter().copied().filter(|rank| !ready(rank)).collect()
    }

    /// Ends the attempt because of a rank, unless it has ended; says how it did.
    pub(super) fn fail(&self, attempt: u32, blamed: Rank) -> End {
        self.close(attempt, Some(blamed))
    }

    /// This rank, which is not ready, cannot be any more, because of one that is dead: also if that one was ready.
    /// Ends the attempt, unless it has ended; says how it did.
    pub(super) fn begin_anew(&self, attempt: u32) -> End {
        self.close(attempt, None)
    }

    fn close(&self, attempt: u32, blamed: Option<Rank>) -> End {
        loop {
            let seen = self.outcome.load(Ordering::Acquire);
            let outcome = Outcome::unpack(seen);
            if outcome.attempt > attempt {
                return outcome.blamed.map_or(End::Again, End::Failed);
            }
            if outcome.made {
                return End::Made;
            }
            let next = Outcome {
                attempt: attempt + 1,
                blamed,
                made: false,
            };
            let _ = self
                .outcome
                .compare_exchange(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Whether nothing that is built in this attempt can be kept any more.
    pub(super) fn is_void(&self, attempt: u32) -> bool {
        Outcome::unpack(self.outcome.load(Ordering::Acquire)).attempt > attempt
    }
}

#[cfg(test)]
mod tests;
