//! How good a file is: every plan is measured anew, and what the file chooses and predicts is held against it.

use std::process::ExitCode;

use sapwood::plan::cost::{Candidate, Tuning};
use serde_json::{Value, json};

use super::probe::{Measured, Probes};
use super::report::microseconds;
use super::settling::bytes_of;
use super::{TuneArguments, broken};
use crate::output::{Failure, Output};
use crate::table::{Align, Table};

/// The chosen plan takes at most so many times what the best one takes.
const CHOSEN: f64 = 1.1;
/// From this size on predictions are judged: by how much they may be off.
const JUDGED: usize = 64 << 10;
const OFF: f64 = 0.2;

/// Measures and compares; rank 0 prints. Collective.
pub(super) fn run(
    probes: &mut Probes<'_>,
    arguments: &TuneArguments,
    sizes: &[usize],
    output: Option<Output>,
) -> Result<ExitCode, Failure> {
    let text = match output {
        None => String::new(),
        Some(_) => std::fs::read_to_string(&arguments.output).map_err(broken)?,
    };
    let given = probes
        .base()
        .all_gather_bytes("handing the file round", text.as_bytes())
        .map_err(broken)?;
    let tuning = Tuning::parse(&String::from_utf8_lossy(&given[0]), "the file of rank 0").map_err(broken)?;
    let mut rows = Vec::new();
    for &collective in &arguments.collectives {
        for &size in sizes {
            rows.extend(measure(probes, &tuning, collective, size)?);
        }
    }
    probes.done();
    let Some(mut output) = output else {
        return Ok(ExitCode::SUCCESS);
    };
    output.text(&table(&rows));
    let (slow, off) = (
        rows.iter().filter(|row| row.ratio() > CHOSEN).count(),
        rows.iter()
            .filter(|row| row.judged() && row.off().abs() > OFF)
            .count(),
    );
    let judged = rows.iter().filter(|row| row.judged()).count();
    output.text(&format!(
        "\n{} of {} choices take at most {CHOSEN} times what the best plan takes; {} of {judged} predictions from 64K on are \
         within {:.0} %.\n",
        rows.len() - slow,
        rows.len(),
        judged - off,
        OFF * 100.0
    ));
    output.json(&json!({
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(), "slow_choices": slow, "bad_predictions": off,
    }))?;
    Ok(match slow + off {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    })
}

/// One collective, size and placement.
struct Row {
    chosen: Measured,
    predicted: f64,
    best: Measured,
}

/// Every plan, and what the file chooses; nothing where it can choose none.
fn measure(
    probes: &mut Probes<'_>,
    tuning: &Tuning,
    collective: sapwood::plan::Collective,
    size: usize,
) -> Result<Vec<Row>, Failure> {
    let setting = probes.setting().clone();
    let bytes = bytes_of(size, collective, &setting);
    // Communicators choose for a range of sizes, which a power of two begins.
    let Some(chosen) = tuning.choose(&setting, collective, 1 << bytes.ilog2()) else {
        return Ok(Vec::new());
    };
    let plans = setting.candidates(collective).into_iter();
    let mut candidates: Vec<Candidate> = plans.map(|plan| Candidate { plan, chunk: 1.0 }).collect();
    let is_chosen = |it: &Candidate| it.plan.name() == chosen.plan && it.chunk == chosen.chunk;
    if !candidates.iter().any(is_chosen) {
        candidates.extend(probes.candidate(&chosen.plan, collective, chosen.chunk));
    }
    let measured = probes.row(&candidates, size).map_err(broken)?;
    let mut rows = Vec::new();
    for in_place in [false, true] {
        let here = || measured.iter().filter(|of| of.in_place == in_place);
        let (Some(mine), Some(best)) = (
            here().find(|of| is_chosen(&of.candidate)),
            here().min_by(|a, b| a.time.total_cmp(&b.time)),
        ) else {
            continue;
        };
        let prediction = tuning
            .predict(&setting, &mine.candidate, bytes, in_place)
            .map_err(broken)?;
        rows.push(Row {
            chosen: mine.clone(),
            predicted: prediction.time,
            best: best.clone(),
        });
    }
    Ok(rows)
}

impl Row {
    /// What the chosen plan takes over what the best one takes.
    fn ratio(&self) -> f64 {
        self.chosen.time / self.best.time
    }

    /// By how much the prediction is off.
    fn off(&self) -> f64 {
        self.predicted / self.chosen.time - 1.0
    }

    fn judged(&self) -> bool {
        self.chosen.bytes >= JUDGED
    }

    fn json(&self) -> Value {
        let plan = &self.chosen.candidate.plan;
        json!({
            "collective": plan.collective().name(), "size": self.chosen.bytes, "in_place": self.chosen.in_place,
            "plan": plan.name(), "chunk": self.chosen.candidate.chunk, "measured": self.chosen.time,
            "predicted": self.predicted, "best_plan": self.best.candidate.plan.name(), "best_measured": self.best.time,
            "chosen_over_best": self.ratio(),
        })
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        Align::Left,
        Align::Right,
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
        Align::Right,
        Align::Right,
    ]);
    table.row([
        "collective",
        "size(B)",
        "in place",
        "chosen",
        "chunk",
        "measured",
        "predicted",
        "off by",
        "best",
        "its time",
        "chosen/best",
    ]);
    for row in rows {
        let plan = &row.chosen.candidate.plan;
        table.row([
            plan.collective().name().to_owned(),
            row.chosen.bytes.to_string(),
            if row.chosen.in_place { "yes" } else { "no" }.to_owned(),
            plan.name().to_owned(),
            format!("x {}", row.chosen.candidate.chunk),
            microseconds(row.chosen.time),
            microseconds(row.predicted),
            format!("{:+.0} %", row.off() * 100.0),
            row.best.candidate.plan.name().to_owned(),
            microseconds(row.best.time),
            format!("{:.2}", row.ratio()),
        ]);
    }
    table.render(0)
}
