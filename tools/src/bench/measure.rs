//! Times and checks rows on one rank's communicator. Every rank runs the same sequence of calls; decisions rest only on
//! figures that all ranks have.

use std::fmt;
use std::time::{Duration, Instant};

use sapwood::communicator::{Communicator, CommunicatorError, Window};
use sapwood::engine::reduce::Operation;
use sapwood::plan::Collective;

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
        sizes: Sizes,
        operations: &[Operation],
        finished: &mut dyn FnMut(Row),
    ) -> Result<(), CommunicatorError> {
        let mut counts: Vec<usize> = sizes.iter().map(|size| size / size_of::<T>()).collect();
        counts.dedup();
        let largest = counts.last().copied().unwrap_or(1);
        let mut windows = Windows {
            input: self.communicator.window::<T>(largest)?,
            output: self.communicator.window::<T>(largest)?,
        };
        for operation in operations {
            for count in &counts {
                finished(self.row(&mut windows, *operation, *count)?);
            }
        }
        Ok(())
    }

    fn row<T: Checked>(
        &mut self,
        windows: &mut Windows<T>,
        operation: Operation,
        count: usize,
    ) -> Result<Row, CommunicatorError> {
        let size = count * size_of::<T>();
        Ok(Row {
            size,
            count,
            element: T::TYPE.name(),
            redop: operation.name(),
            plan: self.communicator.plan_name(Collective::AllReduce, size),
            out_of_place: self.measure(windows, operation, count, Placement::OutOfPlace)?,
            in_place: self.measure(windows, operation, count, Placement::InPlace)?,
        })
    }

    fn measure<T: Checked>(
        &mut self,
        windows: &mut Windows<T>,
        operation: Operation,
        count: usize,
        placement: Placement,
    ) -> Result<Figures, CommunicatorError> {
        // In place a result is the next call's input: of a value that the operation maps to itself, it stays finite.
        windows.input[..count].fill(T::fixed_point(operation));
        windows.output[..count].fill(T::fixed_point(operation));
        let call = |communicator: &Communicator, windows: &mut Windows<T>| match placement {
            Placement::OutOfPlace => {
                communicator.all_reduce_range_into(&windows.input, &mut windows.output, 0..count, operation)
            }
            Placement::InPlace => communicator.all_reduce_range(&mut windows.output, 0..count, operation),
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

        let size = count * size_of::<T>();
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
            let (rank, ranks) = (self.communicator.rank(), self.communicator.size());
            let check = Check::new(operation, ranks, self.checked);
            self.checked += 1;
            let Windows { input, output } = &mut *windows;
            check.fill(rank, &mut input[..count]);
            match placement {
                Placement::OutOfPlace => output[..count].fill(T::POISON),
                Placement::InPlace => output[..count].copy_from_slice(&input[..count]),
            }
            call(self.communicator, windows)?;
            let wrong = check.count_wrong(&windows.output[..count])
                + check.count_changed(rank, &windows.input[..count]);
            if wrong > 0 {
                eprintln!(
                    "rank {rank}: {wrong} wrong elements of {count} {} ({operation}, {placement})",
                    T::TYPE.name()
                );
            }
            self.wrong_here += wrong;
            // Not through a reduction, which is what is under suspicion.
            let counts = self
                .communicator
                .all_gather_bytes("counting wrong elements", &wrong.to_le_bytes())?;
            let counts = counts.iter().filter_map(|bytes| bytes.as_slice().try_into().ok());
            nwrong = Some(nwrong.unwrap_or(0) + counts.map(u64::from_le_bytes).sum::<u64>());
        }
        Ok(Figures::of_all_reduce(
            size,
            self.communicator.size(),
            times,
            batches,
            nwrong,
        ))
    }

    /// The largest of all ranks' figures, each of the first `count`.
    fn slowest(&mut self, count: usize) -> Result<Vec<f64>, CommunicatorError> {
        self.communicator
            .all_reduce_range(&mut self.figures, 0..count, Operation::Max)?;
        Ok(self.figures[..count].to_vec())
    }
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
