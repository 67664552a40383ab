//! A run with a slow worker, in threads, and one process that repeats it: from the recorded members, and without them.

use std::time::Duration;

use sapwood::bootstrap::Job;

use super::dataset::Dataset;
use super::findings::{WEIGHT_TOLERANCE, members_of_steps};
use super::gradients::Alone;
use super::members::Members;
use super::messages::{RunReport, WorkerReport};
use super::trainer::{Test, Trained, Training, train};
use super::workers;

const WORKERS: u32 = 4;

fn training() -> Training {
    Training {
        epochs: 2,
        batch: 100,
        seed: 1,
        slow: Duration::ZERO,
        kept_steps: 0..0,
        test: Test::Whole,
    }
}

/// Trains with one backup; rank `slow` sleeps in each step.
fn with_a_slow_one(data: &Dataset, slow: u32) -> Vec<WorkerReport> {
    let worker = |job: Job| {
        let delay = if job.rank == slow { 30 } else { 0 };
        let training = Training {
            slow: Duration::from_millis(delay),
            ..training()
        };
        let mut exchange = workers::exchanges(&job, "double-binary-tree", 1)
            .unwrap()
            .with_backups
            .unwrap();
        let trained = train(&mut exchange, data, &training, &mut |_| ()).unwrap();
        WorkerReport {
            rank: job.rank,
            with_backups: Some(RunReport::new(trained)),
            ..WorkerReport::default()
        }
    };
    std::thread::scope(|scope| {
        let jobs = Job::local(WORKERS).unwrap();
        let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(|| worker(job))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn repeated(data: &Dataset, members: Vec<Members>) -> Trained {
    let mut alone = Alone::replaying(WORKERS, members);
    train(&mut alone, data, &training(), &mut |_| ()).unwrap()
}

#[test]
fn dropped_gradients_are_repeated_step_by_step_and_nothing_else_matches() {
    let data = Dataset::load(None, 1).unwrap();
    let steps = 2 * 15;
    for slow in [0, 2] {
        let reports = with_a_slow_one(&data, slow);
        let members = members_of_steps(&reports, steps).unwrap();
        assert!(members.iter().all(|members| members.len() == WORKERS - 1));
        let weights = &reports[0].main().weights;
        assert!(reports.iter().all(|report| report.main().weights == *weights));
        let difference = |alone: &Trained| {
            let pairs = alone.model.weights().zip(weights);
            let differences = pairs.map(|(a, &b)| f64::from((a - f32::from_bits(b)).abs()));
            differences.fold(0.0, f64::max)
        };
        let exact = difference(&repeated(&data, members.clone()));
        assert!(exact <= WEIGHT_TOLERANCE, "rank {slow}: {exact}");
        let with_all = difference(&repeated(&data, Vec::new()));
        assert!(with_all > 10.0 * WEIGHT_TOLERANCE, "rank {slow}: {with_all}");
        let mut wrong = members;
        // Another three of the four.
        let right = wrong[steps / 2];
        let dropped = (0..WORKERS).find(|&rank| !right.contains(rank));
        wrong[steps / 2] = right.iter().skip(1).chain(dropped).collect();
        assert_eq!((wrong[steps / 2].len(), wrong[steps / 2] == right), (3, false));
        let one_step = difference(&repeated(&data, wrong));
        assert!(one_step > 10.0 * WEIGHT_TOLERANCE, "rank {slow}: {one_step}");
    }
}
