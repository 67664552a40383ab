//! An all-reduce between processes, or between threads where no launcher has started any.
//!
//!     cargo run --release --example all_reduce
//!     cargo build --release --examples && target/release/sapwood run -n 4 -- target/release/examples/all_reduce

use std::error::Error;
use std::thread;

use sapwood::bootstrap::Job;
use sapwood::communicator::Communicator;
use sapwood::engine::reduce::Operation;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const ELEMENTS: usize = 1 << 20;

/// What one rank does, be it a process or a thread.
fn rank(job: &Job) -> Outcome {
    let communicator = Communicator::builder().join(job)?;
    let (rank, ranks) = (communicator.rank(), communicator.size());

    // Collective: memory of this rank that all the others can read. It is used as a slice.
    let mut window = communicator.window::<f64>(ELEMENTS)?;
    for (index, element) in window.iter_mut().enumerate() {
        *element = f64::from(rank) + index as f64;
    }
    communicator.all_reduce(&mut window, Operation::Sum)?;

    // 0 + 1 + … + (ranks − 1), and the index once for each rank.
    let expected = |index: usize| f64::from(ranks * (ranks - 1) / 2) + f64::from(ranks) * index as f64;
    if let Some(index) = (0..ELEMENTS).find(|index| window[*index] != expected(*index)) {
        return Err(format!(
            "rank {rank}: element {index} is {}, not {}",
            window[index],
            expected(index)
        )
        .into());
    }
    let counters = communicator.counters();
    println!(
        "rank {rank} of {ranks}: {ELEMENTS} elements are right; {} bytes exchanged, {} copied",
        counters.bytes_exchanged, counters.bytes_copied
    );
    communicator.barrier()?;
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
