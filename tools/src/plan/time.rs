//! `sapwood plan time`: how long a plan takes by prediction, task by task, as a table.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use sapwood::bootstrap::variable;
use sapwood::engine::SLOT_BYTES;
use sapwood::plan::cost::{Candidate, Setting, Tuning};
use sapwood::plan::{builders, default_plan_on};
use serde_json::{Value, json};

use super::show::act;
use super::{CollectiveName, ReachName};
use crate::arguments::parse_size;
use crate::output::{Failure, Output};
use crate::table::{Align, Table};

/// Of more ranks than this only the tasks that the time hangs on are listed.
const LISTED_RANKS: usize = 8;
/// More are not played through.
const MOST_RANKS: i64 = 512;

#[derive(Debug, Args)]
pub(super) struct TimeArguments {
    /// The file of 'sapwood tune' to predict by; without it, the one that SAPWOOD_TUNING names
    #[arg(long, value_name = "FILE")]
    tuning: Option<PathBuf>,
    /// The plan's name; without it, the one that is chosen by the file
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// What the ranks do together
    #[arg(long, value_enum, default_value = "all-reduce")]
    collective: CollectiveName,
    /// How many ranks
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=MOST_RANKS))]
    ranks: u32,
    /// How many of them are on each host, neighbours first; without it, all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    of_host: Option<u32>,
    /// The root, for a collective that has one
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    root: u32,
    /// Bytes of the longest buffer of a rank (8, 4K, 64M, 1G)
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_size)]
    size: usize,
    /// What ranks can do with each other's memory
    #[arg(long, value_enum, default_value = "load-store")]
    reach: ReachName,
    /// Staging slots for each contribution, with message reach
    #[arg(long, value_name = "N", default_value_t = 8)]
    slots: u32,
    /// Input and result are the same memory
    #[arg(long)]
    in_place: bool,
    /// Also writes the figures as JSON to a file, or to standard output with '-'
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
}

pub(super) fn run(arguments: &TimeArguments) -> Result<ExitCode, Failure> {
    let refuse = |sentence: String| Failure::Arguments(sentence);
    if arguments.collective == CollectiveName::All || arguments.reach == ReachName::All {
        return Err(refuse(
            "time predicts one collective with one reach; all is for verify".into(),
        ));
    }
    let named = || std::env::var_os(variable::TUNING).map(PathBuf::from);
    let path = arguments.tuning.clone().or_else(named).ok_or_else(|| {
        refuse("--tuning: there is nothing to predict by; 'sapwood tune -o tuning.toml' measures it".into())
    })?;
    let tuning = Tuning::read(&path).map_err(|error| refuse(format!("--tuning: {error}")))?;
    let collective = arguments.collective.with_root(arguments.root)[0];
    let of_host = arguments.of_host.unwrap_or(arguments.ranks);
    let setting = Setting {
        hosts: (0..arguments.ranks).map(|rank| rank / of_host).collect(),
        reach: arguments.reach.with_slots(arguments.slots)[0],
        slot_bytes: SLOT_BYTES,
        most_tasks: usize::MAX,
    };
    let chosen = match &arguments.plan {
        Some(_) => None,
        None => tuning.choose(&setting, collective, arguments.size),
    };
    let (name, chunk) = match (&arguments.plan, chosen) {
        (Some(name), _) => (name.clone(), 1.0),
        (None, Some(chosen)) => (chosen.plan, chosen.chunk),
        (None, None) => (
            default_plan_on(collective, &setting.hosts, arguments.size).into_owned(),
            1.0,
        ),
    };
    let candidate = Candidate {
        plan: builders::build(&name, collective, arguments.ranks)?,
        chunk,
    };
    let model = tuning.model(&setting, &candidate, arguments.size, arguments.in_place);
    let model = model.map_err(|error| refuse(format!("--plan {name}: {error}")))?;
    let prediction = tuning.predict(&setting, &candidate, arguments.size, arguments.in_place);
    let prediction = prediction.map_err(|error| refuse(format!("--plan {name}: {error}")))?;

    let mut output = Output::open(arguments.json.as_deref())?;
    output.text(&format!(
        "{name}: {collective}, {} ranks, {} reach, {} bytes, chunks of up to {} bytes{}\n\
         predicted: {:.3} us; by the model alone {:.3} us\n\n",
        arguments.ranks,
        setting.reach.name(),
        arguments.size,
        candidate.chunk_bytes(arguments.size),
        if arguments.in_place { ", in place" } else { "" },
        prediction.time,
        model.time
    ));
    let mut table = Table::new(&[
        Align::Right,
        Align::Right,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
    ]);
    table.row([
        "rank",
        "task",
        "does",
        "starts(us)",
        "ends(us)",
        "busy(us)",
        "critical",
    ]);
    let mut tasks: Vec<Value> = Vec::new();
    let all = arguments.ranks as usize <= LISTED_RANKS;
    for (rank, times) in (0..).zip(&prediction.tasks) {
        let program = candidate.plan.lower(rank, setting.reach)?;
        for (number, (time, task)) in times.iter().zip(&program.tasks).enumerate() {
            tasks.push(json!({
                "rank": rank, "task": number, "start": time.start, "end": time.end, "busy": time.busy,
                "critical": time.critical,
            }));
            if all || time.critical {
                let times = [time.start, time.end, time.busy].map(|time| format!("{time:.3}"));
                let [start, end, busy] = times;
                let critical = if time.critical { "*" } else { "" }.to_owned();
                table.row([
                    rank.to_string(),
                    number.to_string(),
                    act(&task.action),
                    start,
                    end,
                    busy,
                    critical,
                ]);
            }
        }
    }
    output.text(&table.render(0));
    if !all {
        output.text("(of so many ranks only the tasks that the time hangs on are listed)\n");
    }
    output.json(&json!({
        "plan": name, "collective": collective.name(), "root": collective.root(), "ranks": arguments.ranks,
        "reach": setting.reach.name(), "size": arguments.size, "in_place": arguments.in_place,
        "chunk": candidate.chunk_bytes(arguments.size), "predicted": prediction.time, "model": model.time,
        "tasks": tasks,
    }))?;
    Ok(ExitCode::SUCCESS)
}
