//! The report of a simulation of backup workers: two pictures, and a page with them. Only shows.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use plotters::prelude::*;
use sapwood::simulator::backup::paper;

use super::findings::{Findings, Law, Row};
use super::table::{self, Cells, Unit};
use crate::report::chart::{Axes, BLUE, Chart, GREEN, GRID, INK, ROSE, document, label, rounded, whole};
use crate::report::{self, Page, card, escape, inline, tile, wide};

/// Writes the pictures and the page into the folder, and returns the page's path.
pub fn write(folder: &Path, findings: &Findings) -> io::Result<PathBuf> {
    let pictures = [step_times(findings), convergence(findings)]
        .map(|svg| svg.map_err(|e| io::Error::other(e.to_string())));
    let [steps, convergence] = pictures;
    let (steps, convergence) = (steps?, convergence?);
    fs::write(folder.join("time-per-step.svg"), &steps)?;
    fs::write(folder.join("time-to-converge.svg"), &convergence)?;
    report::write(folder, &html(findings, &steps, &convergence))
}

fn html(findings: &Findings, steps: &str, convergence: &str) -> String {
    let mut sections = vec![
        card(
            "Time per step",
            "Until the first N gradients are there.",
            &inline(steps),
        ),
        card(
            "Time to convergence",
            "Time per step, times the iterations that N gradients need.",
            &inline(convergence),
        ),
        wide(
            "Figures",
            "N = M − b gradients seal a step: T(N) is its mean time, I(N) the iterations to convergence.",
            &format!("{}{}", html_table(&table::rows(findings)), notes(findings)),
        ),
    ];
    if let Law::LongTail { fit, .. } = &findings.law {
        let hint = escape(&table::law(fit)).replace('\n', " ");
        sections.push(wide(
            "The law beside the measurements",
            &hint,
            &html_table(&table::fit_rows(fit)),
        ));
    }
    Page {
        title: "sim backup",
        lead: &format!("{}.", escape(&table::lead(findings))),
        tiles: &tiles(findings),
        sections: &sections.concat(),
        footer: &format!(
            "The experiment is that of J. Chen, X. Pan, R. Monga, S. Bengio and R. Jozefowicz, Revisiting Distributed \
             Synchronous SGD, arXiv 1604.00981. Made by sapwood {}.",
            env!("CARGO_PKG_VERSION")
        ),
    }
    .html()
}

fn tiles(findings: &Findings) -> Vec<String> {
    let (first, best) = (&findings.document.rows[0], findings.best());
    let unit = Unit::of_step(findings);
    let time = |row: &Row| format!("{} {}", rounded(row.mean_time_to_seal), unit.name);
    let edge = if findings.document.best_is_edge {
        "best b, the last one tried"
    } else {
        "best b"
    };
    let mut tiles = vec![
        tile("", best.backups.to_string(), edge),
        tile("", time(best), "a step with it, mean"),
        tile("", time(first), "a step that waits for all"),
        tile(
            "",
            format!("{:.2} ×", first.time_to_converge / best.time_to_converge),
            "faster to convergence",
        ),
    ];
    if findings.paper().is_some() {
        tiles.push(tile("", paper::BACKUPS.to_string(), "b in the paper"));
    }
    tiles
}

fn notes(findings: &Findings) -> String {
    let items = table::sentences(findings).into_iter();
    let items = items.map(|sentence| format!("<li>{}.</li>", escape(&sentence)));
    format!("<ul class=\"notes\">{}</ul>", items.collect::<String>())
}

fn html_table(cells: &Cells) -> String {
    let row = |tag: &str, cells: &[String]| {
        let cells = cells
            .iter()
            .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let rows: String = cells.rows.iter().map(|cells| row("td", cells)).collect();
    format!(
        "<div class=\"scroll\"><table class=\"columns\">{}{rows}</table></div>",
        row("th", &cells.headings)
    )
}

/// Mean and median against the number of backup workers; the formula, where there is one.
fn step_times(findings: &Findings) -> Result<String, Box<dyn Error>> {
    let rows = &findings.document.rows;
    let points = |figure: fn(&Row) -> f64| rows.iter().map(move |row| (row.backups as f64, figure(row)));
    let highest = rows[0].mean_time_to_seal.max(rows[0].p50);
    let y_name = match Unit::of_step(findings).name {
        "" => "time per step (worker's mean = 1)".to_owned(),
        unit => format!("time per step ({unit})"),
    };
    document(&axes(rows, 0.0..above(0.0, highest), &y_name), |chart| {
        curve(chart, points(|row| row.p50), GREEN, "median")?;
        curve(chart, points(|row| row.mean_time_to_seal), BLUE, "mean")?;
        if let Law::Exponential { means, .. } = &findings.law {
            let means = means
                .iter()
                .zip(0..)
                .map(|(mean, backups)| (f64::from(backups), *mean));
            chart
                .draw_series(means.map(|at| Cross::new(at, 6, ROSE.stroke_width(2))))?
                .label("mean by the formula, H_M − H_b")
                .legend(|(x, y)| Cross::new((x + 10, y), 6, ROSE.stroke_width(2)));
        }
        legend(chart)
    })
}

/// T(N)·I(N) against the number of backup workers, with the best and the paper's.
fn convergence(findings: &Findings) -> Result<String, Box<dyn Error>> {
    let rows = &findings.document.rows;
    let unit = Unit::of_convergence(findings);
    let at = |row: &Row| (row.backups as f64, row.time_to_converge / unit.size);
    let times = || rows.iter().map(|row| at(row).1);
    let (lowest, highest) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    let below = (lowest - 0.2 * (highest - lowest)).max(0.0);
    let y_name = match unit.name {
        "k" => "T(N)·I(N) (1,000 worker's means)".to_owned(),
        unit => format!("time to convergence ({unit})"),
    };
    document(&axes(rows, below..above(below, highest), &y_name), |chart| {
        curve(chart, rows.iter().map(at), BLUE, "T(N)·I(N)")?;
        let best = findings.best();
        let edge = if findings.document.best_is_edge {
            ", the last one tried"
        } else {
            ""
        };
        chart
            .draw_series([Circle::new(at(best), 6, GREEN.filled())])?
            .label(format!("best: b = {}{edge}", best.backups))
            .legend(|(x, y)| Circle::new((x + 10, y), 6, GREEN.filled()));
        if let Some(row) = findings.paper() {
            chart
                .draw_series([Circle::new(at(row), 9, ROSE.stroke_width(2))])?
                .label(format!("the paper's choice: b = {}", row.backups))
                .legend(|(x, y)| Circle::new((x + 10, y), 7, ROSE.stroke_width(2)));
        }
        legend(chart)
    })
}

fn axes<'a>(rows: &[Row], y: std::ops::Range<f64>, y_name: &'a str) -> Axes<'a> {
    Axes {
        x: -0.3..(rows.len().max(2) - 1) as f64 + 0.3,
        y,
        x_name: "backup workers b",
        y_name,
        x_label: &whole,
        y_label: &rounded,
    }
}

/// The end of an axis with room for the legend over the highest point.
fn above(below: f64, highest: f64) -> f64 {
    highest + 0.35 * (highest - below).max(0.1 * highest).max(1e-9)
}

fn curve(
    chart: &mut Chart<'_>,
    points: impl Iterator<Item = (f64, f64)> + Clone,
    color: RGBColor,
    name: &str,
) -> Result<(), Box<dyn Error>> {
    chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
    chart
        .draw_series(points.map(|at| Circle::new(at, 3, color.filled())))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    Ok(())
}

/// In the upper right corner: more backup workers never make a step longer.
fn legend(chart: &mut Chart<'_>) -> Result<(), Box<dyn Error>> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(GRID)
        .label_font(label(&INK))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::findings::tests::findings;
    use super::*;

    #[test]
    fn the_page_has_both_pictures_and_loads_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for (distribution, workers) in [("exponential", 100), ("long-tail", 100), ("long-tail", 1)] {
            let page = write(folder.path(), &findings(distribution, workers, 1.0)).unwrap();
            let page = fs::read_to_string(page).unwrap();
            for load in [
                "http://", "https://", "src=", "@import", "url(", "<script", "xmlns",
            ] {
                assert!(!page.contains(load), "{load}");
            }
            assert_eq!(page.matches("<svg").count(), 2);
            assert_eq!(page.matches("choice: b = 4").count(), usize::from(workers == 100));
            for picture in ["time-per-step.svg", "time-to-converge.svg"] {
                let svg = fs::read_to_string(folder.path().join(picture)).unwrap();
                assert!(svg.starts_with("<svg ") && svg.contains("xmlns"), "{svg}");
                assert!(
                    !svg.contains("NaN") && !svg.contains("inf") && svg.contains("backup workers b"),
                    "{svg}"
                );
            }
        }
    }
}
