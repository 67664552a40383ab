//! `sapwood plan show`: who does what, as a table, and the picture.

use std::process::ExitCode;

use sapwood::plan::dataflow::Layout;
use sapwood::plan::lowered::{Action, Buffer, Place, Program, Progress, Task, block_range, chunk_count};
use sapwood::plan::{builders, default_chunk_bytes, default_plan, draw};
use serde_json::{Value, json};

use super::{CollectiveName, ReachName, ShowArguments};
use crate::output::{Failure, Output};

/// Of more ranks than this only the first ones' tasks are listed.
const LISTED_RANKS: u32 = 64;

pub(super) fn run(arguments: &ShowArguments) -> Result<ExitCode, Failure> {
    if arguments.collective == CollectiveName::All || arguments.reach == ReachName::All {
        return Err(Failure::Arguments(
            "show draws one collective with one reach; all is for verify".into(),
        ));
    }
    let collective = arguments.collective.with_root(arguments.root)[0];
    let reach = arguments.reach.with_slots(arguments.slots)[0];
    let chosen = default_plan(collective, arguments.ranks, arguments.size);
    let name = arguments.plan.as_deref().unwrap_or(chosen);
    let plan = builders::build(name, collective, arguments.ranks)?;
    let programs = (0..plan.ranks().min(LISTED_RANKS))
        .map(|rank| plan.lower(rank, reach))
        .collect::<Result<Vec<Program>, _>>()?;

    let block = block_range(arguments.size, plan.blocks(), plan.blocks() - 1).len();
    let chunk = default_chunk_bytes(block);
    let mut output = Output::open(arguments.json.as_deref())?;
    let print = |line: String| output.text(&format!("{line}\n"));
    let root = collective
        .root()
        .map(|root| format!(" with root {root}"))
        .unwrap_or_default();
    print(format!(
        "{name}: {collective}{root}, {} ranks, {} reach",
        plan.ranks(),
        reach.name()
    ));
    print(format!(
        "{} bytes: {} blocks of up to {block} bytes, each {} chunks of up to {chunk} bytes",
        arguments.size,
        plan.blocks(),
        chunk_count(block, chunk)
    ));
    print_layout(&plan.rule().layout(), &print);
    print(String::new());
    let acts = programs.iter().flat_map(|program| &program.tasks);
    let width = acts
        .map(|task| act(&task.action).len())
        .max()
        .unwrap_or(0)
        .max(24);
    print(format!(
        "{:>5} {:>4} {:>7}  {:<width$}  waits for",
        "rank", "task", "block", "does"
    ));
    for program in &programs {
        for (number, task) in program.tasks.iter().enumerate() {
            let waits: Vec<String> = task
                .waits
                .iter()
                .map(|wait| match wait.progress {
                    Progress::Whole => format!("{}.{} whole", wait.rank, wait.task),
                    Progress::Chunk { lag: 0 } => format!("{}.{}", wait.rank, wait.task),
                    Progress::Chunk { lag } => format!("{}.{} -{lag}", wait.rank, wait.task),
                })
                .collect();
            let rank = program.rank;
            let block = blocks(program, task);
            let line = format!(
                "{rank:>5} {number:>4} {block:>7}  {:<width$}  {}",
                act(&task.action),
                waits.join(", ")
            );
            print(line.trim_end().to_owned());
        }
    }
    if plan.ranks() > LISTED_RANKS {
        print(format!(
            "(the tasks of ranks {LISTED_RANKS} to {} are not listed)",
            plan.ranks() - 1
        ));
    }
    if let Some(path) = &arguments.output {
        std::fs::write(path, draw::svg(&plan))
            .map_err(|error| Failure::Check(format!("--output {}: {error}", path.display())))?;
        print(format!("\nThe picture is in {}", path.display()));
    }
    if arguments.json.is_some() {
        let programs: Vec<Value> = programs.iter().map(program_json).collect();
        let document = json!({
            "plan": name, "collective": collective.name(), "root": collective.root(), "ranks": plan.ranks(),
            "reach": reach.name(), "blocks": plan.blocks(), "programs": programs,
        });
        output.json(&document)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_layout(layout: &Layout, print: &dyn Fn(String)) {
    match layout {
        Layout::Rings(strides) => strides.iter().for_each(|stride| {
            print(format!(
                "a ring: every rank passes to the one {stride} further, modulo their number"
            ));
        }),
        Layout::Rounds(distances) => {
            let distances = distances
                .iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            print(format!(
                "rounds: every rank passes to the one so many further: {distances}"
            ));
        }
        Layout::Complete => print("complete: every rank exchanges with every rank".to_owned()),
        Layout::Hosts { trees, hosts } => {
            let count = hosts.iter().max().map_or(0, |last| last + 1);
            print(format!("trees through {count} hosts"));
            for host in 0..count.min(LISTED_RANKS) {
                let ranks = (0..hosts.len()).filter(|&rank| hosts[rank] == host);
                print(format!("  host {host}: ranks {}", in_runs(ranks)));
            }
            print_layout(&Layout::Trees(trees.clone()), print);
        }
        Layout::Trees(trees) => {
            for (number, parents) in trees.iter().enumerate() {
                if trees.len() > 1 {
                    print(format!("\ntree {number} (block {number})"));
                } else {
                    print(String::new());
                }
                let root = parents.iter().position(Option::is_none).unwrap_or(0);
                print_subtree(parents, root, "", "", print);
            }
        }
    }
}

/// Ascending numbers, neighbours as a range.
fn in_runs(numbers: impl Iterator<Item = usize>) -> String {
    let numbers: Vec<usize> = numbers.collect();
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        [first, second] => format!("{first}, {second}"),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// The tree as text, a rank to a line; a subtree that is only a chain stays on one line.
fn print_subtree(parents: &[Option<u32>], rank: usize, lead: &str, below: &str, print: &dyn Fn(String)) {
    if parents.len() > LISTED_RANKS as usize {
        return print(format!(
            "(the tree of {} ranks is too large for text; --output draws it)",
            parents.len()
        ));
    }
    let children = |rank: usize| -> Vec<usize> {
        (0..parents.len())
            .filter(|&child| parents[child] == Some(rank as u32))
            .collect()
    };
    let mut line = format!("{lead}{rank}");
    let mut last = rank;
    while let [only] = children(last)[..] {
        line += &format!(" ── {only}");
        last = only;
    }
    print(line);
    let children = children(last);
    for (position, &child) in children.iter().enumerate() {
        let (branch, space) = if position + 1 == children.len() {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        print_subtree(
            parents,
            child,
            &format!("{below}{branch}"),
            &format!("{below}{space}"),
            print,
        );
    }
}

fn name_of(place: &Place) -> String {
    match place.buffer {
        Buffer::Input => format!("in{}", place.rank),
        Buffer::Result => format!("out{}", place.rank),
        Buffer::Staging { first, slots } => format!("slots{}[{first}+{slots}]", place.rank),
    }
}

pub(super) fn act(action: &Action) -> String {
    let names =
        |places: &[Place], between: &str| places.iter().map(name_of).collect::<Vec<_>>().join(between);
    match action {
        Action::Signal => "signal".to_owned(),
        Action::Reduce {
            sources,
            into,
            complete,
        } => {
            let done = if *complete { " (complete)" } else { "" };
            format!("{} := {}{done}", names(into, ", "), names(sources, " + "))
        }
        Action::Copy { source, into } => format!("{} := {}", names(into, ", "), name_of(source)),
    }
}

/// The blocks of a task: one, or the first and the last of a run.
fn blocks(program: &Program, task: &Task) -> String {
    match task.run.of(task.block, program.blocks).last() {
        Some(last) if task.run.is_long() => format!("{}..{last}", task.block),
        _ => task.block.to_string(),
    }
}

fn program_json(program: &Program) -> Value {
    let tasks: Vec<Value> = program
        .tasks
        .iter()
        .map(|task| {
            let waits: Vec<Value> = task
                .waits
                .iter()
                .map(|wait| {
                    let lag = match wait.progress {
                        Progress::Whole => Value::Null,
                        Progress::Chunk { lag } => json!(lag),
                    };
                    json!({"rank": wait.rank, "task": wait.task, "whole": lag.is_null(), "lag": lag, "ahead": wait.ahead})
                })
                .collect();
            json!({
                "block": task.block, "blocks": task.run.blocks, "backwards": task.run.backwards,
                "action": act(&task.action), "waits": waits, "notify": task.notify,
            })
        })
        .collect();
    json!({"rank": program.rank, "staging_slots": program.staging_slots, "tasks": tasks})
}
