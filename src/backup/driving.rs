//! Waiting for a step to end: spin, yield, sleep (invariant 7); before each sleep who is gone and who is stuck is looked
//! at, and whether there is still hope. Every wait has a deadline and names whom it waited for (invariant 6).

use std::time::Instant;

use super::BackupError;
use super::core::{Core, Turn};
use super::home::Entry;
use super::protocol::{Members, Words, scan};

impl Core {
    /// Takes turns until the caller's is next.
    pub(super) fn drive(&mut self) -> Result<(), BackupError> {
        let patience = self.group().patience();
        let (mut idle, mut nap, mut until) = (0u32, patience.nap, None);
        loop {
            match self.turn()? {
                Turn::Over => return Ok(()),
                Turn::Moved => {
                    idle = 0;
                    nap = patience.nap;
                    continue;
                }
                Turn::Idle => idle += 1,
            }
            if idle < patience.spins {
                std::hint::spin_loop();
                continue;
            }
            if idle < patience.spins + patience.yields {
                std::thread::yield_now();
                continue;
            }
            let until = *until.get_or_insert_with(|| Instant::now() + self.timeout);
            if self.look_around(until)? == Turn::Moved {
                continue;
            }
            let bell = self.group().bell().clone();
            let left = until.saturating_duration_since(Instant::now());
            let mut failed = None;
            bell.sleep(nap.min(left), || match self.turn() {
                Ok(turn) => turn != Turn::Idle,
                Err(error) => {
                    failed = Some(error);
                    true
                }
            });
            if let Some(error) = failed {
                return Err(error);
            }
            nap = (nap * 2).min(patience.nap * 8);
        }
    }

    /// Looks at the words with doubts, and gives up where there is no hope or no time.
    fn look_around(&mut self, until: Instant) -> Result<Turn, BackupError> {
        self.check_fork()?;
        let (mut gone, mut left) = (Members::default(), Vec::new());
        self.group().each_ended(&mut |rank, how| {
            gone.insert(rank as u16);
            left.push((rank, how));
        });
        let suspicion = self.suspicion(&gone);
        let turn = self.look(&suspicion);
        match turn {
            Turn::Idle => self.hope(until, &gone, &left).map(|()| turn),
            _ => Ok(turn),
        }
    }

    /// Fails if the step cannot end any more, or not in time.
    fn hope(&mut self, until: Instant, gone: &Members, left: &[(u32, String)]) -> Result<(), BackupError> {
        let late = Instant::now() >= until;
        let step = self.worker.step();
        let entry = Entry {
            memory: &self.memory,
            step,
        };
        let seal = entry.seal();
        let mut arrived = Members::default();
        let attempt = if seal.step() == step { seal.attempt() } else { 0 };
        let scanned = scan(&entry, &self.shape, step, attempt, |_, slot, _| {
            slot.worker()
                .into_iter()
                .for_each(|worker| arrived.insert(worker));
        });
        let Some(scanned) = scanned else {
            // It is over, and its result not to be had in time.
            return if late { Err(self.left_behind()) } else { Ok(()) };
        };
        let workers = 0..self.shape.workers();
        let possible = workers.filter(|worker| arrived.contains(*worker) || !gone.contains(*worker));
        let needed = self.shape.members();
        let when = match late {
            true => format!("within {:?}", self.timeout),
            false => "and the rest cannot come any more".to_owned(),
        };
        if seal.step() == step {
            if seal.is_committed() {
                return if late { Err(self.left_behind()) } else { Ok(()) };
            }
            // Another attempt needs members that live.
            let stuck = self.stuck(seal, &scanned.members);
            let alive = self.shape.workers() - gone.len();
            let hopeless = alive < needed && stuck.iter().any(|worker| gone.contains(worker));
            return match late || hopeless {
                true => Err(self.stuck_error(&stuck, when, left)),
                false => Ok(()),
            };
        }
        if !late && possible.count() >= needed as usize {
            return Ok(());
        }
        let missing = (0..self.shape.workers()).filter(|worker| !arrived.contains(*worker));
        let missing = missing.map(u32::from).collect::<Vec<_>>();
        Err(BackupError::Missing {
            rank: u32::from(self.me),
            step,
            arrived: u32::from(arrived.len()),
            needed: u32::from(needed),
            when,
            missing: names(&missing, left),
            ranks: missing,
        })
    }

    fn stuck_error(&self, stuck: &Members, when: String, left: &[(u32, String)]) -> BackupError {
        let ranks = stuck.iter().map(u32::from).collect::<Vec<_>>();
        BackupError::Stuck {
            rank: u32::from(self.me),
            step: self.worker.step(),
            when,
            names: names(&ranks, left),
            ranks,
        }
    }

    fn left_behind(&self) -> BackupError {
        BackupError::Behind {
            rank: u32::from(self.me),
            step: self.worker.step(),
            ring: self.shape.ring(),
            why: format!(
                "and no other worker's state stayed as it is for long enough to be copied within {:?}",
                self.timeout
            ),
        }
    }
}

/// `rank 1, rank 3 (died …)`.
fn names(ranks: &[u32], left: &[(u32, String)]) -> String {
    let name = |rank: &u32| match left.iter().find(|(gone, _)| gone == rank) {
        Some((_, how)) => format!("rank {rank} ({how})"),
        None => format!("rank {rank}"),
    };
    ranks.iter().map(name).collect::<Vec<_>>().join(", ")
}
