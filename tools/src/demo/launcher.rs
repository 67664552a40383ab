//! Starts the worker processes, listens to them, and leaves none behind.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::messages::{Assignment, Message, WorkerReport};

/// How long to listen, after a first failure, for the one that caused it.
const AFTERMATH: Duration = Duration::from_secs(1);

/// The running workers; killed and waited for when dropped.
struct Workers(Vec<Child>);

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Fails only for a process that has been waited for.
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

enum Heard {
    Message(Message),
    /// The worker's output ended, or was no message.
    Ended(Option<String>),
}

/// What is known of a worker.
#[derive(Default)]
struct State {
    steps: usize,
    report: Option<WorkerReport>,
    failure: Option<String>,
    ended: bool,
    last_heard: Option<Instant>,
}

/// Runs one worker per assignment (in the order of ranks) to the end. `progress` hears how many steps the slowest
/// has begun. An error is a sentence that names the rank.
pub fn run(
    assignments: &[Assignment],
    timeout: Duration,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<WorkerReport>, String> {
    let (sender, receiver) = channel();
    let mut workers = Workers(Vec::new());
    for assignment in assignments {
        let child = start(assignment, sender.clone()).map_err(|error| {
            format!(
                "the worker process for rank {} cannot be started: {error}",
                assignment.rank
            )
        })?;
        workers.0.push(child);
    }
    drop(sender);
    let mut states: Vec<State> = assignments.iter().map(|_| State::default()).collect();
    let finished = listen(&receiver, &mut states, timeout, progress);
    if finished && states.iter().all(|state| state.report.is_some()) {
        for (worker, state) in workers.0.iter_mut().zip(&states) {
            let rank = state.report.as_ref().map_or(0, |report| report.rank);
            let status = worker.wait().map_err(|error| format!("rank {rank}: {error}"))?;
            if !status.success() {
                return Err(format!(
                    "rank {rank} reported its result and then {}",
                    describe(status)
                ));
            }
        }
        return Ok(states.into_iter().filter_map(|state| state.report).collect());
    }
    Err(explain(&mut workers, &states, timeout))
}

fn start(assignment: &Assignment, sender: Sender<(usize, Heard)>) -> std::io::Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("demo-worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = serde_json::to_vec(assignment)?;
    line.push(b'\n');
    let input = child.stdin.take();
    let output = child.stdout.take();
    let (Some(mut input), Some(output)) = (input, output) else {
        unreachable!("both were asked for")
    };
    // A worker that died at once is reported by its output's end, with its status.
    let _ = input.write_all(&line);
    let rank = assignment.rank as usize;
    thread::Builder::new()
        .name(format!("worker-{rank}"))
        .spawn(move || {
            for line in BufReader::new(output).lines() {
                let heard = match line
                    .map_err(|error| error.to_string())
                    .map(|line| serde_json::from_str(&line))
                {
                    Ok(Ok(message)) => Heard::Message(message),
                    Ok(Err(error)) => {
                        Heard::Ended(Some(format!("said something that is no message: {error}")))
                    }
                    Err(error) => Heard::Ended(Some(format!("cannot be read: {error}"))),
                };
                if sender.send((rank, heard)).is_err() {
                    return;
                }
            }
            let _ = sender.send((rank, Heard::Ended(None)));
        })?;
    Ok(child)
}

/// Listens until all have ended, one fell silent, or one failed and the others had time to follow. True when all ended.
fn listen(
    receiver: &Receiver<(usize, Heard)>,
    states: &mut [State],
    timeout: Duration,
    progress: &mut dyn FnMut(usize),
) -> bool {
    let begun = Instant::now();
    let mut first_failure: Option<Instant> = None;
    loop {
        if states.iter().all(|state| state.ended) {
            return true;
        }
        // A worker's own waits end first, with an error that says more.
        let silent = states
            .iter()
            .filter(|state| !state.ended)
            .map(|state| state.last_heard.unwrap_or(begun))
            .min();
        let mut until = silent.unwrap_or(begun) + timeout + Duration::from_secs(2);
        if let Some(failure) = first_failure {
            until = until.min(failure + AFTERMATH);
        }
        let (rank, heard) = match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        };
        let state = &mut states[rank];
        state.last_heard = Some(Instant::now());
        match heard {
            Heard::Message(Message::Steps(steps)) => state.steps = steps,
            Heard::Message(Message::Done(report)) => state.report = Some(*report),
            Heard::Message(Message::Failed(sentence)) => state.failure = Some(sentence),
            Heard::Ended(sentence) => {
                state.ended = true;
                state.failure = state.failure.take().or(sentence);
            }
        }
        if state.failure.is_some() || (state.ended && state.report.is_none()) {
            first_failure.get_or_insert_with(Instant::now);
        }
        progress(
            states
                .iter()
                .filter(|state| state.report.is_none())
                .map(|state| state.steps)
                .min()
                .unwrap_or(0),
        );
    }
}

/// One sentence: the worker that vanished rather than those that noticed.
fn explain(workers: &mut Workers, states: &[State], timeout: Duration) -> String {
    for (rank, (state, child)) in states.iter().zip(&mut workers.0).enumerate() {
        if state.report.is_none() && state.failure.is_none() && state.ended {
            let pid = child.id();
            let how = child
                .wait()
                .map_or_else(|error| format!("ended ({error})"), describe);
            return format!(
                "rank {rank} (process {pid}) {how} after it had begun step {}; the other workers were stopped",
                state.steps
            );
        }
    }
    for (rank, state) in states.iter().enumerate() {
        if let Some(sentence) = &state.failure {
            return format!("rank {rank}: {sentence}; the other workers were stopped");
        }
    }
    let silent: Vec<String> = (0..states.len())
        .filter(|&rank| !states[rank].ended)
        .map(|rank| rank.to_string())
        .collect();
    format!(
        "nothing was heard from rank {} for {timeout:?} (SAPWOOD_TIMEOUT); all workers were stopped",
        silent.join(", ")
    )
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}
