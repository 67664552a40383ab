//! What has become of the workers' processes: what is known of each, and what that comes to. Says in one sentence what went
//! wrong; with backup workers some may have died, and nothing did.

use std::time::Instant;

use sapwood::bootstrap::Rank;

use super::launcher::Heard;
use super::messages::{Message, RunReport, WorkerReport};
use crate::output::Failure;
use crate::run::{JobEnd, RankEnd};

/// What is known of a worker.
pub struct State {
    /// Steps that it has begun, over all runs, when it last said so.
    pub begun: usize,
    /// Its run with backup workers.
    pub main: Option<RunReport>,
    /// All else.
    pub report: Option<WorkerReport>,
    /// Why it does not go on.
    pub failure: Option<String>,
    /// When it last said anything.
    pub last_heard: Instant,
}

/// A worker that died, and was not waited for.
#[derive(Clone, Debug)]
pub struct Death {
    /// Which.
    pub rank: Rank,
    /// Its process and how that ended.
    pub how: String,
    /// Steps that it had begun, over all runs, when it last said so.
    pub begun: usize,
    /// Whether it died in the run with backup workers.
    pub in_main: bool,
}

/// What all workers have come to.
#[derive(Debug)]
pub struct Outcome {
    /// By rank; of those that died, what they had reported.
    pub reports: Vec<WorkerReport>,
    /// No more than backups.
    pub deaths: Vec<Death>,
    /// Whether the run that waits for all has come to its end.
    pub waited: bool,
}

impl Outcome {
    /// Of a worker that has ended well: there is one.
    pub fn survivor(&self) -> &WorkerReport {
        let died = |report: &WorkerReport| self.deaths.iter().any(|death| death.rank == report.rank);
        let survivor = self.reports.iter().find(|report| !died(report));
        survivor.unwrap_or(&self.reports[0])
    }
}

impl State {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            begun: 0,
            main: None,
            report: None,
            failure: None,
            last_heard: Instant::now(),
        }
    }

    /// Takes in what it has said.
    pub fn hear(&mut self, heard: Heard) {
        self.last_heard = Instant::now();
        match heard {
            Heard::Message(Message::Steps(begun)) => self.begun = begun,
            Heard::Message(Message::Main(run)) => self.main = Some(*run),
            Heard::Message(Message::Done(report)) => self.report = Some(*report),
            Heard::Message(Message::Failed(sentence)) | Heard::Nonsense(sentence) => {
                self.failure.get_or_insert(sentence);
            }
        }
    }

    /// All that it has reported of its runs.
    fn into_report(self, rank: usize, spares: bool) -> WorkerReport {
        WorkerReport {
            rank: rank as Rank,
            with_backups: spares.then(|| self.main.unwrap_or_default()),
            ..self.report.unwrap_or_default()
        }
    }
}

/// What they have come to, `spared` of whom may have died; or one sentence: on those that vanished rather than on those
/// that noticed.
pub fn judge(end: &JobEnd, states: Vec<State>, spared: usize) -> Result<Outcome, Failure> {
    if let (Some(signal), Some(sentence)) = (end.interrupted, end.failure()) {
        return Err(Failure::Interrupted { signal, sentence });
    }
    let vanished = |(_, (end, state)): &(usize, (&RankEnd, &State))| {
        !end.status.success() && !end.killed_by_launcher && state.failure.is_none()
    };
    let dead: Vec<_> = end
        .ranks
        .iter()
        .zip(&states)
        .enumerate()
        .filter(vanished)
        .collect();
    let failed = states
        .iter()
        .enumerate()
        .find_map(|(rank, state)| Some((rank, state.failure.as_ref()?)));
    if dead.len() > spared || (failed.is_some() && !dead.is_empty()) {
        let one = |(rank, (end, state)): &(usize, (&RankEnd, &State))| {
            format!("rank {rank} {end} after it had begun step {}", state.begun)
        };
        let names = dead.iter().map(one).collect::<Vec<_>>().join("; ");
        let then = match (failed, spared) {
            _ if spared > 0 && dead.len() > spared => {
                let workers = if spared == 1 { "worker" } else { "workers" };
                format!(
                    "; {spared} {workers} can be spared (--backups), {} died",
                    dead.len()
                )
            }
            (Some((rank, sentence)), 1..) => format!("; then rank {rank}: {sentence}"),
            _ => "; the other workers were stopped".to_owned(),
        };
        return Err(Failure::Check(format!("{names}{then}")));
    }
    if let Some((rank, sentence)) = failed {
        return Err(Failure::Check(format!(
            "rank {rank}: {sentence}; the other workers were stopped"
        )));
    }
    if let (true, Some(failure)) = (dead.is_empty(), end.failure()) {
        return Err(Failure::Check(failure));
    }
    let deaths: Vec<_> = dead
        .iter()
        .map(|(rank, (end, state))| Death {
            rank: *rank as Rank,
            how: end.to_string(),
            begun: state.begun,
            in_main: state.main.is_none(),
        })
        .collect();
    let died = |rank: usize| deaths.iter().any(|death| death.rank as usize == rank);
    let mute = states.iter().enumerate();
    let mute = mute.filter(|(rank, state)| state.report.is_none() && !died(*rank));
    let mute: Vec<_> = mute.map(|(rank, _)| rank.to_string()).collect();
    if !mute.is_empty() {
        return Err(Failure::Check(format!(
            "rank {} ended without a result",
            mute.join(", ")
        )));
    }
    let complete = |state: &State| {
        let report = state.report.as_ref();
        report.is_some_and(|report| report.broken_off.is_none())
    };
    let waited = states.iter().all(complete);
    let reports = states.into_iter().enumerate();
    let reports: Vec<_> = reports
        .map(|(rank, state)| state.into_report(rank, spared > 0))
        .collect();
    if let (false, true) = (waited, deaths.is_empty()) {
        let mut broken = reports
            .iter()
            .filter_map(|report| Some((report.rank, report.broken_off.as_ref()?)));
        let (rank, why) = broken
            .next()
            .unwrap_or_else(|| unreachable!("some report is not complete"));
        return Err(Failure::Check(format!("rank {rank}: waiting for all: {why}")));
    }
    Ok(Outcome {
        reports,
        deaths,
        waited,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    /// Three workers of whom one may die: how each process ended (a wait status), and whether it has reported and what it
    /// has complained of.
    fn of(workers: [(i32, bool, Option<&str>); 3], spared: usize) -> Result<Outcome, String> {
        let ranks = workers.map(|(status, ..)| RankEnd {
            pid: 7,
            status: ExitStatus::from_raw(status),
            killed_by_launcher: false,
        });
        let end = JobEnd {
            first_failure: workers.iter().position(|one| one.0 != 0).map(|rank| rank as Rank),
            ranks: ranks.to_vec(),
            interrupted: None,
        };
        let state = |(_, reported, failure): (i32, bool, Option<&str>)| State {
            begun: 5,
            main: reported.then(RunReport::default),
            report: reported.then(WorkerReport::default),
            failure: failure.map(str::to_owned),
            ..State::new()
        };
        judge(&end, workers.map(state).into(), spared).map_err(|failure| failure.to_string())
    }

    const WELL: (i32, bool, Option<&str>) = (0, true, None);
    const KILLED: (i32, bool, Option<&str>) = (9, false, None);

    #[test]
    fn who_dies_is_spared_or_named() {
        let outcome = of([WELL, KILLED, WELL], 1).unwrap();
        assert!(!outcome.waited && outcome.deaths[0].in_main);
        assert_eq!((outcome.deaths[0].rank, outcome.survivor().rank), (1, 0));
        assert_eq!(outcome.deaths[0].how, "(process 7) was killed by SIGKILL");
        assert_eq!(outcome.reports.len(), 3);
        let late = of([(9, true, None), WELL, WELL], 1).unwrap();
        assert!(late.waited && !late.deaths[0].in_main);

        let said = of([WELL, KILLED, WELL], 0).unwrap_err();
        assert_eq!(
            said,
            "rank 1 (process 7) was killed by SIGKILL after it had begun step 5; the other workers were stopped"
        );
        let said = of([KILLED, KILLED, (256, false, Some("it cannot go on"))], 1).unwrap_err();
        assert!(
            said.contains("rank 1 ") && said.ends_with("1 worker can be spared (--backups), 2 died"),
            "{said}"
        );
        let said = of([KILLED, WELL, (256, false, Some("it cannot go on"))], 1).unwrap_err();
        assert!(said.ends_with("step 5; then rank 2: it cannot go on"), "{said}");
        let said = of([WELL, WELL, (256, false, Some("it cannot go on"))], 1).unwrap_err();
        assert_eq!(said, "rank 2: it cannot go on; the other workers were stopped");
        let said = of([WELL, WELL, (0, false, None)], 1).unwrap_err();
        assert_eq!(said, "rank 2 ended without a result");
    }
}
