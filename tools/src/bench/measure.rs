//! Times and checks rows on one rank's communicator. Every rank runs the same sequence of calls; decisions rest only on
//! figures that all ranks have.

use std::fmt;
use std::time::{Duration, Instant};

use sapwood::communicator::{Communicator, CommunicatorError, Window};
use sapwood::engine::reduce::Operation;

use super::case::{Case, Kind, Redop};
use super::check::{Check, Checked};
use super::report::{Figures, Row};
use super::sweep::Sizes;

/// Up to this size a barrier is about as long as the call itself, so that batches are timed too.
const LARGEST_BATCHED: usize = 8 << 10;
/// Calls in a batch.
const CALLS: usize = 1000;
/// Batches; fewer, at least [`FEWEST_BATCHES`], where they would take longer than [`BATCH_TIME`] together.
const BATCHES: usize = 20;
const FEWEST_BATCHES: usize = 3;
const BATCH_TIME: Duration = Duration::from_secs(1);

/// What stays the same over all rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) iterations: usize,
    pub(super) warmup: usize,
    /// Passes with fresh data; 0 checks nothing.
    pub(super) checks: usize,
    /// Whether predictions stand beside.
    pub(super) predict: bool,
}

/// Where a call's result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    OutOfPlace,
    InPlace,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfPlace => "out of place",
            Self::InPlace => "in place",
        })
    }
}

/// Measures rows, one after the other.
pub(super) struct Bench<'a> {
    communicator: &'a Communicator,
    method: Method,
    /// Figures on their way to all ranks.
    figures: Window<f64>,
    checked: u64,
    wrong_here: u64,
}

struct Windows<T: Checked> {
    input: Window<T>,
    output: Window<T>,
}

impl<T: Checked> Windows<T> {
    /// The one that is long enough for both.
    fn both(&mut self) -> &mut Window<T> {
        if self.input.len() > self.output.len() {
            &mut self.input
        } else {
            &mut self.output
        }
    }
}

impl<'a> Bench<'a> {
    pub(super) fn new(communicator: &'a Communicator, method: Method) -> Result<Self, CommunicatorError> {
        let figures = communicator.window::<f64>(method.iterations.max(BATCHES))?;
        Ok(Self {
            communicator,
            method,
            figures,
            checked: 0,
            wrong_here: 0,
        })
    }

    /// Elements that this rank itself found wrong.
    pub(super) fn wrong_here(&self) -> u64 {
        self.wrong_here
    }

    /// All sizes and operations of one type; `finished` is told of each row when it is done.
    pub(super) fn sweep<T: Checked>(
        &mut self,
        kind: Kind,
        sizes: Sizes,
        redops: &[Redop],
        finished: &mut dyn FnMut(Row),
    ) -> Result<(), CommunicatorError> {
        let ranks = self.communicator.size();
        for redop in redops
            .iter()
            .filter(|redop| **redop != Redop::PreMultiplied || T::TYPE.is_float())
        {
            for part in parts::<T>(kind, sizes, ranks) {
                let case = Case { kind, ranks, part };
                finished(self.row::<T>(case, *redop)?);
            }
        }
        Ok(())
    }

    fn row<T: Checked>(&mut self, case: Case, redop: Redop) -> Result<Row, CommunicatorError> {
        let (input, result) = case.lengths();
        // A barrier has none.
        let mut windows = Windows {
            input: self.communicator.window::<T>(input.max(1))?,
            output: self.communicator.window::<T>(result.max(1))?,
        };
        let size = case.total() * size_of::<T>();
        let in_place = match case.in_place() {
            true => Some(self.measure(&mut windows, case, redop, Placement::InPlace)?),
            false => None,
        };
        Ok(Row {
            size,
            count: case.part,
            element: T::TYPE.name(),
            redop: redop.name(),
            plan: match case.kind.collective() {
                Some(collective) => self.communicator.plan_name(collective, size),
                None => "point-to-point".into(),
            },
            out_of_place: self.measure(&mut windows, case, redop, Placement::OutOfPlace)?,
            in_place,
        })
    }

    fn measure<T: Checked>(
        &mut self,
        windows: &mut Windows<T>,
        case: Case,
        redop: Redop,
        placement: Placement,
    ) -> Result<Figures, CommunicatorError> {
        // In place a result is the next call's input: of a value that the operation maps to itself, it stays finite.
        windows.input.fill(T::fixed_point(redop));
        windows.output.fill(T::fixed_point(redop));
        let request = case.request(redop, self.communicator.rank());
        let call = |communicator: &Communicator, windows: &mut Windows<T>| match (&request, placement) {
            (None, _) if !case.kind.moves() => communicator.barrier(),
            (None, _) => communicator.group(|group| {
                let (to, from) = case.neighbours(communicator.rank());
                group.send(&windows.input, 0..case.part, to, 0)?;
                group.receive(&mut windows.output, 0..case.part, from, 0)
            }),
            (Some(request), Placement::OutOfPlace) => {
                communicator.call_into(request, &windows.input, &mut windows.output)
            }
            (Some(request), Placement::InPlace) => communicator.call(request, windows.both()),
        };

        for _ in 0..self.method.warmup {
            call(self.communicator, windows)?;
        }
        for iteration in 0..self.method.iterations {
            self.communicator.barrier()?;
            let start = Instant::now();
            call(self.communicator, windows)?;
            self.figures[iteration] = microseconds(start.elapsed());
        }
        let times = self.slowest(self.method.iterations)?;

        let size = case.total() * size_of::<T>();
        let mut batches = Vec::new();
        if size <= LARGEST_BATCHED {
            let typical = times.iter().sum::<f64>() / times.len() as f64;
            let affordable = microseconds(BATCH_TIME) / (typical * CALLS as f64);
            let number = (affordable as usize).clamp(FEWEST_BATCHES, BATCHES);
            for batch in 0..number {
                self.communicator.barrier()?;
                let start = Instant::now();
                for _ in 0..CALLS {
                    call(self.communicator, windows)?;
                }
                self.figures[batch] = microseconds(start.elapsed()) / CALLS as f64;
            }
            batches = self.slowest(number)?;
        }

        let mut nwrong = None;
        for _ in 0..self.method.checks {
            let check = Check::new(redop, case.ranks, self.checked);
            self.checked += 1;
            let wrong = self.check(windows, case, &check, placement, &call)?;
            if wrong > 0 {
                let (rank, count) = (self.communicator.rank(), case.total());
                let (element, redop) = (T::TYPE.name(), redop.name());
                eprintln!("rank {rank}: {wrong} wrong elements of {count} {element} ({redop}, {placement})");
            }
            self.wrong_here += wrong;
            // Not through a reduction, which is what is under suspicion.
            let counts = self
                .communicator
                .all_gather_bytes("counting wrong elements", &wrong.to_le_bytes())?;
            let counts = counts.iter().filter_map(|bytes| bytes.as_slice().try_into().ok());
            nwrong = Some(nwrong.unwrap_or(0) + counts.map(u64::from_le_bytes).sum::<u64>());
        }
        let collective = case.kind.collective().filter(|_| self.method.predict);
        let in_place = placement == Placement::InPlace;
        let predicted =
            collective.and_then(|collective| self.communicator.predicted_time(collective, size, in_place));
        let figures = Figures::new(size, case.bus_factor(), times, batches, nwrong);
        Ok(figures.predicted(predicted))
    }

    /// Calls it once on random data with poisoned results; how many elements are wrong on this rank.
    fn check<T: Checked>(
        &self,
        windows: &mut Windows<T>,
        case: Case,
        check: &Check,
        placement: Placement,
        call: &impl Fn(&Communicator, &mut Windows<T>) -> Result<(), CommunicatorError>,
    ) -> Result<u64, CommunicatorError> {
        let rank = self.communicator.rank();
        let (brings, gets) = case.lengths();
        let origin = |index| case.origin(rank, index);
        match placement {
            Placement::OutOfPlace => {
                check.fill(rank, &mut windows.input[..brings]);
                windows.output.fill(T::POISON);
                call(self.communicator, windows)?;
                let changed = check.count_changed(rank, &windows.input[..brings]);
                let result = &windows.output[..gets];
                Ok(changed
                    + if case.gets(rank) {
                        check.count_wrong(result, origin)
                    } else {
                        0
                    })
            }
            Placement::InPlace => {
                let (from, to) = case.places(rank);
                windows.both().fill(T::POISON);
                check.fill(rank, &mut windows.both()[from..from + brings]);
                call(self.communicator, windows)?;
                let window = &*windows.both();
                Ok(match case.gets(rank) {
                    true => check.count_wrong(&window[to..to + gets], origin),
                    false => check.count_changed(rank, &window[from..from + brings]),
                })
            }
        }
    }

    /// The largest of all ranks' figures, each of the first `count`.
    fn slowest(&mut self, count: usize) -> Result<Vec<f64>, CommunicatorError> {
        self.communicator
            .all_reduce_range(&mut self.figures, 0..count, Operation::Max)?;
        Ok(self.figures[..count].to_vec())
    }
}

/// The parts of the sizes, each once.
pub(super) fn parts<T: Checked>(kind: Kind, sizes: Sizes, ranks: u32) -> Vec<usize> {
    let mut parts = sizes
        .iter()
        .map(|size| kind.part(size / size_of::<T>(), ranks))
        .collect::<Vec<_>>();
    parts.dedup();
    parts
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

/// What one reading of the clock costs, in microseconds: the median of several runs of many.
pub(super) fn clock_cost() -> f64 {
    const READINGS: u32 = 1000;
    let mut runs: Vec<f64> = (0..21)
        .map(|_| {
            let start = Instant::now();
            let mut last = start;
            for _ in 0..READINGS {
                last = std::hint::black_box(Instant::now());
            }
            microseconds(last - start) / f64::from(READINGS)
        })
        .collect();
    runs.sort_unstable_by(f64::total_cmp);
    runs[runs.len() / 2]
}
