//! Gradient descent that does not wait for its slowest worker.
//!
//! Four ranks fit `y = w · x + b`, each on samples of its own, and one of them is slow. A step takes the first three
//! gradients: the slow rank has their mean all the same, or, when it is too far behind for that, the others' weights. So all
//! ranks hold the same weights after each step, and the step takes as long as the third. A rank that is killed is started
//! again, takes another's weights and goes on with the others, who do not wait for it. (The number is that of steps.)
//!
//!     cargo run --release --example backup_workers
//!     cargo build --release --examples
//!     target/release/sapwood run -n 4 --on-death restart -- target/release/examples/backup_workers 30000

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::exchange::Exchange;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const INPUTS: usize = 64;
const SAMPLES: usize = 128;
const STEPS: u64 = 300;
const RATE: f32 = 0.05;
/// Who is slow, and by how much in each step.
const SLOW: (u32, Duration) = (2, Duration::from_millis(5));

struct Sample {
    inputs: [f32; INPUTS],
    output: f32,
}

/// The samples of one rank, of a line that all ranks share: weights 0, 1, …, 4, 0, 1, … and a bias of 3.
fn samples(rank: u32) -> Vec<Sample> {
    let mut state = u64::from(rank) + 1;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let sample = |_| {
        let inputs: [f32; INPUTS] = std::array::from_fn(|_| random());
        let line = inputs.iter().enumerate().map(|(index, x)| (index % 5) as f32 * x);
        let output = 3.0 + line.sum::<f32>();
        Sample { inputs, output }
    };
    (0..SAMPLES).map(sample).collect()
}

/// How far the line of these weights (the bias is the last) is from each sample.
fn errors(samples: &[Sample], weights: &[f32]) -> Vec<f32> {
    let error = |sample: &Sample| {
        let line = weights.iter().zip(&sample.inputs).map(|(w, x)| w * x);
        weights[INPUTS] + line.sum::<f32>() - sample.output
    };
    samples.iter().map(error).collect()
}

fn loss(errors: &[f32]) -> f32 {
    errors.iter().map(|error| error * error).sum::<f32>() / SAMPLES as f32
}

fn rank(job: &Job) -> Outcome {
    let steps = std::env::args().nth(1).map_or(Ok(STEPS), |steps| steps.parse())?;
    let communicator = Communicator::builder().join(job)?;
    let (rank, ranks) = (communicator.rank(), communicator.size());
    let samples = samples(rank);
    let mut exchange = Exchange::builder(communicator)
        .bucket("weights", INPUTS)
        .bucket("bias", 1)
        .state("weights", INPUTS + 1) // what a rank that is far behind copies from another
        .backups(u32::from(ranks > 1))
        .build()?;

    let first = loss(&errors(&samples, &[0.0; INPUTS + 1]));
    let begun = Instant::now();
    // Not 0 on a rank that has come back: it has the weights of another, which were not set here.
    let mut next = exchange.next_step();
    while next < steps {
        let errors = errors(&samples, exchange.state("weights"));
        let mut step = exchange.begin()?;
        next = step.number() + 1;
        if rank == SLOW.0 {
            thread::sleep(SLOW.1);
        }
        // Backward, as long as somebody wants the gradient.
        if !step.sealed() {
            let mut gradient = step.take("bias")?;
            gradient[0] = errors.iter().sum::<f32>() / SAMPLES as f32;
            gradient.ready()?;
        }
        if !step.sealed() {
            let mut gradient = step.take("weights")?;
            gradient.fill(0.0);
            for (sample, error) in samples.iter().zip(&errors) {
                for (slope, x) in gradient.iter_mut().zip(&sample.inputs) {
                    *slope += error * x / SAMPLES as f32;
                }
            }
            gradient.ready()?;
        }
        let mut outcome = step.finish()?;
        if let Some(step) = outcome.caught_up() {
            // The weights are another rank's now, which has applied this step.
            next = step + 1;
            continue;
        }
        outcome.update(|means, mut state| {
            let slopes = means.of("weights").iter().chain(means.of("bias"));
            for (weight, slope) in state.of("weights").iter_mut().zip(slopes) {
                *weight -= RATE * slope;
            }
        });
    }
    let time = begun.elapsed();

    let weights = exchange.state("weights");
    let model: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let digest = model.iter().fold(0u64, |hash, byte| {
        hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte)
    });
    println!("rank {rank} holds weights {digest:016x}");
    let communicator = exchange.communicator();
    let held = match communicator.all_gather_bytes("comparing models", &model) {
        Ok(models) => {
            if let Some(other) = models.iter().position(|other| *other != model) {
                return Err(format!("rank {other} has other weights than rank {rank}").into());
            }
            "hold the same weights"
        }
        // What all ranks do together is over once one has died, even if it has come back: compare what they print.
        Err(error) => {
            println!("rank {rank} cannot compare: {error}");
            "did what they could"
        }
    };
    let last = loss(&errors(&samples, weights));
    if last > first / 50.0 {
        return Err(format!("rank {rank}: the loss is {last} after {steps} steps, from {first}").into());
    }
    if rank == 0 {
        let participation = exchange.participation();
        println!(
            "{ranks} ranks {held} after {steps} steps in {time:.0?}; loss {first:.3} -> {last:.3}; gradients dropped, by \
             rank: {:?}; hardly heard: {:?}",
            participation.dropped(),
            participation.hardly_heard()
        );
    }
    Ok(())
}

fn main() -> Outcome {
    if let Some(job) = Job::from_environment()? {
        return rank(&job);
    }
    let ranks: Vec<_> = Job::local(4)?
        .into_iter()
        .map(|job| thread::spawn(move || rank(&job)))
        .collect();
    for thread in ranks {
        thread.join().expect("a rank does not panic")?;
    }
    Ok(())
}
