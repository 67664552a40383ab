//! What was measured, fitted and chosen, for people and for programs. Computes ratios, and measures nothing.

use std::path::Path;

use sapwood::plan::cost::{Class, Curve, Parameters, Setting};
use serde_json::{Value, json};

use super::probe::Measured;
use super::settling::{Choice, Settled};
use crate::table::{Align, Table};

pub(super) struct Report<'a> {
    pub(super) fabric: &'a str,
    pub(super) setting: &'a Setting,
    pub(super) measured: &'a [Measured],
    pub(super) settled: &'a Settled,
    pub(super) seconds: f64,
    pub(super) file: &'a Path,
}

impl Report<'_> {
    fn parameters(&self) -> &Parameters {
        &self.settled.tuning.parameters
    }

    /// The model's time of what was measured, without what was found it to be off by.
    fn model(&self, of: &Measured) -> Option<f64> {
        let tuning = &self.settled.tuning;
        let prediction = tuning.model(self.setting, &of.candidate, of.bytes, of.in_place);
        prediction.ok().map(|prediction| prediction.time)
    }

    pub(super) fn text(&self) -> String {
        let ranks = self.setting.hosts.len();
        let mut text = format!(
            "# {ranks} ranks, fabric {}, {:.0} s; times in us, of the slowest rank, lower quartiles of the rounds\n\n",
            self.fabric, self.seconds
        );
        text.push_str(&self.measured_table());
        text.push_str(&self.parameter_table());
        text.push_str(&choice_table(&self.settled.choices));
        text.push_str(&format!("\nwritten to {}\n", self.file.display()));
        text
    }

    fn measured_table(&self) -> String {
        let mut table = Table::new(&[
            Align::Left,
            Align::Left,
            Align::Right,
            Align::Left,
            Align::Right,
            Align::Right,
            Align::Right,
        ]);
        table.row([
            "collective",
            "plan",
            "size(B)",
            "in place",
            "measured",
            "model",
            "model off by",
        ]);
        let mut offs = Vec::new();
        for of in self.measured {
            let model = self.model(of);
            let off = model.map(|model| model / of.time - 1.0);
            offs.extend(off.map(f64::abs));
            table.row([
                of.candidate.plan.collective().name().to_owned(),
                of.candidate.plan.name().to_owned(),
                of.bytes.to_string(),
                if of.in_place { "yes" } else { "no" }.to_owned(),
                microseconds(of.time),
                model.map_or("-".into(), microseconds),
                off.map_or("-".into(), |off| format!("{:+.0} %", off * 100.0)),
            ]);
        }
        offs.sort_unstable_by(f64::total_cmp);
        let median = offs.get(offs.len() / 2).copied().unwrap_or(0.0);
        format!(
            "{}\nThe fitted parameters alone are off by {:.0} % (median); by how much for each plan and size is kept beside \
             them.\n\n",
            table.render(0),
            median * 100.0
        )
    }

    fn parameter_table(&self) -> String {
        let mut table = Table::new(&[Align::Left, Align::Right, Align::Right, Align::Right, Align::Left]);
        table.row([
            "pairs",
            "latency L",
            "overhead o",
            "gap g",
            "gap per byte G (ns), up to so many bytes",
        ]);
        for class in Class::ALL {
            if let Some(link) = self.parameters().link(class) {
                let times = [link.latency(), link.overhead(), link.gap()].map(microseconds);
                let [latency, overhead, gap] = times;
                table.row([class.name().to_owned(), latency, overhead, gap, gaps(&link.bytes)]);
            }
        }
        let own = &self.parameters().own;
        table.row(["own work", "-", "-", "-", &gaps(&own.bytes)]);
        let (combine, cores) = (own.combine(), self.parameters().cores);
        format!(
            "{}\nTo combine one more contribution takes {combine:.4} ns a byte; {cores} cores to a host.\n\n",
            table.render(0)
        )
    }

    pub(super) fn json(&self) -> Value {
        let measured = self.measured.iter().map(|of| {
            json!({
                "collective": of.candidate.plan.collective().name(), "plan": of.candidate.plan.name(),
                "size": of.bytes, "in_place": of.in_place, "measured": of.time, "model": self.model(of),
            })
        });
        let choices = self.settled.choices.iter().map(|choice| {
            json!({
                "collective": choice.collective.name(), "size": choice.bytes, "plan": choice.chosen.plan,
                "chunk": choice.chosen.chunk, "predicted": choice.chosen.time, "measured": choice.measured,
                "best_plan": choice.best, "best_measured": choice.best_measured,
            })
        });
        let link = |class| {
            self.parameters().link(class).map(|link| {
                json!({
                    "latency": link.latency(), "overhead": link.overhead(), "gap": link.gap(),
                    "bytes": curve(&link.bytes),
                })
            })
        };
        let own = &self.parameters().own;
        json!({
            "config": {
                "ranks": self.setting.hosts.len(), "fabric": self.fabric, "cores": self.parameters().cores,
                "seconds": self.seconds,
            },
            "parameters": {
                "memory": link(Class::Memory), "host": link(Class::Host), "network": link(Class::Network),
                "own": {"combine": own.combine(), "bytes": curve(&own.bytes)},
            },
            "measured": measured.collect::<Vec<_>>(),
            "choices": choices.collect::<Vec<_>>(),
            "file": self.file,
        })
    }
}

fn choice_table(choices: &[Choice]) -> String {
    let mut table = Table::new(&[
        Align::Left,
        Align::Right,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
        Align::Right,
        Align::Right,
    ]);
    table.row([
        "collective",
        "from size(B)",
        "chosen",
        "chunk",
        "predicted",
        "measured",
        "fastest",
        "its time",
        "chosen/fastest",
    ]);
    for choice in choices {
        table.row([
            choice.collective.name().to_owned(),
            choice.bytes.to_string(),
            choice.chosen.plan.clone(),
            format!("x {}", choice.chosen.chunk),
            microseconds(choice.chosen.time),
            choice.measured.map_or("-".into(), microseconds),
            choice.best.clone(),
            microseconds(choice.best_measured),
            choice
                .measured
                .map_or("-".into(), |time| format!("{:.2}", time / choice.best_measured)),
        ]);
    }
    format!(
        "Chosen out of place and in place together; the times are of calls out of place.\n{}",
        table.render(0)
    )
}

fn gaps(curve: &Curve) -> String {
    let knots = curve
        .knots()
        .iter()
        .map(|knot| format!("{:.3} {}", knot.gap(), size(knot.footprint)));
    knots.collect::<Vec<_>>().join(", ")
}

fn curve(curve: &Curve) -> Value {
    let knots = curve.knots().iter();
    knots
        .map(|knot| json!({"footprint": knot.footprint, "gap": knot.gap()}))
        .collect()
}

/// As on a command line.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 => format!("{}M", bytes >> 20),
        bytes => format!("{}K", bytes >> 10),
    }
}

/// As many decimals as the figure is worth.
pub(super) fn microseconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.3}"),
        value if value < 1000.0 => format!("{value:.2}"),
        value => format!("{value:.1}"),
    }
}
