//! The `sapwood` command. Each sub-command is a module; this file only reads arguments and hands on exit codes.

mod arguments;
mod bench;
mod binding;
mod demo;
mod devices;
mod help;
mod output;
mod perf;
mod plan;
mod report;
mod run;
mod sim;
mod table;
mod tune;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use output::Failure;
use tracing_subscriber::EnvFilter;

/// Sapwood: gradients exchanged along pipelined trees, through memory that is registered once and copied never.
#[derive(Parser)]
#[command(
    name = "sapwood",
    version,
    disable_help_subcommand = true,
    after_help = "SAPWOOD_LOG=info says what was chosen and why, debug says more, on standard error; \
                  'sapwood help environment' lists all variables."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What exists. A new sub-command is one line here and one in [`dispatch`].
#[derive(Subcommand)]
enum Command {
    Demo(demo::DemoArguments),
    /// Starts ranks of a program on this host, and ends them together
    Run(run::RunArguments),
    Bench(bench::BenchArguments),
    Perf(Box<perf::PerfArguments>),
    Devices(devices::DevicesArguments),
    Help(help::HelpArguments),
    Tune(tune::TuneArguments),
    /// Draws a plan, times it by prediction, or proves it: every contribution exactly once, no deadlock, nothing reused too
    /// early
    Plan(plan::PlanArguments),
    /// Repeats an experiment of a paper in virtual time: how many backup workers?
    Sim(sim::SimArguments),
    #[command(hide = true)]
    DemoWorker {
        /// What to do, as JSON.
        assignment: Option<String>,
    },
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Run(arguments) => match run::run(arguments) {
            Ok(code) => Ok(code),
            Err(error) => {
                eprintln!("sapwood: {error}");
                Ok(error.exit_code())
            }
        },
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Perf(arguments) => perf::run(&arguments),
        Command::Devices(arguments) => devices::run(&arguments),
        Command::Help(arguments) => Ok(help::run(&arguments, Arguments::command())),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::DemoWorker { assignment } => demo::worker::run(assignment.as_deref()),
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return answer(&error),
    };
    let ended = start_log().and_then(|()| {
        // What starts ranks says it then, and a rank leaves it to that or to rank 0.
        let later = matches!(
            arguments.command,
            Command::Bench(_)
                | Command::Demo(_)
                | Command::DemoWorker { .. }
                | Command::Perf(_)
                | Command::Run(_)
                | Command::Tune(_)
        );
        if !later {
            sapwood::bootstrap::warn_of_unknown_variables();
        }
        dispatch(arguments.command)
    });
    ended.unwrap_or_else(|failure| {
        eprintln!("sapwood: {failure}");
        ExitCode::from(failure.status())
    })
}

/// `SAPWOOD_LOG` says what is logged to standard error; warnings if it is absent.
fn start_log() -> Result<(), Failure> {
    let directives = std::env::var("SAPWOOD_LOG").unwrap_or_default();
    let directives = if directives.is_empty() {
        "warn"
    } else {
        &directives
    };
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::Arguments(format!(
            "SAPWOOD_LOG={directives}: {error}; a level is needed (error, warn, info, debug, trace)"
        ))
    })?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Help and version go to standard output; everything else is one line on standard error, and status 2.
fn answer(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print!("{error}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("sapwood: {}", one_line(error));
            ExitCode::from(2)
        }
    }
}

/// A parser's error without its paragraphs: what was wrong, what would be right, where the rest is said.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is needed; 'sapwood --help' lists them".to_owned();
    }
    let text = error.to_string();
    let mut help = "sapwood --help".to_owned();
    let mut parts = Vec::new();
    for paragraph in text.split("\n\n") {
        let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(usage) = words.strip_prefix("Usage: ") {
            let names = usage
                .split(' ')
                .take_while(|word| word.starts_with(|first: char| first.is_ascii_lowercase()));
            help = names.chain(["--help"]).collect::<Vec<_>>().join(" ");
        } else if !words.is_empty() && !words.starts_with("For more information") {
            parts.push(words.strip_prefix("error: ").unwrap_or(&words).to_owned());
        }
    }
    format!("{} (see '{help}')", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> String {
        one_line(
            &Arguments::try_parse_from(line.split_whitespace())
                .err()
                .expect("refused"),
        )
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn errors_are_one_line_that_says_what_would_be_right() {
        for (line, parts) in [
            ("sapwood", ["a command is needed", "sapwood --help"]),
            ("sapwood demi", ["unrecognized subcommand 'demi'", "'demo'"]),
            (
                "sapwood demo --worker 4",
                ["unexpected argument '--worker'", "'--workers'"],
            ),
            (
                "sapwood demo --workers 0",
                ["'0' for '--workers <M>'", "a whole number from 1 to 64 is needed"],
            ),
            (
                "sapwood demo --slow 3",
                ["'3' for '--slow <RANK:MS>'", "as in 3:50"],
            ),
            ("sapwood demo --epochs", ["'--epochs <N>'", "none was supplied"]),
            (
                "sapwood demo extra",
                ["unexpected argument 'extra'", "see 'sapwood demo --help'"],
            ),
        ] {
            let said = said(line);
            assert!(!said.contains('\n') && !said.contains("error:"), "{line}: {said}");
            assert!(parts.iter().all(|part| said.contains(part)), "{line}: {said}");
        }
    }

    #[test]
    fn help_names_only_what_is_built() {
        let help = Arguments::command().render_help().to_string();
        assert!(help.contains("demo") && !help.contains("demo-worker"), "{help}");
    }
}
