//! Whose gradients were used: the workers' records put together.

use serde::Serialize;

use crate::demo::members::Members;
use crate::demo::messages::{RunReport, WorkerReport};

/// What has become of a worker's gradients. Together the counts are the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Participation {
    /// In the mean.
    pub in_the_mean: u64,
    /// Computed, but not among the first.
    pub too_late: u64,
    /// Given up between two layers, when the step was decided without it.
    pub stopped: u64,
    /// Never begun: the worker was so far behind that it copied another's weights and went on from there.
    pub jumped_over: u64,
    /// Of a worker that died: not in the mean, be it before or after that.
    pub died: u64,
}

impl Participation {
    /// Steps whose mean did not contain this worker's gradient.
    pub fn dropped(&self) -> u64 {
        self.too_late + self.stopped + self.jumped_over + self.died
    }
}

/// By rank. `members`: of each step. (A member that was held up after its gradient was ready may jump over the very step.)
pub fn of_workers(workers: &[&RunReport], members: &[Members]) -> Vec<Participation> {
    let of_worker = |(rank, worker): (u32, &&RunReport)| {
        let mut counts = Participation::default();
        for record in &worker.steps {
            match record.ready {
                _ if members[record.step as usize].contains(rank) => counts.in_the_mean += 1,
                Some(_) => counts.too_late += 1,
                None => counts.stopped += 1,
            }
            counts.jumped_over += u64::from(record.until - record.step);
        }
        if worker.steps.is_empty() {
            // It died, and its record with it. What the others have says whose gradients were in the mean.
            let heard = members.iter().filter(|members| members.contains(rank));
            counts.in_the_mean = heard.count() as u64;
            counts.died = members.len() as u64 - counts.in_the_mean;
        }
        counts
    };
    (0..).zip(workers).map(of_worker).collect()
}

/// Who is too rare to be learnt from, by the rule of the exchange's own participation: fewer than one of ten means, of at
/// least 20. That one knows only the steps that one worker has seen; here all are known.
pub fn hardly_heard(workers: &[Participation]) -> Vec<u32> {
    let rare = |one: &Participation| {
        let steps = one.in_the_mean + one.dropped();
        steps >= 20 && 10 * one.in_the_mean < steps
    };
    let ranks = (0..).zip(workers);
    ranks.filter(|(_, one)| rare(one)).map(|(rank, _)| rank).collect()
}

/// Of each step of the main run, whose gradients its mean was of.
///
/// # Errors
/// A sentence, if two workers have seen different ones, or none has seen a step.
pub fn members_of_steps(reports: &[WorkerReport], steps: usize) -> Result<Vec<Members>, String> {
    let mut seen = vec![(Members::default(), 0); steps];
    for report in reports {
        for record in report
            .main()
            .steps
            .iter()
            .filter(|record| !record.members.is_empty())
        {
            let (members, rank) = &mut seen[record.step as usize];
            if members.is_empty() {
                (*members, *rank) = (record.members, report.rank);
            } else if *members != record.members {
                return Err(format!(
                    "step {}: the mean was of ranks {:?} for rank {rank}, of ranks {:?} for rank {}",
                    record.step,
                    members.iter().collect::<Vec<_>>(),
                    record.members.iter().collect::<Vec<_>>(),
                    report.rank
                ));
            }
        }
    }
    match seen.iter().position(|(members, _)| members.is_empty()) {
        Some(step) => Err(format!("step {step}: no worker that lives has seen its mean")),
        None => Ok(seen.into_iter().map(|(members, _)| members).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::record::StepRecord;

    fn record(step: u32, until: u32, ready: bool, members: &[u32]) -> StepRecord {
        StepRecord {
            step,
            until,
            begun: 0,
            took: 1,
            ready: ready.then_some(1),
            members: members.iter().copied().collect(),
        }
    }

    fn report(rank: u32, steps: Vec<StepRecord>) -> WorkerReport {
        WorkerReport {
            rank,
            with_backups: Some(RunReport {
                steps,
                ..RunReport::default()
            }),
            ..WorkerReport::default()
        }
    }

    #[test]
    fn what_became_of_each_gradient() {
        let reports = [
            report(0, (0..5).map(|step| record(step, step, true, &[0])).collect()),
            report(
                1,
                vec![
                    record(0, 0, true, &[0]),
                    record(1, 3, false, &[]),
                    record(4, 4, false, &[0]),
                ],
            ),
            report(2, vec![record(0, 4, true, &[])]),
        ];
        let members = members_of_steps(&reports, 5).unwrap();
        assert!(members.iter().all(|members| members.iter().eq([0])));
        let workers: Vec<_> = reports.iter().map(WorkerReport::main).collect();
        let counts = of_workers(&workers, &members);
        assert_eq!((counts[0].in_the_mean, counts[0].dropped()), (5, 0));
        let slow = Participation {
            in_the_mean: 0,
            too_late: 1,
            stopped: 2,
            jumped_over: 2,
            died: 0,
        };
        assert_eq!((counts[1], counts[1].dropped()), (slow, 5));
        assert!(hardly_heard(&counts).is_empty(), "too few steps to say so");
        let silent = RunReport::default();
        let dead = of_workers(&[&silent, workers[1]], &members)[0];
        assert_eq!((dead.in_the_mean, dead.died, dead.dropped()), (5, 0, 0));
        let dead = of_workers(&[workers[0], &silent], &members)[1];
        assert_eq!((dead.in_the_mean, dead.died), (0, 5));
        let rare = |in_the_mean, stopped| Participation {
            in_the_mean,
            stopped,
            ..Participation::default()
        };
        assert_eq!(hardly_heard(&[rare(20, 0), rare(1, 19), rare(2, 18)]), [1]);
        let mut members = members;
        members[0] = [2].into_iter().collect();
        let jumped = of_workers(&workers, &members)[2];
        assert_eq!(
            (jumped.in_the_mean, jumped.jumped_over),
            (1, 4),
            "a member that was held up"
        );
    }

    #[test]
    fn workers_that_saw_different_members_are_named() {
        let reports = [
            report(0, vec![record(0, 0, true, &[0, 2])]),
            report(1, vec![record(0, 0, true, &[0, 1])]),
        ];
        let said = members_of_steps(&reports, 1).unwrap_err();
        assert_eq!(
            said,
            "step 0: the mean was of ranks [0, 2] for rank 0, of ranks [0, 1] for rank 1"
        );
        let said = members_of_steps(&reports[..1], 2).unwrap_err();
        assert_eq!(said, "step 1: no worker that lives has seen its mean");
    }
}
