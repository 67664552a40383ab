//! Waiting for a step to end: spin, yield, sleep (invariant 7); before each sleep who is gone and who is stuck is looked
//! at, and whether there is still hope. Every wait has a deadline and names whom it waited for (invariant 6).

use std::time::Instant;

use super::BackupError;
use super::core::{Core, Turn};
use super::doubting::Seen;
use super::ground::Ground;
use super::protocol::{Members, Want};

impl<G: Ground> Core<G> {
    /// Takes turns until the caller's is next.
    pub(super) fn drive(&mut self) -> Result<(), BackupError> {
        let patience = self.ground.patience();
        let (mut idle, mut nap, mut until) = (0u32, patience.nap, None);
        loop {
            let circles = self.circles();
            let turn = self.turn()?;
            if self.caught && self.worker.has_state() {
                // What follows is the next step's.
                return Ok(());
            }
            match turn {
                Turn::Over if self.is_over() => return Ok(()),
                Turn::Over => self.worker.arrive(),
                Turn::Moved if circles && self.circles() => idle += 1,
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
            if idle == patience.spins {
                // Whoever was to seal takes long.
                self.insist();
            }
            if idle < patience.spins + patience.yields {
                std::thread::yield_now();
                continue;
            }
            if turn == Turn::Idle {
                self.worker.look_again();
            }
            let until = *until.get_or_insert_with(|| Instant::now() + self.timeout);
            if self.look_around(until)? == Turn::Moved {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            let mut failed = None;
            G::sleep(self, nap.min(left), |core| match core.turn() {
                Ok(turn) => turn != Turn::Idle || core.caught,
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

    /// It may go round in a circle until others do something.
    fn circles(&self) -> bool {
        self.worker.recovers() || self.worker.waits_to_be_told()
    }

    /// Whether the step that was begun has a result, or was jumped over. Where its home was lost it begins again at
    /// the next one, with the gradient that is complete.
    fn is_over(&self) -> bool {
        let begins_again = self.worker.want() == Want::Compute && self.worker.step() == self.begun;
        !(begins_again && self.ready)
    }

    /// Looks at the words with doubts, and gives up where there is no hope or no time.
    fn look_around(&mut self, until: Instant) -> Result<Turn, BackupError> {
        self.check_fork()?;
        let (mut gone, mut left) = (Members::default(), Vec::new());
        self.ground.each_ended(&mut |rank, how| {
            gone.insert(rank as u16);
            left.push((rank, how));
        });
        let suspicion = self.suspicion(&gone);
        let turn = self.look(&suspicion);
        match turn {
            // Who may come back is hoped for until the deadline.
            Turn::Idle if self.returns => self.hope(until, &Members::default(), &left).map(|()| turn),
            Turn::Idle => self.hope(until, &gone, &left).map(|()| turn),
            _ => Ok(turn),
        }
    }

    /// Fails if the step cannot end any more, or not in time.
    fn hope(&mut self, until: Instant, gone: &Members, left: &[(u32, String)]) -> Result<(), BackupError> {
        let late = Instant::now() >= until;
        let step = self.worker.step();
        let alone = gone.len() + 1 == self.shape.workers();
        let seen = match self.see() {
            Ok(seen) => seen,
            Err(_) if late => return Err(self.left_alone(left)),
            Err(_) => return Ok(()),
        };
        if late && self.circles() {
            return Err(self.untold(left));
        }
        let Some(Seen {
            seal,
            scanned,
            arrived,
            ..
        }) = seen
        else {
            // It is over, and its result not to be had in time, or from anybody.
            return match late || alone {
                true => Err(self.left_behind(left)),
                false => Ok(()),
            };
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
                return match late || alone {
                    true => Err(self.left_behind(left)),
                    false => Ok(()),
                };
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
        let mut ranks = stuck.iter().map(u32::from).collect::<Vec<_>>();
        let waited_for = names(&ranks, left);
        let gone = left.iter().map(|(rank, _)| *rank);
        let others = gone.filter(|rank| !ranks.contains(rank)).collect::<Vec<_>>();
        let named = names(&others, left);
        ranks.extend(others);
        BackupError::Stuck {
            rank: u32::from(self.me),
            step: self.worker.step(),
            when,
            names: waited_for,
            others: match named.is_empty() {
                true => named,
                false => format!("; gone are {named}"),
            },
            ranks,
        }
    }

    /// The words could not be reached in time.
    fn left_alone(&self, left: &[(u32, String)]) -> BackupError {
        let home = u32::from(self.shape.home(self.worker.view()));
        BackupError::Unreachable {
            rank: u32::from(self.me),
            step: self.worker.step(),
            home: names(&[home], left),
            waited: self.timeout,
        }
    }

    /// Nobody has said what to continue from.
    fn untold(&self, left: &[(u32, String)]) -> BackupError {
        let gone = left.iter().map(|(rank, _)| *rank).collect::<Vec<_>>();
        let others = (0..u32::from(self.shape.workers())).filter(|rank| *rank != u32::from(self.me));
        let ranks = others.filter(|rank| !gone.contains(rank)).collect::<Vec<_>>();
        BackupError::Untold {
            rank: u32::from(self.me),
            waited: self.timeout,
            others: match ranks.is_empty() {
                true => "nobody else is left".into(),
                false => format!(
                    "{} would in `finish`, `sealed` or at the end, with training state: busy with something else, or stopped?",
                    names(&ranks, left)
                ),
            },
            gone: match gone.is_empty() {
                true => String::new(),
                false => format!(" Gone are {}", names(&gone, left)),
            },
            ranks,
        }
    }

    /// What it needs is not to be had.
    fn left_behind(&self, left: &[(u32, String)]) -> BackupError {
        let ranks = left.iter().map(|(rank, _)| *rank).collect::<Vec<_>>();
        BackupError::Behind {
            rank: u32::from(self.me),
            step: self.worker.step(),
            ring: self.shape.ring(),
            why: match ranks.len() + 1 == usize::from(self.shape.workers()) {
                true => format!("all who could have it are gone: {}", names(&ranks, left)),
                false => format!(
                    "no other worker's state was there, and stayed as it is for long enough to be copied, within {:?}{}",
                    self.timeout,
                    match ranks.is_empty() {
                        true => String::new(),
                        false => format!("; gone are {}", names(&ranks, left)),
                    }
                ),
            },
            ranks,
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
