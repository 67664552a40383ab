//! The report's sections on backup workers: step times with and without, and whose gradients were used. Only shows.

use super::comparison::{self, Times};
use super::{charts, timeline};
use crate::demo::findings::{Findings, Participation, step_times};
use crate::demo::messages::WorkerReport;
use crate::report::{card, escape, wide};
use crate::table::grouped;

/// Sections for a run with backup workers, and nothing for one without.
pub fn sections(findings: &Findings, reports: &[WorkerReport]) -> String {
    if findings.backups == 0 {
        return String::new();
    }
    let main: Vec<_> = reports.iter().map(WorkerReport::main).collect();
    let all: Vec<_> = reports.iter().map(|report| &report.waiting).collect();
    let Some(waiting) = findings.step_ms_waiting_for_all else {
        let why = findings.without_waiting.as_deref().unwrap_or_default();
        let hint = format!(
            "Of the slowest worker whose gradient is in the mean. Waiting for all, to compare with: {}.",
            escape(why)
        );
        let times = step_times(&main, findings.steps);
        return card(
            "Step time with backup workers",
            &hint,
            &charts::step_times(&times, findings.step_ms),
        ) + &used(findings);
    };
    let name = match findings.backups {
        1 => "1 backup".to_owned(),
        backups => format!("{backups} backups"),
    };
    let chart = comparison::draw(
        &Times {
            name: &name,
            times: &step_times(&main, findings.steps),
            quantiles: findings.step_ms,
        },
        &Times {
            name: "waiting for all",
            times: &step_times(&all, findings.steps),
            quantiles: waiting,
        },
    );
    let hint = format!(
        "Of the slowest worker whose gradient is in the mean. The same {} steps were trained twice: with {name}, where a step \
         is over when {} of {} gradients are there, and waiting for all.",
        grouped(findings.steps as u64),
        findings.workers - findings.backups,
        findings.workers,
    );
    wide("Step time with backup workers and without", &hint, &chart)
        + &used(findings)
        + &super::communication(findings)
}

/// Whose gradients were used, and what that does to the model.
fn used(findings: &Findings) -> String {
    let (died, dead) = match findings.deaths.is_empty() {
        true => ("", ""),
        false => ("<li><i class=\"update\"></i>died</li>", "<th>died</th>"),
    };
    let rows = findings.participation.iter().enumerate();
    let rows: String = rows.map(|(rank, one)| row(findings, rank, one)).collect();
    let table = format!(
        "<ul class=\"legend\"><li><i class=\"compute\"></i>in the mean</li><li><i class=\"slowed\"></i>too late</li>\
         <li><i class=\"wait\"></i>stopped between layers</li><li><i class=\"blocked\"></i>jumped over</li>{died}</ul>\
         <div class=\"scroll\"><table class=\"used\"><tr><th></th><th></th><th>in the mean</th><th>too late</th>\
         <th>stopped</th><th>jumped over</th>{dead}</tr>{rows}</table></div>"
    );
    let bias = findings.bias().map_or(String::new(), |sentence| {
        let ranks: Vec<_> = findings
            .hardly_heard
            .iter()
            .map(|rank| format!("rank {rank}"))
            .collect();
        format!(
            "<p class=\"bias\">Hardly heard: {}: {}.</p>",
            ranks.join(", "),
            escape(&sentence)
        )
    });
    card(
        "Whose gradients were used",
        "Too late: computed, but not among the first. Stopped: given up between two layers, when the step was decided without \
         it. Jumped over: never begun, since the worker was so far behind that it copied another's weights.",
        &format!("{table}{bias}"),
    )
}

fn row(findings: &Findings, rank: usize, one: &Participation) -> String {
    let mut parts = vec![
        ("compute", one.in_the_mean),
        ("slowed", one.too_late),
        ("wait", one.stopped),
        ("blocked", one.jumped_over),
    ];
    if !findings.deaths.is_empty() {
        parts.push(("update", one.died));
    }
    let bar: String = parts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(class, count)| {
            let share = 100.0 * *count as f64 / findings.steps.max(1) as f64;
            format!("<i class=\"{class}\" style=\"width:{share:.2}%\"></i>")
        })
        .collect();
    let cells: String = parts
        .iter()
        .map(|(_, count)| format!("<td>{}</td>", grouped(*count)))
        .collect();
    format!("<tr><th>rank {rank}</th><td class=\"bar\"><span>{bar}</span></td>{cells}</tr>")
}

/// What went on in a few steps with backup workers.
pub fn timeline(findings: &Findings, reports: &[WorkerReport], drawn: std::ops::Range<u32>) -> String {
    let workers: Vec<_> = reports
        .iter()
        .filter_map(|report| report.with_backups.as_ref())
        .collect();
    if workers.is_empty() {
        return String::new();
    }
    let added = match findings.staged {
        true => "the members do that along a tree, in which each reads what is below it",
        false => "each worker reads the members' gradients where they lie",
    };
    wide(
        "Nobody waits for the slow: with backup workers",
        &format!(
            "The training threads, in the time that the fastest took for these steps. A slow worker is in other steps \
             meanwhile. Waiting for the means includes adding them up: {added}."
        ),
        &format!(
            "{}<div class=\"scroll\">{}</div>",
            super::legend(&workers),
            timeline::draw(&workers, Some(drawn))
        ),
    )
}
