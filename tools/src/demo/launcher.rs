//! Runs the worker processes as ranks of a job, listens to them, tells them whether to go on after the run with backup
//! workers, and judges in the end, by [`super::outcome`], what it has heard.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use sapwood::bootstrap::{Rank, variable};

use super::messages::{Assignment, GO_ON, Message, THAT_IS_ALL};
use super::outcome::{Outcome, State, judge};
use crate::output::Failure;
use crate::run::{Fabric, Launcher, RunError, Running};

/// How long the processes are watched between two looks at what the workers have said.
const SLICE: Duration = Duration::from_millis(50);
/// How long, after all processes have ended, for the last of what they said. With them their outputs have ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How the workers are to be started.
pub struct Start<'a> {
    /// How many.
    pub workers: u32,
    /// What carries the gradients.
    pub fabric: Fabric,
    /// The host that each is to say it is on, if any.
    pub host: &'a dyn Fn(Rank) -> Option<String>,
    /// The deadline of every wait.
    pub timeout: Duration,
    /// What they are to do.
    pub assignment: &'a Assignment,
}

/// What a worker has said.
pub enum Heard {
    /// As agreed.
    Message(Message),
    /// The worker's output was no message.
    Nonsense(String),
}

/// Runs workers to the end. `progress` hears how many steps the slowest has begun. An error is a sentence that names the rank.
pub fn run(start: &Start<'_>, progress: &mut dyn FnMut(usize)) -> Result<Outcome, Failure> {
    let (mut running, (receiver, mut inputs)) = start
        .start()
        .map_err(|error| Failure::Check(format!("the workers cannot be started: {error}")))?;
    let spared = start.assignment.backups as usize;
    let mut states: Vec<State> = (0..start.workers).map(|_| State::new()).collect();
    let (mut told, mut trains, mut noticed) = (spared == 0, false, 0);
    let end = loop {
        let end = running
            .poll(SLICE)
            .map_err(|error| Failure::Check(error.to_string()))?;
        for (rank, heard) in receiver.try_iter() {
            states[rank].hear(heard);
        }
        progress(slowest(&states, &running));
        if !trains && states.iter().all(|state| state.begun > 0) {
            trains = true;
            tracing::info!(workers = start.workers, "all workers train");
        }
        let failed: Vec<_> = running.failed().collect();
        if failed.len() > noticed && failed.len() <= spared {
            noticed = failed.len();
            let names = failed.iter().map(|(rank, end)| format!("rank {rank} {end}"));
            tracing::warn!(
                "{}; the other workers go on",
                names.collect::<Vec<_>>().join(", ")
            );
        }
        if let Some(end) = end {
            break end;
        }
        if failed.len() > spared || states.iter().any(|state| state.failure.is_some()) {
            running.end_soon();
        }
        let alive: Vec<Rank> = running.alive().collect();
        if !told && alive.iter().all(|&rank| states[rank as usize].main.is_some()) {
            told = true;
            let line = match alive.len() == states.len() {
                true => GO_ON,
                false => THAT_IS_ALL,
            };
            tracing::info!("the run with backup workers is over; {line}");
            for (input, state) in inputs.iter_mut().zip(&mut states) {
                // One that dies just now does not read it.
                let _ = writeln!(input, "{line}");
                state.last_heard = Instant::now();
            }
        }
        // A worker's own waits end first, with an error that says more.
        let patience = start.timeout + Duration::from_secs(2);
        let silent = alive.into_iter().filter(|&rank| {
            let state = &states[rank as usize];
            state.last_heard.elapsed() > patience && (told || state.main.is_none())
        });
        let silent: Vec<_> = silent.map(|rank| rank.to_string()).collect();
        if !silent.is_empty() {
            return Err(Failure::Check(format!(
                "nothing was heard from rank {} for {:?} (SAPWOOD_TIMEOUT); all workers were stopped",
                silent.join(", "),
                start.timeout
            )));
        }
    };
    let until = Instant::now() + LAST_WORDS;
    while let Ok((rank, heard)) = receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
        states[rank].hear(heard);
    }
    judge(&end, states, spared)
}

/// What the workers say, by rank, and what they are told by.
type Lines = (Receiver<(usize, Heard)>, Vec<ChildStdin>);

impl Start<'_> {
    fn start(&self) -> Result<(Running, Lines), RunError> {
        let failed = |doing| move |problem| RunError::System { doing, problem };
        let program = std::env::current_exe().map_err(failed("finding this program's own file"))?;
        let assignment = serde_json::to_string(self.assignment)
            .map_err(|error| RunError::Arguments(format!("the workers' assignment: {error}")))?;
        let spares = self.assignment.backups > 0;
        let mut launcher = Launcher::new(self.workers)?
            .fabric(self.fabric)
            .timeout(self.timeout);
        if spares {
            launcher = launcher.watched();
        }
        let mut running = launcher.start(|rank| {
            let mut command = Command::new(&program);
            if let Some(host) = (self.host)(rank) {
                command.env(variable::HOST, host);
            }
            command
                .args(["demo-worker", &assignment])
                .stdin(if spares { Stdio::piped() } else { Stdio::null() })
                .stdout(Stdio::piped());
            command
        })?;
        let lines = listen(&mut running, self.workers)
            .map_err(failed("starting a thread that reads a worker's output"))?;
        Ok((running, lines))
    }
}

fn listen(running: &mut Running, workers: u32) -> std::io::Result<Lines> {
    let (sender, receiver) = channel();
    let mut inputs = Vec::new();
    for rank in 0..workers {
        let Some(output) = running.take_stdout(rank) else {
            unreachable!("every worker's output was piped and nobody else takes it")
        };
        inputs.extend(running.take_stdin(rank));
        let sender = sender.clone();
        thread::Builder::new()
            .name(format!("worker-{rank}"))
            .spawn(move || read(rank as usize, output, &sender))?;
    }
    Ok((receiver, inputs))
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

/// The steps of the slowest worker that is still at work.
fn slowest(states: &[State], running: &Running) -> usize {
    let busy = running.alive().map(|rank| &states[rank as usize]);
    let busy = busy.filter(|state| state.report.is_none());
    busy.map(|state| state.begun).min().unwrap_or(0)
}
