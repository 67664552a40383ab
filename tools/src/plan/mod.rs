//! `sapwood plan`: draws a plan, proves it, times it by prediction. Reads arguments and writes tables; all knowledge of plans is the library's.

mod show;
mod time;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use sapwood::plan::{Collective, MAX_RANKS, PlanError, Reach};

use crate::arguments::parse_size;
use crate::output::Failure;

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
    /// Predict how long a plan takes, and which of its tasks that hangs on
    #[command(after_help = "Example:\n  sapwood tune --ranks 4 -o tuning.toml\n  \
                      sapwood plan time --plan ring --ranks 4 --size 1M --tuning tuning.toml")]
    Time(time::TimeArguments),
}

/// A collective, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CollectiveName {
    AllReduce,
    Reduce,
    Broadcast,
    Barrier,
    ReduceScatter,
    AllGather,
    Gather,
    Scatter,
    AllToAll,
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
            Self::ReduceScatter => vec![Collective::ReduceScatter],
            Self::AllGather => vec![Collective::AllGather],
            Self::Gather => vec![Collective::Gather { root }],
            Self::Scatter => vec![Collective::Scatter { root }],
            Self::AllToAll => vec![Collective::AllToAll],
            Self::All => Self::value_variants()
                .iter()
                .filter(|one| **one != Self::All)
                .flat_map(|one| one.with_root(root))
                .collect(),
        }
    }
}

/// A kind of reach, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReachName {
    /// Ranks read each other's memory, and nobody but the owner writes, as backup workers will need it on one host
    Load,
    /// Ranks read and write each other's memory, as on one host
    LoadStore,
    /// Ranks write into each other's memory with messages, as over a network
    Message,
    /// Each of them
    All,
}

impl ReachName {
    fn with_slots(self, slots: u32) -> Vec<Reach> {
        match self {
            Self::Load => vec![Reach::Load],
            Self::LoadStore => vec![Reach::LoadStore],
            Self::Message => vec![Reach::Message { slots }],
            Self::All => vec![Reach::Load, Reach::LoadStore, Reach::Message { slots }],
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
    /// The root, for a collective that has one
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
    json: Option<String>,
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
    /// The root, for a collective that has one; the last rank where there are fewer
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
    json: Option<String>,
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::Arguments(error.to_string())
    }
}

/// Runs `sapwood plan`. A plan that is not proved is no error here but the status 1.
pub fn run(arguments: &PlanArguments) -> Result<ExitCode, Failure> {
    match &arguments.command {
        PlanCommand::Show(arguments) => show::run(arguments),
        PlanCommand::Verify(arguments) => verify::run(arguments),
        PlanCommand::Time(arguments) => time::run(arguments),
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
