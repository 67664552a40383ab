//! Steps of a training loop in which one worker is stopped by SIGSTOP for a while, beside the same steps of the others
//! alone, in turns. Real processes, real signals; rank 0 sends them.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sapwood::backup::{Barrier, How};
use sapwood::communicator::Communicator;
use serde::Serialize;

use super::measure::Trouble;
use super::report::Spread;
use super::shared::Shared;
use crate::bench::report::decimals;

/// How often each of the two is run.
const ROUNDS: usize = 3;
/// A worker that computes looks so often whether its gradient is still wanted.
const LAYERS: u32 = 8;
/// Words noted beside the steps' times.
const TOLD: usize = 3;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) backups: u32,
    pub(super) count: usize,
    pub(super) stop: Duration,
    pub(super) compute: Duration,
    /// Steps of each round.
    pub(super) steps: usize,
    pub(super) warmup: usize,
}

/// Step times of all workers that are not stopped, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Steps {
    steps: usize,
    #[serde(flatten)]
    times: Spread,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Stopped {
    ranks: u32,
    backups: u32,
    fabric: String,
    /// Seconds.
    stop: f64,
    /// Microseconds of a step in which a worker computes.
    compute: f64,
    rounds: usize,
    one_stopped: Steps,
    others_alone: Steps,
    /// The one's 99th percentile over the other's.
    p99_ratio: f64,
    /// Of the worker that was stopped: steps whose results it has applied itself, and those that it has jumped over by
    /// copying another's state.
    applied: u64,
    jumped: u64,
    catch_ups: u64,
    replicas_identical: bool,
}

struct Run<'a> {
    plan: Plan,
    rank: u32,
    shared: &'a mut Shared,
    noted: usize,
    told: [u64; TOLD],
}

/// All rounds. Collective; every rank has the figures.
pub(super) fn run(communicator: &Communicator, plan: Plan) -> Result<Stopped, Trouble> {
    let (rank, ranks) = (communicator.rank(), communicator.size());
    let victim = ranks - 1;
    let others = communicator.split((rank != victim).then_some(0), i64::from(rank))?;
    let mut shared = Shared::new(communicator, TOLD + 2 * ROUNDS * plan.steps)?;
    let barrier = |communicator, backups| {
        Barrier::<f32>::builder(communicator, plan.count)
            .backups(backups)
            .state(plan.count)
            .build()
    };
    let mut whole = barrier(communicator, plan.backups)?;
    let mut alone = others
        .as_ref()
        .map(|others| barrier(others, plan.backups - 1))
        .transpose()?;
    let mut run = Run {
        plan,
        rank,
        shared: &mut shared,
        noted: TOLD,
        told: [0; TOLD],
    };
    run.shared.meet()?;
    run.steps(&mut whole, plan.warmup, false)?;
    if let Some(alone) = &mut alone {
        run.steps(alone, plan.warmup, false)?;
    }
    for _ in 0..ROUNDS {
        run.shared.meet()?;
        match &mut alone {
            Some(alone) => run.steps(alone, plan.steps, true)?,
            None => run.noted += plan.steps,
        }
        run.shared.meet()?;
        let stopper = (rank == 0).then(|| stop(run.shared, victim, plan.stop));
        run.steps(&mut whole, plan.steps, true)?;
        if let Some(stopper) = stopper {
            stopper
                .join()
                .map_err(|_| io::Error::other("the thread that sends signals panicked"))??;
        }
    }
    (0..)
        .zip(run.told)
        .for_each(|(at, told)| run.shared.note(at, told));
    run.shared.meet()?;
    let state = whole.state().iter().flat_map(|x| x.to_bits().to_le_bytes());
    let digest = blake2_of(state);
    let digests = communicator.all_gather_bytes("comparing the replicas", &digest)?;
    let figures = |first: usize| {
        let rounds = (0..ROUNDS).flat_map(|round| {
            let from = TOLD + (2 * round + first) * plan.steps;
            from..from + plan.steps
        });
        let times = rounds.flat_map(|at| (0..victim).map(move |rank| (rank, at)));
        let times = times
            .map(|(rank, at)| shared.microseconds(0, shared.noted(rank, at)))
            .collect();
        Steps {
            steps: ROUNDS * plan.steps,
            times: Spread::new(times),
        }
    };
    let (others_alone, one_stopped) = (figures(0), figures(1));
    let [applied, jumped, catch_ups] = [0, 1, 2].map(|at| shared.noted(victim, at));
    let stopped = Stopped {
        ranks,
        backups: plan.backups,
        fabric: communicator.fabric_name().into(),
        stop: plan.stop.as_secs_f64(),
        compute: plan.compute.as_secs_f64() * 1e6,
        rounds: ROUNDS,
        p99_ratio: one_stopped.times.p99 / others_alone.times.p99,
        one_stopped,
        others_alone,
        applied,
        jumped,
        catch_ups,
        replicas_identical: digests.iter().all(|one| *one == digests[0]),
    };
    // Nobody leaves before all have read what was noted.
    shared.meet()?;
    Ok(stopped)
}

impl Run<'_> {
    /// So many steps of a training loop; their times are noted where `note` says so.
    fn steps(&mut self, barrier: &mut Barrier<f32>, steps: usize, note: bool) -> Result<(), Trouble> {
        let last = barrier.step() + steps as u64 - 1;
        let mut began = self.shared.clock.now();
        while barrier.step() <= last {
            let step = barrier.step();
            self.compute(barrier, began);
            let value = (u64::from(self.rank) * 31 + step * 7) % 101;
            barrier.gradient().fill(value as f32 / 101.0);
            let ended = barrier.finish()?;
            if !matches!(ended.how, How::CaughtUp { .. }) {
                barrier.update(|mean, weights| {
                    let pairs = weights.iter_mut().zip(mean);
                    pairs.for_each(|(weight, mean)| *weight -= 0.01 * mean);
                });
            }
            let now = self.shared.clock.now();
            if note {
                match ended.how {
                    How::CaughtUp { from } => {
                        self.told[1] += ended.step + 1 - from;
                        self.told[2] += 1;
                    }
                    How::Member | How::Late => self.told[0] += 1,
                }
                // A worker that jumped has fewer steps: the rest stay what they are for.
                let at = self.noted + steps - 1 - (last - ended.step) as usize;
                self.shared.note(at, now - began);
            }
            began = now;
        }
        if note {
            self.noted += steps;
        }
        Ok(())
    }

    /// Computes a gradient, as long as it is wanted.
    fn compute(&self, barrier: &mut Barrier<f32>, began: u64) {
        let layer = self.plan.compute.as_secs_f64() * 1e6 / f64::from(LAYERS);
        for layers in 1..=LAYERS {
            while self.shared.microseconds(began, self.shared.clock.now()) < layer * f64::from(layers) {
                std::hint::spin_loop();
            }
            if barrier.sealed() {
                return;
            }
        }
    }
}

/// Stops a rank at a random moment, for that long.
fn stop(shared: &Shared, rank: u32, long: Duration) -> JoinHandle<io::Result<()>> {
    let pid = Pid::from_raw(shared.pid(rank) as i32);
    let random = shared.clock.now().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
    let after = (long / 4).mul_f64(random as f64 / (1u64 << 53) as f64);
    std::thread::spawn(move || {
        let pid = pid.ok_or_else(|| io::Error::other(format!("rank {rank} has told no process number")))?;
        std::thread::sleep(after);
        kill_process(pid, Signal::STOP)?;
        std::thread::sleep(long);
        Ok(kill_process(pid, Signal::CONT)?)
    })
}

/// So that states of any size are compared by a few bytes.
fn blake2_of(bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    use blake2::{Blake2s256, Digest};
    let mut digest = Blake2s256::new();
    let bytes = bytes.collect::<Vec<_>>();
    digest.update(&bytes);
    digest.finalize().to_vec()
}

impl Stopped {
    /// Whether all replicas were the same at the end.
    pub(super) fn holds(&self) -> bool {
        self.replicas_identical
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Self {
            ranks,
            backups,
            fabric,
            stop,
            compute,
            rounds,
            one_stopped,
            others_alone,
            p99_ratio,
            applied,
            jumped,
            catch_ups,
            replicas_identical,
        } = self;
        let (victim, spare) = (ranks - 1, backups - 1);
        let mut text = format!(
            "# backup-barrier: {ranks} ranks, {} needed, fabric {fabric}; in each of {rounds} rounds rank {victim} is stopped \
             (SIGSTOP) once for {stop} s\n\
             # beside it, in turns: the other {victim} alone, with {spare} to spare. A step computes for {compute} us\n\
             # times of a step in us, of all ranks but rank {victim}\n#\n\
             #{:>18} {:>8} {:>10} {:>10} {:>10}\n",
            ranks - backups,
            "",
            "steps",
            "p50",
            "p99",
            "max"
        );
        for (name, Steps { steps, times }) in [("one stopped", one_stopped), ("others alone", others_alone)] {
            let [p50, p99, max] = [times.p50, times.p99, times.max].map(decimals);
            text.push_str(&format!(" {name:>18} {steps:>8} {p50:>10} {p99:>10} {max:>10}\n"));
        }
        let same = match replicas_identical {
            true => "all replicas are identical",
            false => "REPLICAS DIFFER",
        };
        text.push_str(&format!(
            "# p99 with one stopped over p99 of the others alone: {}\n\
             # rank {victim} has applied {applied} results itself and jumped over {jumped} steps in {catch_ups} copies of \
             another's state; {same}\n",
            decimals(*p99_ratio)
        ));
        text
    }
}
