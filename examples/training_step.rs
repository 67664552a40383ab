//! Gradient descent whose gradients travel while the rest of the backward pass still computes.
//!
//! Four ranks fit `y = w · x + b`, each on samples of its own. The gradient of `b` is known first: it is handed over with
//! `ready` at once, and its exchange runs while that of `w` is computed.
//!
//!     cargo run --release --example training_step
//!     cargo build --release --examples && target/release/sapwood run -n 4 -- target/release/examples/training_step

use std::error::Error;
use std::thread;

use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::exchange::Exchange;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const INPUTS: usize = 64;
const SAMPLES: usize = 128;
const STEPS: usize = 300;
const RATE: f32 = 0.05;

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
        let output = 3.0
            + inputs
                .iter()
                .enumerate()
                .map(|(index, x)| (index % 5) as f32 * x)
                .sum::<f32>();
        Sample { inputs, output }
    };
    (0..SAMPLES).map(sample).collect()
}

fn rank(job: &Job) -> Outcome {
    let communicator = Communicator::builder().join(job)?;
    let (rank, ranks) = (communicator.rank(), communicator.size());
    let samples = samples(rank);
    let mut exchange = Exchange::builder(communicator)
        .bucket("weights", INPUTS)
        .bucket("bias", 1)
        .build()?;
    let (mut weights, mut bias) = ([0.0f32; INPUTS], 0.0f32);

    let mut losses = Vec::with_capacity(STEPS);
    for _ in 0..STEPS {
        // Forward.
        let error = |sample: &Sample| {
            bias + weights
                .iter()
                .zip(&sample.inputs)
                .map(|(w, x)| w * x)
                .sum::<f32>()
                - sample.output
        };
        let errors: Vec<f32> = samples.iter().map(error).collect();
        losses.push(errors.iter().map(|error| error * error).sum::<f32>() / SAMPLES as f32);

        // Backward: what is known first leaves first.
        let mut step = exchange.begin()?;
        let mut gradient = step.take("bias")?;
        gradient[0] = errors.iter().sum::<f32>() / SAMPLES as f32;
        gradient.ready()?;
        let mut gradient = step.take("weights")?;
        gradient.fill(0.0);
        for (sample, error) in samples.iter().zip(&errors) {
            for (slope, x) in gradient.iter_mut().zip(&sample.inputs) {
                *slope += error * x / SAMPLES as f32;
            }
        }
        gradient.ready()?;

        // The means over all ranks, where the gradients were written.
        let outcome = step.finish()?;
        bias -= RATE * outcome.mean("bias")[0];
        for (weight, slope) in weights.iter_mut().zip(outcome.mean("weights")) {
            *weight -= RATE * slope;
        }
    }

    let (first, last) = (losses[0], losses[STEPS - 1]);
    let model: Vec<u8> = weights
        .iter()
        .chain([&bias])
        .flat_map(|weight| weight.to_le_bytes())
        .collect();
    let models = exchange
        .communicator()
        .all_gather_bytes("comparing models", &model)?;
    if let Some(other) = models.iter().position(|other| *other != model) {
        return Err(format!("rank {other} has other weights than rank {rank}").into());
    }
    if last > first / 100.0 {
        return Err(format!("rank {rank}: the loss is {last} after {STEPS} steps, from {first}").into());
    }
    if rank == 0 {
        let copied = exchange.communicator().counters().bytes_copied;
        println!(
            "{ranks} ranks hold the same weights; loss {first:.3} -> {last:.6}; {copied} bytes of gradients copied"
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
