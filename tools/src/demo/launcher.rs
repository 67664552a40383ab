//! Runs the worker processes as ranks of a job, listens to them, and says in one sentence what went wrong.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use sapwood::bootstrap::{Rank, variable};

use super::messages::{Assignment, Message, WorkerReport};
use crate::output::Failure;
use crate::run::{Fabric, JobEnd, Launcher, RunError, Running};

/// How long the processes are watched between two looks at what the workers have said.
const SLICE: Duration = Duration::from_millis(50);
/// How long, after all processes have ended, for the last of what they said. With them their outputs have ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

enum Heard {
    Message(Message),
    /// The worker's output was no message.
    Nonsense(String),
}

/// What is known of a worker.
struct State {
    steps: usize,
    report: Option<WorkerReport>,
    failure: Option<String>,
    last_heard: Instant,
}

/// Runs `workers` workers to the end, on the hosts that they are to say they are on, if any; their reports are in the order of ranks. `progress` hears how many steps the
/// slowest has begun. An error is a sentence that names the rank.
pub fn run(
    workers: u32,
    (fabric, hosts): (Fabric, &dyn Fn(Rank) -> Option<String>),
    timeout: Duration,
    assignment: &Assignment,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<WorkerReport>, Failure> {
    let (mut running, receiver) = start(workers, (fabric, hosts), timeout, assignment)
        .map_err(|error| Failure::Check(format!("the workers cannot be started: {error}")))?;
    let begun = Instant::now();
    let mut states: Vec<State> = (0..workers)
        .map(|_| State {
            steps: 0,
            report: None,
            failure: None,
            last_heard: begun,
        })
        .collect();
    let end = loop {
        let end = running
            .poll(SLICE)
            .map_err(|error| Failure::Check(error.to_string()))?;
        for (rank, heard) in receiver.try_iter() {
            states[rank].hear(heard);
        }
        progress(slowest(&states));
        if let Some(end) = end {
            break end;
        }
        // A worker's own waits end first, with an error that says more.
        let patience = timeout + Duration::from_secs(2);
        let silent = running
            .alive()
            .filter(|&rank| states[rank as usize].last_heard.elapsed() > patience);
        let silent = list(silent);
        if !silent.is_empty() {
            return Err(Failure::Check(format!(
                "nothing was heard from rank {silent} for {timeout:?} (SAPWOOD_TIMEOUT); all workers were stopped"
            )));
        }
    };
    let until = Instant::now() + LAST_WORDS;
    while let Ok((rank, heard)) = receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
        states[rank].hear(heard);
    }
    judge(&end, states)
}

fn start(
    workers: u32,
    (fabric, hosts): (Fabric, &dyn Fn(Rank) -> Option<String>),
    timeout: Duration,
    assignment: &Assignment,
) -> Result<(Running, Receiver<(usize, Heard)>), RunError> {
    let failed = |doing| move |problem| RunError::System { doing, problem };
    let program = std::env::current_exe().map_err(failed("finding this program's own file"))?;
    let assignment = serde_json::to_string(assignment)
        .map_err(|error| RunError::Arguments(format!("the workers' assignment: {error}")))?;
    let launcher = Launcher::new(workers)?.fabric(fabric).timeout(timeout);
    let mut running = launcher.start(|rank| {
        let mut command = Command::new(&program);
        if let Some(host) = hosts(rank) {
            command.env(variable::HOST, host);
        }
        command
            .args(["demo-worker", &assignment])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    })?;
    let (sender, receiver) = channel();
    for rank in 0..workers {
        let Some(output) = running.take_stdout(rank) else {
            unreachable!("every worker's output was piped and nobody else takes it")
        };
        let sender = sender.clone();
        thread::Builder::new()
            .name(format!("worker-{rank}"))
            .spawn(move || read(rank as usize, output, &sender))
            .map_err(failed("starting a thread that reads a worker's output"))?;
    }
    Ok((running, receiver))
}

/// Hands on what a worker says, until its output ends or nobody listens.
fn read(rank: usize, output: ChildStdout, sender: &Sender<(usize, Heard)>) {
    for line in BufReader::new(output).lines() {
        let heard = match line.map(|line| serde_json::from_str(&line)) {
            Ok(Ok(message)) => Heard::Message(message),
            Ok(Err(error)) => Heard::Nonsense(format!("said something that is no message: {error}")),
            Err(error) => Heard::Nonsense(format!("cannot be read: {error}")),
        };
        if sender.send((rank, heard)).is_err() {
            return;
        }
    }
}

impl State {
    fn hear(&mut self, heard: Heard) {
        self.last_heard = Instant::now();
        match heard {
            Heard::Message(Message::Steps(steps)) => self.steps = steps,
            Heard::Message(Message::Done(report)) => self.report = Some(*report),
            Heard::Message(Message::Failed(sentence)) | Heard::Nonsense(sentence) => {
                self.failure.get_or_insert(sentence);
            }
        }
    }
}

/// The steps of the slowest worker that is still at work.
fn slowest(states: &[State]) -> usize {
    let busy = states.iter().filter(|state| state.report.is_none());
    busy.map(|state| state.steps).min().unwrap_or(0)
}

fn list(ranks: impl Iterator<Item = Rank>) -> String {
    ranks.map(|rank| rank.to_string()).collect::<Vec<_>>().join(", ")
}

/// The reports, or one sentence: on the worker that vanished rather than on those that noticed.
fn judge(end: &JobEnd, states: Vec<State>) -> Result<Vec<WorkerReport>, Failure> {
    if let (Some(signal), Some(sentence)) = (end.interrupted, end.failure()) {
        return Err(Failure::Interrupted { signal, sentence });
    }
    let stopped = "; the other workers were stopped";
    let vanished = end.ranks.iter().zip(&states).position(|(end, state)| {
        !end.status.success() && !end.killed_by_launcher && state.report.is_none() && state.failure.is_none()
    });
    if let Some(rank) = vanished {
        return Err(Failure::Check(format!(
            "rank {rank} {} after it had begun step {}{stopped}",
            end.ranks[rank], states[rank].steps
        )));
    }
    if let Some((rank, sentence)) = states
        .iter()
        .enumerate()
        .find_map(|(rank, state)| Some((rank, state.failure.as_ref()?)))
    {
        return Err(Failure::Check(format!("rank {rank}: {sentence}{stopped}")));
    }
    if let Some(failure) = end.failure() {
        return Err(Failure::Check(failure));
    }
    let mute = (0..)
        .zip(&states)
        .filter_map(|(rank, state)| state.report.is_none().then_some(rank));
    let mute = list(mute);
    if !mute.is_empty() {
        return Err(Failure::Check(format!("rank {mute} ended without a result")));
    }
    Ok(states.into_iter().filter_map(|state| state.report).collect())
}
