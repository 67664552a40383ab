//! Times plans between real ranks, as `bench` does: after a barrier, on the slowest rank, the median of several calls.
//! Plans take turns, so that what else goes on in the machine meets all of them. Every rank makes the same calls.

use std::time::Instant;

use indicatif::ProgressBar;
use sapwood::communicator::{Builder, Communicator, CommunicatorError, Window};
use sapwood::engine::reduce::Operation;
use sapwood::plan::cost::{Candidate, Setting};
use sapwood::plan::{Collective, builders};

use crate::bench::case::{Case, Kind, Redop};

/// How often each plan gets its turn.
const TURNS: u32 = 5;
/// Calls before those that are timed, in each turn.
const WARMUP: u32 = 2;

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) candidate: Candidate,
    /// Of the longest buffer.
    pub(super) bytes: usize,
    pub(super) in_place: bool,
    /// In microseconds.
    pub(super) time: f64,
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
    calls: u32,
    /// Figures on their way to all ranks.
    figures: Window<f64>,
    progress: ProgressBar,
}

/// What a turn needs.
#[derive(Clone, Copy)]
struct Turn {
    case: Case,
    in_place: bool,
}

impl<'a> Probes<'a> {
    /// `progress` goes on with every row.
    pub(super) fn new(
        base: &'a Communicator,
        iterations: u32,
        progress: ProgressBar,
    ) -> Result<Self, CommunicatorError> {
        let calls = iterations.div_ceil(TURNS);
        Ok(Self {
            base,
            twins: Vec::new(),
            calls,
            figures: base.window((calls * TURNS) as usize)?,
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

    /// Every plan that can do each collective, at each size, in place and out of place. Collective.
    pub(super) fn all(
        &mut self,
        collectives: &[Collective],
        sizes: &[usize],
    ) -> Result<Vec<Measured>, CommunicatorError> {
        let mut all = Vec::new();
        for &collective in collectives {
            let plans = self.setting().candidates(collective);
            let candidates: Vec<Candidate> = plans
                .into_iter()
                .map(|plan| Candidate { plan, chunk: 1.0 })
                .collect();
            for &size in sizes {
                all.extend(self.row(&candidates, size)?);
            }
        }
        Ok(all)
    }

    /// These candidates, of one collective, at one size, out of place and in place. Collective.
    pub(super) fn row(
        &mut self,
        candidates: &[Candidate],
        size: usize,
    ) -> Result<Vec<Measured>, CommunicatorError> {
        let Some(first) = candidates.first() else {
            return Ok(Vec::new());
        };
        let (kind, ranks) = (Kind::Collective(first.plan.collective()), self.base.size());
        let part = kind.part((size / size_of::<f32>()).max(1), ranks);
        let case = Case { kind, ranks, part };
        let twins = candidates
            .iter()
            .map(|candidate| self.twin(candidate.plan.name(), candidate.chunk))
            .collect::<Result<Vec<_>, _>>()?;
        let mut measured = Vec::new();
        for in_place in [false, true] {
            if in_place && !case.in_place() {
                continue;
            }
            let mut times = vec![Vec::new(); twins.len()];
            for _ in 0..TURNS {
                for (twin, times) in twins.iter().zip(&mut times) {
                    times.extend(self.turn(&self.twins[*twin].communicator, Turn { case, in_place })?);
                }
            }
            for (times, candidate) in times.iter().zip(candidates) {
                let time = self.median_of_slowest(times)?;
                let bytes = case.total() * size_of::<f32>();
                measured.push(Measured {
                    candidate: candidate.clone(),
                    bytes,
                    in_place,
                    time,
                });
            }
        }
        self.progress.inc(1);
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
    fn turn(&self, communicator: &Communicator, turn: Turn) -> Result<Vec<f64>, CommunicatorError> {
        let Turn { case, in_place } = turn;
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
        let mut times = Vec::with_capacity(self.calls as usize);
        for call in 0..WARMUP + self.calls {
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

    /// The median over the calls of what the slowest rank took.
    fn median_of_slowest(&mut self, times: &[f64]) -> Result<f64, CommunicatorError> {
        self.figures[..times.len()].copy_from_slice(times);
        self.base
            .all_reduce_range(&mut self.figures, 0..times.len(), Operation::Max)?;
        let mut slowest = self.figures[..times.len()].to_vec();
        slowest.sort_unstable_by(f64::total_cmp);
        Ok(slowest[slowest.len() / 2])
    }

    /// A plan by its name, for a collective.
    pub(super) fn candidate(&self, plan: &str, collective: Collective, chunk: f64) -> Option<Candidate> {
        let plan = builders::build(plan, collective, self.base.size()).ok()?;
        Some(Candidate { plan, chunk })
    }
}
