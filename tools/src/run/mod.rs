//! `sapwood run`: starts the ranks of a program on this host, and ends them together.
//!
//! [`Launcher`] is what the other sub-commands start their ranks with. No rank, and nothing that a rank has
//! started, outlives the launcher, however that ends.

mod death;
mod descendants;
mod ends;
mod guardian;
mod launcher;
mod outlet;
mod outputs;
mod placing;
mod process;
mod processes;
mod running;
mod setup;
mod signals;
mod tagging;
mod topology;

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use sapwood::bootstrap::BootstrapError;

use crate::arguments::parse_timeout;
use death::{OnDeath, OnDeathWord};
pub use ends::{JobEnd, RankEnd};
pub use launcher::{Launcher, Output};
use placing::Bind;
pub use running::Running;

/// How often each rank is started anew where nobody says.
const RESTARTS: u32 = 3;

/// Which fabric the ranks are to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fabric {
    /// The best that every pair of ranks has.
    #[default]
    Auto,
    /// Shared memory on this host.
    Shm,
    /// RDMA devices, between ranks of one host too.
    Verbs,
    /// Sockets, between ranks of one host too.
    Tcp,
}

impl Fabric {
    /// The value of `--fabric`; the error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "shm" => Ok(Self::Shm),
            "verbs" => Ok(Self::Verbs),
            "tcp" => Ok(Self::Tcp),
            _ => Err("no such fabric; auto, shm, verbs or tcp is needed".into()),
        }
    }

    /// The name, as in `SAPWOOD_FABRIC`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Shm => "shm",
            Self::Verbs => "verbs",
            Self::Tcp => "tcp",
        }
    }
}

/// The arguments of `sapwood run`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sapwood run -n 4 -- ./train --epochs 3\n\n\
                        sapwood run -n 8 --bind core --prefix -v -- ./train\n  \
                        sapwood run -n 4 --on-death restart --restarts 2 -- ./train\n\n\
                        Exits with the status of the first rank that failed, 128 + N if signal N ended it. Signals \
                        that would end, stop or continue it, SIGUSR1 and SIGUSR2 are passed on to all ranks. Ranks \
                        that were to end are killed after 5 s, at a second SIGINT or SIGQUIT, or at any such signal \
                        that comes more than 1 s after the first. With --prefix, output that nobody reads holds up \
                        the ranks alone; when the job ends by a signal or a failure it is lost after 2 or 30 s. The \
                        ranks' environment: 'sapwood help environment'.")]
pub struct RunArguments {
    /// How many ranks to start
    #[arg(short = 'n', long = "ranks", value_name = "N")]
    pub ranks: u32,
    /// What carries the bytes: auto, shm, verbs or tcp
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = Fabric::parse)]
    pub fabric: Fabric,
    /// How long a rank waits for the others before it gives up, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse_timeout)]
    pub timeout: Option<Duration>,
    /// Put "[rank] " before each line that a rank prints, to either output
    #[arg(short = 'l', long, alias = "tag-output")]
    pub prefix: bool,
    /// What to do when a rank exits with a failure or is killed
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnDeathWord::End)]
    pub on_death: OnDeathWord,
    /// How often each rank may be started anew, with --on-death restart [default: 3]
    #[arg(long, value_name = "TIMES")]
    pub restarts: Option<u32>,
    /// What to bind each rank to, of the CPUs that this process may use
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Bind::None)]
    pub bind: Bind,
    /// Say what was chosen: processes, CPUs, NUMA nodes
    #[arg(short, long)]
    pub verbose: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Why a job could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The arguments cannot be used; the sentence says what would be right.
    #[error("{0}")]
    Arguments(String),
    /// The program cannot be started.
    #[error("{program}: {problem}{}", remedy(.problem))]
    Program {
        /// The program as it was named.
        program: String,
        /// What the system said.
        problem: std::io::Error,
    },
    /// The job could not be described to its ranks.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The system refused something.
    #[error("{doing}: {problem}{}", remedy(.problem))]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        problem: std::io::Error,
    },
}

impl RunError {
    /// What the command exits with: 2 for bad arguments, 127 and 126 as a shell for a program that is not there or
    /// cannot be executed, 1 for everything else.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Arguments(_) => 2,
            Self::Program { problem, .. } if problem.kind() == std::io::ErrorKind::NotFound => 127,
            Self::Program { problem, .. } if problem.kind() == std::io::ErrorKind::PermissionDenied => 126,
            Self::Program { .. } | Self::Bootstrap(_) | Self::System { .. } => 1,
        })
    }
}

/// What mends a shortage that the system's own words do not explain.
fn remedy(problem: &std::io::Error) -> &'static str {
    match problem.raw_os_error() {
        Some(libc::EMFILE) => " (raise the limit on open files: ulimit -n)",
        Some(libc::EAGAIN) => {
            " (raise the limit on processes: ulimit -u, or on the address space: ulimit -v)"
        }
        _ => "",
    }
}

/// Runs the program and hands on its exit status. What went wrong on a rank is said on stderr.
///
/// # Errors
/// If the job cannot be started; nothing of it is left running then.
pub fn run(arguments: RunArguments) -> Result<ExitCode, RunError> {
    run_beside(arguments, false)
}

/// As [`run`], in a process that may have other children besides.
fn run_beside(arguments: RunArguments, others: bool) -> Result<ExitCode, RunError> {
    let on_death = match (arguments.on_death, arguments.restarts) {
        (OnDeathWord::Restart, times) => OnDeath::Restart(times.unwrap_or(RESTARTS)),
        (_, Some(times)) => {
            return Err(RunError::Arguments(format!(
                "--restarts {times} needs --on-death restart, which starts ranks anew"
            )));
        }
        (OnDeathWord::End, None) => OnDeath::End,
        (OnDeathWord::Keep, None) => OnDeath::Keep,
    };
    let mut launcher = Launcher::new(arguments.ranks)?.fabric(arguments.fabric);
    if let Some(timeout) = arguments.timeout {
        launcher = launcher.timeout(timeout);
    }
    let Some((program, rest)) = arguments.command.split_first() else {
        return Err(RunError::Arguments(
            "no program was given: sapwood run -n 4 -- ./program".into(),
        ));
    };
    if arguments.prefix {
        launcher = launcher.output(Output::Tagged);
    }
    let (places, odd) = placing::places(arguments.bind, arguments.ranks)?;
    if let Some(odd) = odd {
        eprintln!("sapwood run: --bind: {odd}");
    }
    let (program, rest) = (program.clone(), rest.to_vec());
    let launcher = launcher.on_death(on_death).places(places.clone()).alone(!others);
    let running = launcher.start_for_good(move |_| {
        let mut command = Command::new(&program);
        command.args(&rest);
        command
    })?;
    if arguments.verbose {
        for (rank, pid) in running.pids().enumerate() {
            match places.get(rank) {
                Some(place) => eprintln!("sapwood run: rank {rank} is process {pid}, bound to {place}"),
                None => eprintln!("sapwood run: rank {rank} is process {pid}, bound to nothing"),
            }
        }
    }
    let end = running.wait()?;
    if let Some(failure) = end.failure() {
        outlet::say_at_last(&format!("sapwood run: {failure}"));
    }
    Ok(end.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Scratch {
        #[command(flatten)]
        run: RunArguments,
    }

    fn run_with(arguments: &[&str]) -> Result<ExitCode, RunError> {
        let parsed = Scratch::try_parse_from([&["run"], arguments].concat());
        run_beside(parsed.unwrap_or_else(|error| panic!("{error}")).run, true)
    }

    #[test]
    fn bad_arguments_are_refused_in_one_line() {
        for (arguments, wanted) in [
            (&["-n", "0", "--", "true"][..], "1 to 4096"),
            (&["-n", "4097", "--", "true"], "1 to 4096"),
            (
                &["-n", "2", "--restarts", "1", "--", "true"],
                "--on-death restart",
            ),
        ] {
            let error = run_with(arguments).unwrap_err();
            assert!(matches!(error, RunError::Arguments(_)), "{error}");
            let text = error.to_string();
            assert!(text.contains(wanted) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run_with(&["-n", "2", "--", "/nonexistent/program"]).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/program: "), "{error}");
        assert_eq!(
            format!("{:?}", error.exit_code()),
            format!("{:?}", ExitCode::from(127))
        );
        let error = run_with(&["-n", "2", "--", "/dev/null"]).unwrap_err();
        assert_eq!(
            format!("{:?}", error.exit_code()),
            format!("{:?}", ExitCode::from(126))
        );
    }

    #[test]
    fn what_a_rank_leaves_behind_is_ended_with_the_job() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}", file.display());
        let running = Launcher::new(1).unwrap().start(|_| {
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            command
        });
        assert_eq!(running.unwrap().wait().unwrap().failure(), None);
        let pid = std::fs::read_to_string(file).unwrap();
        // Killed, though its new parent may not have waited for it yet.
        let state = || {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
            status.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0])
        };
        let patience = std::time::Instant::now() + Duration::from_secs(20);
        while !matches!(state(), None | Some(b'Z')) {
            assert!(
                std::time::Instant::now() < patience,
                "process {pid} is still there"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_job_that_is_dropped_leaves_no_rank() {
        let running = Launcher::new(3).unwrap().start(|_| {
            let mut command = Command::new("sleep");
            command.arg("1000");
            command
        });
        let running = running.unwrap();
        let pids: Vec<u32> = running.pids().collect();
        drop(running);
        assert_eq!(pids.len(), 3);
        assert!(
            pids.iter()
                .all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
        );
    }

    #[test]
    fn the_rank_that_failed_first_is_named() {
        let running = Launcher::new(3).unwrap().start(|rank| {
            let mut command = Command::new("sh");
            command.args(["-c", if rank == 1 { "kill -SEGV $$" } else { "sleep 1000" }]);
            command
        });
        let end = running.unwrap().wait().unwrap();
        let failure = end.failure().unwrap();
        assert!(
            failure.starts_with("rank 1 ") && failure.contains("SIGSEGV"),
            "{failure}"
        );
        assert!(end.ranks[2].killed_by_launcher && !end.ranks[1].killed_by_launcher);
    }

    #[test]
    fn the_status_is_handed_on() {
        for (script, wanted) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
            let code = run_with(&["-n", "2", "--", "sh", "-c", script]).unwrap();
            assert_eq!(
                format!("{code:?}"),
                format!("{:?}", ExitCode::from(wanted)),
                "{script}"
            );
        }
    }
}
