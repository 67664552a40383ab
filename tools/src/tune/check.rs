//! How good a file is: every plan is measured anew, and what the file chooses and predicts is held against it. Plans are
//! compared round by round: what else went on in the machine met both.

use std::process::ExitCode;

use sapwood::plan::Collective;
use sapwood::plan::cost::{Candidate, Tuning};
use serde_json::{Value, json};

use super::probe::{Measured, Probes, Row, median, sorted};
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
    let mut choices = Vec::new();
    for &collective in &arguments.collectives {
        for &size in sizes {
            choices.extend(choose(probes, &tuning, collective, size));
        }
    }
    let (candidates, choices): (Vec<Row>, Vec<Candidate>) = choices.into_iter().unzip();
    let measured = probes.rows(&candidates).map_err(broken)?;
    let mut rows = Vec::new();
    for (measured, chosen) in measured.iter().zip(&choices) {
        rows.extend(compare(probes, &tuning, measured, chosen)?);
    }
    probes.done();
    let Some(mut output) = output else {
        return Ok(ExitCode::SUCCESS);
    };
    output.text(&table(&rows));
    let (slow, off) = (
        rows.iter().filter(|row| row.ratio > CHOSEN).count(),
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
        "rows": rows.iter().map(Compared::json).collect::<Vec<_>>(), "slow_choices": slow, "bad_predictions": off,
    }))?;
    Ok(match slow + off {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    })
}

/// One collective, size and placement.
struct Compared {
    chosen: Measured,
    predicted: f64,
    best: Measured,
    /// What the chosen plan takes over what the best one takes.
    ratio: f64,
}

/// What is measured for a collective at a size, and what the file chooses; nothing where it can choose none.
fn choose(
    probes: &Probes<'_>,
    tuning: &Tuning,
    collective: Collective,
    size: usize,
) -> Option<(Row, Candidate)> {
    let bytes = bytes_of(size, collective, probes.setting());
    let chosen = tuning.choose(probes.setting(), collective, bytes)?;
    let chosen = probes.candidate(&chosen.plan, collective, chosen.chunk)?;
    let mut candidates = probes.candidates(collective);
    if !candidates.iter().any(|it| is_same(it, &chosen)) {
        candidates.push(chosen.clone());
    }
    Some((Row { candidates, size }, chosen))
}

fn is_same(a: &Candidate, b: &Candidate) -> bool {
    a.plan.name() == b.plan.name() && a.chunk == b.chunk
}

/// How many times longer one takes than another: the median over the rounds.
fn times_longer(a: &Measured, b: &Measured) -> f64 {
    let ratios = a.rounds.iter().zip(&b.rounds).map(|(a, b)| a / b);
    median(&ratios.collect::<Vec<_>>())
}

/// How far the rounds are apart, the outer quarters left out, over their median: what the machine makes of one and the
/// same thing.
fn spread(of: &Measured) -> f64 {
    let sorted = sorted(&of.rounds);
    let quarter = sorted.len() / 4;
    let (low, high) = (sorted[quarter], sorted[sorted.len() - 1 - quarter]);
    (high - low) / median(&sorted)
}

fn compare(
    probes: &Probes<'_>,
    tuning: &Tuning,
    measured: &[Measured],
    chosen: &Candidate,
) -> Result<Vec<Compared>, Failure> {
    let mut rows = Vec::new();
    for in_place in [false, true] {
        let here = || measured.iter().filter(|of| of.in_place == in_place);
        let Some(mine) = here().find(|of| is_same(&of.candidate, chosen)) else {
            continue;
        };
        let compared = here().map(|of| (times_longer(mine, of), of));
        let Some((ratio, best)) = compared.max_by(|a, b| a.0.total_cmp(&b.0)) else {
            continue;
        };
        let prediction = tuning
            .predict(probes.setting(), chosen, mine.bytes, in_place)
            .map_err(broken)?;
        rows.push(Compared {
            chosen: mine.clone(),
            predicted: prediction.time,
            best: best.clone(),
            ratio,
        });
    }
    Ok(rows)
}

impl Compared {
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
            "rounds": self.chosen.rounds,
            "predicted": self.predicted, "best_plan": self.best.candidate.plan.name(), "best_measured": self.best.time,
            "chosen_over_best": self.ratio,
        })
    }
}

fn table(rows: &[Compared]) -> String {
    let mut table = Table::new(&[
        Align::Left,
        Align::Right,
        Align::Left,
        Align::Left,
        Align::Right,
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
        "spread",
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
            format!("{:.0} %", spread(&row.chosen) * 100.0),
            microseconds(row.predicted),
            format!("{:+.0} %", row.off() * 100.0),
            row.best.candidate.plan.name().to_owned(),
            microseconds(row.best.time),
            format!("{:.2}", row.ratio),
        ]);
    }
    table.render(0)
}
