//! Times plans between real ranks, as `bench` does: after a barrier, on the slowest rank, the median of several calls.
//! Everything is measured in rounds: a few calls of each plan at each size, then all of it again, in the opposite order. So
//! what else goes on in the machine for a second meets one round of a size, and in that all of its plans; and since it only
//! ever adds, of the rounds the lower quartile counts. Every rank makes the same calls.

use std::time::Instant;

use indicatif::ProgressBar;
use sapwood::communicator::{Builder, Communicator, CommunicatorError, Window};
use sapwood::engine::reduce::Operation;
use sapwood::plan::cost::{Candidate, Setting};
use sapwood::plan::{Collective, builders};

use crate::bench::case::{Case, Kind, Redop};

/// Calls that are timed, in each round.
const CALLS: u32 = 3;
/// Calls before those.
const WARMUP: u32 = 2;

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) candidate: Candidate,
    /// Of the longest buffer.
    pub(super) bytes: usize,
    pub(super) in_place: bool,
    /// In microseconds: the lower quartile of the rounds.
    pub(super) time: f64,
    /// The median of each round's calls.
    pub(super) rounds: Vec<f64>,
}

/// What is measured together: candidates of one collective, at a size.
pub(super) struct Row {
    pub(super) candidates: Vec<Candidate>,
    pub(super) size: usize,
}

/// A plan with its chunks, and a communicator that runs it.
struct Twin {
    plan: String,
    chunk: f64,
    communicator: Communicator,
}

/// Measures plans, one communicator for each.
pub(super) struct Probes<'a> {
    base: &'a Communicator,
    twins: Vec<Twin>,
    rounds: u32,
    /// Figures on their way to all ranks.
    figures: Window<f64>,
    progress: ProgressBar,
}

/// A candidate of a row, and what it took so far.
struct Turn<'a> {
    row: usize,
    candidate: &'a Candidate,
    /// Which communicator runs it.
    twin: usize,
    case: Case,
    in_place: bool,
    /// On this rank, in microseconds.
    times: Vec<f64>,
}

/// In how many rounds at least so many calls are made.
pub(super) fn rounds(iterations: u32) -> u32 {
    iterations.div_ceil(CALLS)
}

impl<'a> Probes<'a> {
    /// `progress` goes on with every row of every round.
    pub(super) fn new(
        base: &'a Communicator,
        iterations: u32,
        progress: ProgressBar,
    ) -> Result<Self, CommunicatorError> {
        let rounds = rounds(iterations);
        Ok(Self {
            base,
            twins: Vec::new(),
            rounds,
            figures: base.window((rounds * CALLS) as usize)?,
            progress,
        })
    }

    /// Nothing more is measured.
    pub(super) fn done(&self) {
        self.progress.finish_and_clear();
    }

    pub(super) fn base(&self) -> &Communicator {
        self.base
    }

    pub(super) fn setting(&self) -> &Setting {
        self.base.setting()
    }

    /// The plans that can do a collective, with the built-in size of a chunk.
    pub(super) fn candidates(&self, collective: Collective) -> Vec<Candidate> {
        let alternatives = self.setting().alternatives(collective).into_iter();
        let candidate = |plan| Candidate { plan, chunk: 1.0 };
        alternatives.map(|of| candidate(of.plan)).collect()
    }

    /// Measures rows, out of place and in place where there is such; what comes of each is in the order of its
    /// candidates. Collective.
    pub(super) fn rows(&mut self, rows: &[Row]) -> Result<Vec<Vec<Measured>>, CommunicatorError> {
        let mut turns = Vec::new();
        for (row, Row { candidates, size }) in rows.iter().enumerate() {
            for candidate in candidates {
                let (kind, ranks) = (Kind::Collective(candidate.plan.collective()), self.base.size());
                let part = kind.part((size / size_of::<f32>()).max(1), ranks);
                let case = Case { kind, ranks, part };
                let twin = self.twin(candidate.plan.name(), candidate.chunk)?;
                let placements = if case.in_place() {
                    &[false, true][..]
                } else {
                    &[false]
                };
                turns.extend(placements.iter().map(|in_place| Turn {
                    row,
                    candidate,
                    twin,
                    case,
                    in_place: *in_place,
                    times: Vec::new(),
                }));
            }
        }
        for round in 0..self.rounds {
            let of_rows = turns.chunk_by_mut(|a, b| a.row == b.row);
            let mut of_rows: Vec<&mut [Turn<'_>]> = of_rows.collect();
            if round % 2 == 1 {
                of_rows.reverse();
            }
            for of_row in of_rows {
                let count = of_row.len();
                for index in 0..count {
                    let index = if round % 2 == 1 { count - 1 - index } else { index };
                    let times = self.turn(&of_row[index])?;
                    of_row[index].times.extend(times);
                }
                self.progress.inc(1);
            }
        }
        let mut measured: Vec<Vec<Measured>> = rows.iter().map(|_| Vec::new()).collect();
        for turn in turns {
            let slowest = self.slowest(&turn.times)?;
            let rounds: Vec<f64> = slowest.chunks(CALLS as usize).map(median).collect();
            measured[turn.row].push(Measured {
                candidate: turn.candidate.clone(),
                bytes: turn.case.total() * size_of::<f32>(),
                in_place: turn.in_place,
                time: sorted(&rounds).get(rounds.len() / 4).copied().unwrap_or(0.0),
                rounds,
            });
        }
        Ok(measured)
    }

    /// The communicator that runs a plan; made at its first use.
    fn twin(&mut self, plan: &str, chunk: f64) -> Result<usize, CommunicatorError> {
        let known = self
            .twins
            .iter()
            .position(|twin| twin.plan == plan && twin.chunk == chunk);
        if let Some(known) = known {
            return Ok(known);
        }
        let settings = Builder::default()
            .plan(plan)
            .chunk(chunk)
            .timeout(self.base.timeout());
        let communicator = self.base.duplicate_as(settings)?;
        let plan = plan.to_owned();
        self.twins.push(Twin {
            plan,
            chunk,
            communicator,
        });
        Ok(self.twins.len() - 1)
    }

    /// A few calls, each timed on this rank.
    fn turn(&self, turn: &Turn<'_>) -> Result<Vec<f64>, CommunicatorError> {
        let Turn { case, in_place, .. } = *turn;
        let communicator = &self.twins[turn.twin].communicator;
        let (input, result) = case.lengths();
        let redop = if case.kind.combines() {
            Redop::Plain(Operation::Sum)
        } else {
            Redop::None
        };
        let request = case
            .request(redop, communicator.rank())
            .expect("a barrier is not measured");
        let (mut from, mut into) = (
            communicator.window::<f32>(if in_place { input.max(result) } else { input })?,
            communicator.window::<f32>(if in_place { 1 } else { result })?,
        );
        // The pages are there before anything is timed.
        from.fill(0.0);
        into.fill(0.0);
        let mut times = Vec::with_capacity(CALLS as usize);
        for call in 0..WARMUP + CALLS {
            communicator.barrier()?;
            let start = Instant::now();
            match in_place {
                true => communicator.call(&request, &mut from)?,
                false => communicator.call_into(&request, &from, &mut into)?,
            }
            if call >= WARMUP {
                times.push(start.elapsed().as_nanos() as f64 / 1e3);
            }
        }
        Ok(times)
    }

    /// What the slowest rank took, call by call. Collective.
    fn slowest(&mut self, times: &[f64]) -> Result<Vec<f64>, CommunicatorError> {
        self.figures[..times.len()].copy_from_slice(times);
        self.base
            .all_reduce_range(&mut self.figures, 0..times.len(), Operation::Max)?;
        Ok(self.figures[..times.len()].to_vec())
    }

    /// A plan by its name, for a collective.
    pub(super) fn candidate(&self, plan: &str, collective: Collective, chunk: f64) -> Option<Candidate> {
        let plan = builders::build(plan, collective, self.base.size()).ok()?;
        Some(Candidate { plan, chunk })
    }
}

/// The upper one of the two in the middle, where the number is even; 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    sorted(values).get(values.len() / 2).copied().unwrap_or(0.0)
}

pub(super) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values
}
