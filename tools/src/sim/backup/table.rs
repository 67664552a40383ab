//! What a simulation of backup workers showed, in words and columns. Computes nothing but differences and units.

use sapwood::simulator::backup::paper;

use super::findings::{Findings, Fit, FitLine, Law, Row, mean_tolerance};
use crate::table::{Align, Table, grouped};

/// Above this, time to convergence is in hours.
const LONG: f64 = 3.0 * 3600.0;

/// A table, as rows of cells below a row of headings.
pub struct Cells {
    pub headings: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A unit of time and how many of the figures' own it has.
pub struct Unit {
    pub name: &'static str,
    pub size: f64,
}

impl Unit {
    /// Of a step.
    pub fn of_step(findings: &Findings) -> Self {
        let name = match findings.law {
            Law::Exponential { .. } => "",
            Law::LongTail { .. } | Law::Measured => "s",
        };
        Self { name, size: 1.0 }
    }

    /// Of the time to convergence.
    pub fn of_convergence(findings: &Findings) -> Self {
        let (name, size) = match findings.law {
            Law::Exponential { .. } => ("k", 1e3),
            _ if findings.best().time_to_converge < LONG => ("s", 1.0),
            _ => ("h", 3600.0),
        };
        Self { name, size }
    }

    fn heading(&self, what: &str) -> String {
        match self.name {
            "" => what.to_owned(),
            name => format!("{what}({name})"),
        }
    }
}

/// All of it, for a terminal.
pub fn text(findings: &Findings) -> String {
    let mut text = format!("{}\n\n{}\n", lead(findings), printed(&rows(findings)));
    for sentence in sentences(findings) {
        text.push_str(&sentence);
        text.push('\n');
    }
    if let Law::LongTail { fit, .. } = &findings.law {
        text.push_str(&format!("\n{}\n{}\n", printed(&fit_rows(fit)), law(fit)));
    }
    text
}

/// What was simulated.
pub fn lead(findings: &Findings) -> String {
    let workers = findings.document.workers;
    let steps = grouped(findings.steps as u64);
    match &findings.law {
        Law::Exponential { seed, .. } => format!(
            "{workers} workers, exponential times (one worker's mean is 1); {steps} steps, seed {seed}"
        ),
        Law::LongTail { seed, .. } => {
            format!("{workers} workers, times with the paper's long tail; {steps} steps, seed {seed}")
        }
        Law::Measured => format!(
            "{workers} workers, the {steps} measured steps of {}",
            findings.document.distribution
        ),
    }
}

/// One row for each number of backup workers.
pub fn rows(findings: &Findings) -> Cells {
    let (step, convergence) = (Unit::of_step(findings), Unit::of_convergence(findings));
    let rows = &findings.document.rows;
    let first = &rows[0];
    let time_digits = decimals(first.mean_time_to_seal);
    let convergence_digits = decimals(first.time_to_converge / convergence.size);
    let formula = match &findings.law {
        Law::Exponential { means, .. } => Some(means),
        _ => None,
    };
    let mut headings = vec!["b".to_owned(), "N".to_owned(), step.heading("mean")];
    if formula.is_some() {
        headings.extend(["formula", "deviation"].map(str::to_owned));
    }
    headings.extend([step.heading("p50"), step.heading("p99")]);
    headings.extend([
        "I(N)".to_owned(),
        convergence.heading("T(N)·I(N)"),
        "vs b = 0".to_owned(),
    ]);
    let cells = |row: &Row| {
        let time = |time: f64| format!("{time:.time_digits$}");
        let mut cells = vec![
            row.backups.to_string(),
            (findings.document.workers - row.backups).to_string(),
            time(row.mean_time_to_seal),
        ];
        if let Some(means) = formula {
            let mean = means[row.backups];
            let deviation = row.mean_time_to_seal / mean - 1.0;
            cells.extend([time(mean), format!("{:+.2} %", deviation * 100.0)]);
        }
        cells.extend([
            time(row.p50),
            time(row.p99),
            row.iterations.to_string(),
            format!("{:.convergence_digits$}", row.time_to_converge / convergence.size),
            format!("{:.3}", row.time_to_converge / first.time_to_converge),
        ]);
        cells
    };
    Cells {
        headings,
        rows: rows.iter().map(cells).collect(),
    }
}

/// What the rows come to.
pub fn sentences(findings: &Findings) -> Vec<String> {
    let found = [
        Some(best(findings)),
        paper_choice(findings),
        beyond_the_known(findings),
        agreement(findings),
    ];
    found.into_iter().flatten().collect()
}

/// Which number of backup workers converges soonest.
fn best(findings: &Findings) -> String {
    let document = &findings.document;
    let backups = document.best_backups;
    let found = format!("Best: b = {backups} ({} + {backups})", document.workers - backups);
    if !document.best_is_edge {
        found
    } else if backups + 1 == document.workers {
        format!("{found}, the edge: one gradient seals a step")
    } else {
        format!("{found}, the edge: it is the last one tried, and more (--max-backups) may be better still")
    }
}

/// What the paper did with as many workers.
fn paper_choice(findings: &Findings) -> Option<String> {
    let row = findings.paper()?;
    let ratio = row.time_to_converge / findings.best().time_to_converge;
    Some(format!(
        "The paper chose {} + {}: {ratio:.3} times the best's time to convergence here",
        paper::WORKERS - paper::BACKUPS,
        paper::BACKUPS
    ))
}

/// That I(N) is known of some N only.
fn beyond_the_known(findings: &Findings) -> Option<String> {
    let document = &findings.document;
    let (most, least) = (document.workers, document.workers + 1 - document.rows.len());
    let known = paper::FEWEST_GRADIENTS..=paper::WORKERS;
    (!known.contains(&most) || !known.contains(&least)).then(|| {
        format!(
            "I(N) is known between N = {} and N = {}; here the same curve is taken for N = {least} to {most}",
            known.start(),
            known.end(),
        )
    })
}

/// How near the simulation is to the formula.
fn agreement(findings: &Findings) -> Option<String> {
    let workers = findings.document.workers;
    let Law::Exponential { means, .. } = &findings.law else {
        return None;
    };
    let off = |row: &Row| (row.mean_time_to_seal / means[row.backups] - 1.0).abs();
    let tolerated = |row: &Row| mean_tolerance(workers, row.backups, findings.steps) / means[row.backups];
    let largest =
        |of: &dyn Fn(&Row) -> f64| findings.document.rows.iter().map(of).fold(0.0, f64::max) * 100.0;
    Some(format!(
        "The formula is H_M - H_b; the simulation is at most {:.2} % off, and up to {:.2} % could be chance",
        largest(&off),
        largest(&tolerated)
    ))
}

/// The paper's measurements beside what laws have for them.
pub fn fit_rows(fit: &Fit) -> Cells {
    let measured = &fit.lines[0];
    let headings = [
        "of 100 workers",
        "98th in 2 s",
        "residual",
        "last in 2 s",
        "residual",
        "longest(s)",
        "residual",
    ];
    let share = |share: f64| format!("{:.1} %", share * 100.0);
    let points = |share: f64| format!("{:+.1}", share * 100.0);
    let line = |(index, line): (usize, &FitLine)| {
        let residual = |text: String| if index == 0 { String::new() } else { text };
        let longest = |text: fn(f64) -> String, from: f64| {
            line.longest
                .map_or("-".to_owned(), |longest| text(longest - from))
        };
        vec![
            line.name.to_owned(),
            share(line.next_to_last),
            residual(points(line.next_to_last - measured.next_to_last)),
            share(line.last),
            residual(points(line.last - measured.last)),
            longest(|seconds| format!("{seconds:.0}"), 0.0),
            residual(longest(
                |seconds| format!("{:+.0}", seconds + 0.0),
                measured.longest.unwrap_or(0.0),
            )),
        ]
    };
    Cells {
        headings: headings.map(str::to_owned).to_vec(),
        rows: fit.lines.iter().enumerate().map(line).collect(),
    }
}

/// The fitted law, and why it is not a simpler one.
pub fn law(fit: &Fit) -> String {
    let rates = fit.law.rates;
    format!(
        "No law of independent workers has both shares: each share alone fixes the probability to be late.\n\
         Fitted: a worker is late with {:.2} % probability, which differs from step to step (deviation {:.2} %); then\n\
         it takes longer than t with probability (2 s / t)^{:.2}, else from {} s to {} s. The law's longest time of {}\n\
         steps is the median of such runs.",
        rates.mean * 100.0,
        rates.deviation() * 100.0,
        fit.law.exponent,
        fit.law.usual.0,
        fit.law.usual.1,
        grouped(paper::ITERATIONS as u64),
    )
}

/// The first column is text if it does not hold numbers.
fn printed(cells: &Cells) -> String {
    let number = |text: &String| text.parse::<f64>().is_ok();
    let first = if cells.rows.iter().all(|row| number(&row[0])) {
        Align::Right
    } else {
        Align::Left
    };
    let mut align = vec![Align::Right; cells.headings.len()];
    align[0] = first;
    let mut table = Table::new(&align);
    table.row(cells.headings.iter().map(String::as_str));
    for row in &cells.rows {
        table.row(row.iter().map(String::as_str));
    }
    table.render(0)
}

/// Four digits of the largest figure of a column.
fn decimals(largest: f64) -> usize {
    if largest > 0.0 {
        (3.0 - largest.log10().floor()).clamp(0.0, 9.0) as usize
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::findings;
    use super::*;

    #[test]
    fn figures_have_four_digits() {
        assert_eq!(
            [0.0, 0.0131, 5.187, 39.5, 394_451.0].map(decimals),
            [0, 5, 3, 2, 0]
        );
    }

    #[test]
    fn columns_and_sentences_follow_the_law() {
        let exponential = text(&findings("exponential", 100, 1.0));
        for part in [
            "formula",
            "5.187",
            "H_M - H_b",
            "the last one tried",
            "96 + 4",
            "T(N)·I(N)(k)",
        ] {
            assert!(exponential.contains(part), "{part}: {exponential}");
        }
        let long_tail = text(&findings("long-tail", 100, 1.0));
        for part in [
            "mean(s)",
            "T(N)·I(N)(h)",
            "measured in the paper",
            "80.0 %",
            "-8.8",
            "310",
            "96 + 4",
        ] {
            assert!(long_tail.contains(part), "{part}: {long_tail}");
        }
        let few = text(&findings("long-tail", 3, 1.0));
        assert!(
            few.contains("for N = 1 to 3") && !few.contains("96 + 4") && !few.contains("this simulation"),
            "{few}"
        );
    }
}
