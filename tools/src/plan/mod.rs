//! `sapwood plan`: draws a plan, proves it. Reads arguments and writes tables; all knowledge of plans is the library's.

mod show;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use sapwood::plan::{Collective, MAX_RANKS, PlanError, Reach};

/// What `sapwood plan` takes.
#[derive(Debug, Args)]
pub struct PlanArguments {
    #[command(subcommand)]
    command: PlanCommand,
}

#[derive(Debug, Subcommand)]
enum PlanCommand {
    /// Draw a plan, and list what each rank does
    #[command(
        after_help = "Example:\n  sapwood plan show --plan double-binary-tree --ranks 16 --output trees.svg"
    )]
    Show(ShowArguments),
    /// Prove that plans do what they promise, whatever the timing
    #[command(after_help = "Example:\n  sapwood plan verify --plan all --ranks 1-64")]
    Verify(VerifyArguments),
}

/// A collective, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CollectiveName {
    AllReduce,
    Reduce,
    Broadcast,
    Barrier,
    /// Each of them
    All,
}

impl CollectiveName {
    fn with_root(self, root: u32) -> Vec<Collective> {
        match self {
            Self::AllReduce => vec![Collective::AllReduce],
            Self::Reduce => vec![Collective::Reduce { root }],
            Self::Broadcast => vec![Collective::Broadcast { root }],
            Self::Barrier => vec![Collective::Barrier],
            Self::All => [Self::AllReduce, Self::Reduce, Self::Broadcast, Self::Barrier]
                .into_iter()
                .flat_map(|one| one.with_root(root))
                .collect(),
        }
    }
}

/// A kind of reach, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReachName {
    /// Ranks read each other's memory, as on one host
    LoadStore,
    /// Ranks write into each other's memory with messages, as over a network
    Message,
    /// Each of them
    All,
}

impl ReachName {
    fn with_slots(self, slots: u32) -> Vec<Reach> {
        match self {
            Self::LoadStore => vec![Reach::LoadStore],
            Self::Message => vec![Reach::Message { slots }],
            Self::All => vec![Reach::LoadStore, Reach::Message { slots }],
        }
    }
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// The plan's name; without it, the one that the built-in table has for the size
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// What the ranks do together
    #[arg(long, value_enum, default_value = "all-reduce")]
    collective: CollectiveName,
    /// How many ranks
    #[arg(long, value_name = "N", default_value_t = 8)]
    ranks: u32,
    /// The root of a reduce or broadcast
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    root: u32,
    /// Bytes of each rank's vector, for the choice of the plan and the number of chunks (8, 4K, 64M, 1G)
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_size)]
    size: usize,
    /// What ranks can do with each other's memory
    #[arg(long, value_enum, default_value = "load-store")]
    reach: ReachName,
    /// Staging slots for each contribution, with message reach
    #[arg(long, value_name = "N", default_value_t = 8)]
    slots: u32,
    /// Write the picture there, as SVG
    #[arg(long, value_name = "FILE.svg")]
    output: Option<PathBuf>,
    /// Write the lowered plan as JSON (- for standard output)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct VerifyArguments {
    /// The plan's name, or all
    #[arg(long, value_name = "NAME|all", default_value = "all")]
    plan: String,
    /// What the ranks do together
    #[arg(long, value_enum, default_value = "all")]
    collective: CollectiveName,
    /// How many ranks: one number or a range such as 1-64
    #[arg(long, value_name = "N|A-B", default_value = "1-16", value_parser = parse_range)]
    ranks: (u32, u32),
    /// The root of a reduce or broadcast; the last rank where there are fewer
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    root: u32,
    /// What ranks can do with each other's memory
    #[arg(long, value_enum, default_value = "all")]
    reach: ReachName,
    /// Staging slots for each contribution, with message reach
    #[arg(long, value_name = "N", default_value_t = 8)]
    slots: u32,
    /// Write the same figures as JSON (- for standard output)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Why a sub-command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum PlanCommandError {
    /// The arguments do not fit together: exit status 2.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The arguments do not fit together: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// A file could not be written: exit status 1.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl PlanCommandError {
    /// The status to exit with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Plan(_) | Self::Usage(_) => ExitCode::from(2),
            Self::Write { .. } => ExitCode::from(1),
        }
    }
}

/// Runs `sapwood plan`.
///
/// # Errors
/// Bad arguments and files that cannot be written; [`PlanCommandError::exit_code`] says which status that is. A plan
/// that is not proved is no error here but the status 1.
pub fn run(arguments: PlanArguments) -> Result<ExitCode, PlanCommandError> {
    match arguments.command {
        PlanCommand::Show(arguments) => show::run(&arguments),
        PlanCommand::Verify(arguments) => verify::run(&arguments),
    }
}

fn parse_range(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| {
        text.trim()
            .parse::<u32>()
            .ok()
            .filter(|n| (1..=MAX_RANKS).contains(n))
    };
    let range = match text.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)),
        None => number(text).map(|one| (one, one)),
    };
    range.filter(|(first, last)| first <= last).ok_or_else(|| {
        format!("\"{text}\" is not a number of ranks from 1 to {MAX_RANKS} or a range such as 1-64")
    })
}

fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.trim_end_matches(['B', 'b']).char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let bytes = digits
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| format!("\"{text}\" is not a size such as 8, 4K, 64M or 1G"))
}

/// Writes text to a file, or to standard output for `-`.
fn write(path: &std::path::Path, text: &str) -> Result<(), PlanCommandError> {
    let written = if path.as_os_str() == "-" {
        use std::io::Write;
        std::io::stdout().write_all(text.as_bytes())
    } else {
        std::fs::write(path, text)
    };
    written.map_err(|source| PlanCommandError::Write {
        path: path.display().to_string(),
        source,
    })
}

/// Whether the table has to make way for JSON on standard output.
fn json_on_stdout(json: Option<&PathBuf>) -> bool {
    json.is_some_and(|path| path.as_os_str() == "-")
}

/// Prints a line of the table where it belongs.
fn say(to_stderr: bool, line: &str) {
    use std::io::Write;
    // A reader that has gone away is no failure of ours.
    let _ = if to_stderr {
        writeln!(std::io::stderr(), "{line}")
    } else {
        writeln!(std::io::stdout(), "{line}")
    };
}
