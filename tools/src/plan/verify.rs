//! `sapwood plan verify`: proves plans and says how much was looked at.

use std::process::ExitCode;
use std::time::Instant;

use sapwood::plan::verify::verify;
use sapwood::plan::{PlanError, builders};
use serde_json::{Value, json};

use super::{CollectiveName, VerifyArguments};
use crate::output::{Failure, Output};

pub(super) fn run(arguments: &VerifyArguments) -> Result<ExitCode, Failure> {
    let every = arguments.plan == "all";
    let names: Vec<&str> = if every {
        builders::ALL.iter().map(|builder| builder.name).collect()
    } else {
        vec![&arguments.plan]
    };
    let (first, last) = arguments.ranks;
    if arguments.root >= last {
        return Err(PlanError::Root {
            root: arguments.root,
            ranks: last,
        }
        .into());
    }
    // Everything that can be wrong with the arguments is found before the first row.
    for name in &names {
        let found = builders::find(name)?;
        let takes_what_there_is = every || arguments.collective == CollectiveName::All;
        for collective in arguments.collective.with_root(arguments.root) {
            match found.build(collective, last) {
                Err(PlanError::Unsupported { .. }) if takes_what_there_is => {}
                other => drop(other?),
            }
        }
        let mut plans = arguments.collective.with_root(arguments.root).into_iter();
        if let Some(plan) = plans.find_map(|collective| found.build(collective, last).ok()) {
            for reach in arguments.reach.with_slots(arguments.slots) {
                plan.lower(0, reach)?;
            }
        }
    }
    let mut output = Output::open(arguments.json.as_deref())?;
    output.text(&format!(
        "{:<20} {:<14} {:>6} {:<10} {:>10} {:>10} {:>10}  proved\n",
        "plan", "collective", "ranks", "reach", "tasks", "places", "time(ms)"
    ));
    let mut rows: Vec<Value> = Vec::new();
    let mut failures = 0;
    for name in names {
        let found = builders::find(name)?;
        for ranks in first..=last {
            for collective in arguments.collective.with_root(arguments.root.min(ranks - 1)) {
                // Asked for everything, one takes what there is.
                let plan = match found.build(collective, ranks) {
                    Err(PlanError::Unsupported { .. }) => continue,
                    other => other?,
                };
                for reach in arguments.reach.with_slots(arguments.slots) {
                    let started = Instant::now();
                    let outcome = verify(&plan, reach);
                    let time = started.elapsed().as_secs_f64() * 1e3;
                    if let Err(sapwood::plan::verify::VerifyError::Plan(error)) = outcome {
                        return Err(error.into());
                    }
                    let proof = outcome.as_ref().ok();
                    let figure = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
                    let verdict = match &outcome {
                        Ok(proof) if proof.by_symmetry => "yes, by symmetry".to_owned(),
                        Ok(_) => "yes".to_owned(),
                        Err(error) => format!("NO: {error}"),
                    };
                    failures += u32::from(outcome.is_err());
                    output.text(
                        &format!(
                            "{name:<20} {collective:<14} {ranks:>6} {:<10} {:>10} {:>10} {time:>10.2}  {verdict}\n",
                            reach.name(),
                            figure(proof.map(|proof| proof.tasks)),
                            figure(proof.map(|proof| proof.places)),
                        ),
                    );
                    rows.push(json!({
                        "plan": name, "collective": collective.name(), "root": collective.root(),
                        "ranks": ranks, "reach": reach.name(), "tasks": proof.map(|proof| proof.tasks),
                        "places": proof.map(|proof| proof.places),
                        "orderings": proof.map(|proof| proof.orderings), "time_ms": time,
                        "by_symmetry": proof.map(|proof| proof.by_symmetry), "proved": outcome.is_ok(),
                        "error": outcome.as_ref().err().map(ToString::to_string),
                    }));
                }
            }
        }
    }
    let total = rows.len();
    output.text(&format!("{} of {total} proved\n", total - failures as usize));
    output.json(&json!({"results": rows, "proved": total - failures as usize, "failed": failures}))?;
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
