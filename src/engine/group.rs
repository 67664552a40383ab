//! The ranks of a communicator as one of them sees the others: boards, bells, liveness, and whom to tell of trouble.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::details::Details;
use super::mismatch::disagreement;
use super::{Board, EngineError, Signature, Trouble, Waited};
use crate::fabric::{Doorbell, Patience};
use crate::observe::{Counters, Recorder};

/// How long operations may still go on after a rank died that is not the one asked after.
pub(super) const AFTER_A_DEATH: Duration = Duration::from_millis(250);

/// Who is still there. Asked only by a rank that is about to sleep, never on the fast path.
pub trait Liveness: Send + Sync + Debug {
    /// How a rank's process went, if it is gone.
    fn gone(&self, rank: u32) -> Option<String>;

    /// A rank that is known to be dead (one that left in order, or gave up, is not), and how it went.
    fn dead(&self) -> Option<(u32, String)>;

    /// Whether a rank has ended, so that it reads and writes nothing any more. One that only gave up may still be at it.
    fn ended(&self, rank: u32) -> bool;

    /// All ranks that have ended, as in [`Liveness::ended`], and how they went.
    fn each_ended(&self, each: &mut dyn FnMut(u32, String));

    /// In which of its lives a rank is: how often it has come back after a death. (It may be dead again.)
    fn life(&self, rank: u32) -> u64 {
        let _ = rank;
        0
    }
}

/// Events and counters of one writer. A communicator has two: its caller's and its engine's.
#[derive(Debug)]
pub struct Observers {
    /// What happened.
    pub recorder: Recorder,
    /// How much.
    pub counters: Counters,
}

impl Default for Observers {
    fn default() -> Self {
        Self {
            recorder: Recorder::new(),
            counters: Counters::new(),
        }
    }
}

/// One rank's view of its communicator.
#[derive(Debug)]
pub struct Group {
    /// This rank.
    pub rank: u32,
    /// How many there are.
    pub ranks: u32,
    /// Written by whoever calls blocking small operations.
    pub caller: Observers,
    /// Written by whoever holds the engine's token.
    pub engine: Observers,
    /// There are more ranks than processors for all of them: the same on every rank.
    pub crowded: bool,
    pub(super) patience: Patience,
    pub(super) boards: Box<[Board]>,
    bells: Box<[Doorbell]>,
    liveness: Box<dyn Liveness>,
    /// When it was first seen that a rank had died.
    death: OnceLock<Instant>,
}

impl Group {
    /// `boards` and `bells` by rank, the own one writable; `patience` as the host's load asks for, `processors` as all ranks
    /// may run on between them.
    pub fn new(
        rank: u32,
        boards: Box<[Board]>,
        bells: Box<[Doorbell]>,
        patience: Patience,
        processors: usize,
        liveness: Box<dyn Liveness>,
    ) -> Self {
        assert!(boards.len() == bells.len() && (rank as usize) < boards.len());
        let ranks = boards.len() as u32;
        let (caller, engine) = (Observers::default(), Observers::default());
        Self {
            rank,
            ranks,
            caller,
            engine,
            crowded: boards.len() > processors,
            patience,
            boards,
            bells,
            liveness,
            death: OnceLock::new(),
        }
    }

    /// This rank's own board.
    #[inline]
    pub fn board(&self) -> &Board {
        &self.boards[self.rank as usize]
    }

    /// Wakes a rank, should it sleep.
    pub fn wake(&self, rank: u32) {
        self.ring(rank);
    }

    #[inline]
    pub(super) fn ring(&self, rank: u32) {
        self.bells[rank as usize].ring();
    }

    /// Wakes these ranks, should they sleep.
    #[inline]
    pub(super) fn ring_these(&self, ranks: impl Iterator<Item = u32>) {
        Doorbell::ring_all(ranks.map(|rank| &self.bells[rank as usize]));
    }

    /// Wakes every other rank, should it sleep.
    pub fn wake_others(&self) {
        self.ring_others();
    }

    /// How this rank waits.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Tells of every rank that has ended, so that it reads and writes nothing any more, and how it went. A system call or
    /// two.
    pub fn each_ended(&self, each: &mut dyn FnMut(u32, String)) {
        self.liveness.each_ended(each);
    }

    /// Wakes every other rank.
    #[inline]
    pub(super) fn ring_others(&self) {
        let bells = self.bells.iter().enumerate();
        let others = bells.filter(|(rank, _)| *rank != self.rank as usize);
        Doorbell::ring_all(others.map(|(_, bell)| bell));
    }

    /// This rank's own bell, on which it sleeps; ringing it wakes its own threads.
    pub fn bell(&self) -> &Doorbell {
        &self.bells[self.rank as usize]
    }

    /// Tells everybody that this rank gives up.
    pub fn give_up(&self, trouble: Trouble) {
        self.board().give_up(trouble);
        self.ring_others();
        self.bell().ring();
    }

    /// Whether waiting for `peer` in operation `sequence` is pointless, and why. `still` says whether it is still
    /// being waited for: looked at again after the peer was found to be gone, since its last act may have been to
    /// do what was awaited.
    pub(super) fn look(
        &self,
        sequence: u64,
        signature: Signature,
        details: Option<Details>,
        peer: u32,
        still: impl FnMut() -> bool,
        describe: impl Fn() -> Waited,
    ) -> Option<EngineError> {
        if self.disagrees(sequence, signature, details, peer) {
            return Some(self.fall_out(sequence));
        }
        self.look_after(sequence, peer, still, describe)
    }

    /// The same but for what was called: whether ranks have given up or are gone. `sequence` is 0 for what is no
    /// operation of all ranks.
    pub(super) fn look_after(
        &self,
        sequence: u64,
        peer: u32,
        mut still: impl FnMut() -> bool,
        describe: impl Fn() -> Waited,
    ) -> Option<EngineError> {
        let rank = self.rank;
        for (other, board) in self.boards.iter().enumerate() {
            let Some(trouble) = board.trouble() else { continue };
            if !still() {
                return None;
            }
            let other = other as u32;
            return Some(match trouble {
                Trouble::Mismatch(at) if sequence != 0 && at == sequence as u32 => self.mismatch(sequence),
                trouble => self.said(other, trouble),
            });
        }
        let board = &self.boards[peer as usize];
        let left = board.has_left();
        let how = self
            .liveness
            .gone(peer)
            .or_else(|| left.then(|| "has left the communicator".to_owned()));
        let (peer, how) = how.map(|how| (peer, how)).or_else(|| self.died())?;
        if !still() {
            return None;
        }
        self.give_up(Trouble::Gone(peer));
        Some(EngineError::Gone {
            rank,
            peer,
            how,
            on: describe().to_string(),
        })
    }

    /// That a rank has given up, if any says so.
    pub(super) fn heard(&self) -> Option<EngineError> {
        let mut boards = (0..).zip(&self.boards);
        boards.find_map(|(rank, board)| Some(self.said(rank, board.trouble()?)))
    }

    /// What a rank's trouble means here.
    fn said(&self, other: u32, trouble: Trouble) -> EngineError {
        let rank = self.rank;
        match trouble {
            Trouble::Aborted => EngineError::Aborted { rank, by: other },
            _ if other == rank => EngineError::Poisoned {
                rank,
                reason: self.told(rank, trouble),
            },
            _ => EngineError::PeerGaveUp {
                rank,
                peer: other,
                culprit: match trouble {
                    Trouble::Gone(culprit) | Trouble::Deadline(culprit) => Some(culprit),
                    Trouble::Mismatch(_) | Trouble::Aborted => None,
                },
                why: self.told(other, trouble),
            },
        }
    }

    /// A rank that died a while ago. Who waits for several asks after one of them, and those after others: all could
    /// be alive that are asked after, and wait for the dead one in the end. What it had done before may still be
    /// enough for this operation, but there will be no other.
    fn died(&self) -> Option<(u32, String)> {
        let dead = self.liveness.dead()?;
        let since = self.death.get_or_init(Instant::now);
        (since.elapsed() >= AFTER_A_DEATH).then_some(dead)
    }

    /// Who holds everything up while this rank waits for `peer`, as far as the boards tell, and why in words: a rank
    /// that has not come at all; else the end of the chain of those who wait for each other; else, where they wait
    /// in a circle, one outside of it that does not wait.
    pub(super) fn last_awaited(&self, sequence: u64, peer: u32) -> (u32, String) {
        if self.boards[peer as usize].announced(sequence) < sequence {
            return (peer, String::new());
        }
        let mut others = (0..self.ranks).filter(|rank| *rank != self.rank);
        if let Some(absent) = others
            .clone()
            .find(|r| self.boards[*r as usize].announced(sequence) < sequence)
        {
            return (
                absent,
                format!("; rank {absent} has not called this operation yet"),
            );
        }
        let mut chain = vec![peer];
        while let Some(next) = self.boards[chain[chain.len() - 1] as usize].waits_for() {
            if next == self.rank || next >= self.ranks || chain.contains(&next) {
                let idle = others.find(|rank| self.boards[*rank as usize].waits_for().is_none());
                return match idle.filter(|rank| *rank != peer) {
                    Some(rank) => (rank, format!("; all wait but rank {rank}")),
                    None => (peer, String::new()),
                };
            }
            chain.push(next);
        }
        let words = chain.windows(2).fold(String::new(), |words, pair| {
            words + &format!("; rank {} itself waits for rank {}", pair[0], pair[1])
        });
        (chain[chain.len() - 1], words)
    }

    /// Whether a rank can touch this rank's memory no more: it has fallen silent, left, or is dead.
    pub fn is_silent(&self, rank: u32) -> bool {
        self.boards[rank as usize].is_silent() || self.liveness.ended(rank)
    }

    fn told(&self, by: u32, trouble: Trouble) -> String {
        match trouble {
            Trouble::Gone(rank) => {
                let how = self.liveness.gone(rank).unwrap_or_else(|| "is gone".into());
                format!("rank {rank} {how}")
            }
            Trouble::Deadline(rank) => format!("it had waited for rank {rank} until its deadline"),
            Trouble::Mismatch(sequence) => format!("the ranks disagree about operation {sequence}"),
            Trouble::Aborted => format!("rank {by} aborted"),
        }
    }

    /// Whether `peer` has announced something else as its operation `sequence`. (Where the signatures are the same,
    /// either both ranks have announced details or neither has: the signature says which plan, or none.)
    #[inline]
    pub(super) fn disagrees(
        &self,
        sequence: u64,
        signature: Signature,
        details: Option<Details>,
        peer: u32,
    ) -> bool {
        self.boards[peer as usize]
            .call(sequence)
            .is_some_and(|(theirs, place)| {
                theirs != signature || details.is_some_and(|details| place != details)
            })
    }

    /// What comes of a disagreement about operation `sequence`, of which all are told. Where a rank has already said that
    /// all is over, it is that: who has heard of it may well call something else than those who have not.
    #[cold]
    pub(super) fn fall_out(&self, sequence: u64) -> EngineError {
        let over = |trouble: &Trouble| matches!(trouble, Trouble::Aborted | Trouble::Gone(_));
        let mut boards = (0..).zip(&self.boards);
        if let Some((rank, trouble)) =
            boards.find_map(|(rank, board)| Some((rank, board.trouble().filter(over)?)))
        {
            return self.said(rank, trouble);
        }
        self.give_up(Trouble::Mismatch(sequence as u32));
        self.mismatch(sequence)
    }

    /// Who called what as operation `sequence`; waits up to a second for those who have not called yet.
    #[cold]
    pub(super) fn mismatch(&self, sequence: u64) -> EngineError {
        let until = Instant::now() + Duration::from_secs(1);
        let missing = || {
            self.boards
                .iter()
                .any(|board| board.announced(sequence) < sequence)
        };
        while missing() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let found = self
            .boards
            .iter()
            .map(|board| board.call(sequence))
            .collect::<Vec<_>>();
        disagreement(self.rank, sequence, (0..).zip(found))
    }
}
