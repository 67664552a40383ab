//! The demo's report: one HTML file with inline style and SVG, nothing loaded from anywhere. Only shows; checks nothing.

mod charts;
mod timeline;

use std::io;
use std::path::{Path, PathBuf};

use super::findings::{Findings, bytes, step_times};
use super::messages::WorkerReport;
use super::workers;
use crate::report::chart::rounded;
use crate::report::{self, Page, card, escape, inline, tile, wide};
use crate::table::grouped;

/// Writes the page into the folder and returns its path.
pub fn write(folder: &Path, findings: &Findings, reports: &[WorkerReport]) -> io::Result<PathBuf> {
    report::write(folder, &html(findings, reports))
}

fn html(findings: &Findings, reports: &[WorkerReport]) -> String {
    let times = step_times(reports);
    let losses: Vec<f64> = findings.epochs.iter().map(|epoch| epoch.loss).collect();
    let accuracies: Vec<f64> = findings.epochs.iter().map(|epoch| epoch.accuracy).collect();
    let sections = [
        card(
            "Loss",
            "Mean cross-entropy of the training images, as they were used.",
            &charts::loss(&losses),
        ),
        card(
            "Accuracy",
            "On images that were never trained on.",
            &charts::accuracy(&accuracies),
        ),
        card(
            "Step time",
            &step_time_hint(findings, &times),
            &charts::step_times(&times, findings.step_ms),
        ),
        card(
            "Communication per epoch",
            "Counted in an epoch of its own for each batch size. Red: exact proportion to 1/batch; the last step of an \
             epoch may be short.",
            &charts::epoch_bytes(&findings.bytes_per_epoch),
        ),
        wide(
            "Who waited for whom",
            "Upper half of a row: the training thread. Lower half: its exchange. Hover for rank, step, layer and time.",
            &format!(
                "{}<div class=\"scroll\">{}</div>",
                legend(reports),
                timeline::draw(reports)
            ),
        ),
        plan_and_waiting(findings),
        wide("Figures", "", &figures(findings)),
        wide("What these figures do not say", "", &notes(findings)),
    ];
    Page {
        title: "demo",
        lead: &lead(findings),
        tiles: &tiles(findings),
        sections: &sections.concat(),
        footer: &format!(
            "Images: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning \
             Repository, CC BY 4.0. Made by sapwood {} in {:.1} s.",
            env!("CARGO_PKG_VERSION"),
            findings.seconds
        ),
    }
    .html()
}

fn lead(findings: &Findings) -> String {
    let slow = findings.slow.map_or(String::new(), |slow| {
        format!(" Rank {} was slowed by {} ms in each step.", slow.rank, slow.ms)
    });
    let plural = if findings.workers == 1 {
        "worker process"
    } else {
        "worker processes"
    };
    format!(
        "{} {plural} on one host trained a classifier of {} weights on {} handwritten digits and exchanged their \
         gradients in every one of {} steps.{slow}",
        findings.workers,
        grouped(findings.parameters as u64),
        grouped(findings.training_images as u64),
        grouped(findings.steps as u64),
    )
}

fn tiles(findings: &Findings) -> String {
    let checked = |held| if held { "good" } else { "bad" };
    let yes_no = |held| if held { "yes" } else { "no" };
    [
        tile("", format!("{:.1} %", findings.accuracy * 100.0), "test accuracy"),
        tile(
            "",
            format!("{} ms", rounded(findings.step_ms.p50)),
            "a step, median",
        ),
        tile("", bytes(findings.bytes_exchanged), "exchanged"),
        tile(
            checked(findings.copies_hold()),
            bytes(findings.bytes_copied),
            "copied",
        ),
        tile(
            checked(findings.replicas_identical),
            yes_no(findings.replicas_identical),
            "replicas identical",
        ),
        tile(
            checked(findings.matches_single_process),
            yes_no(findings.matches_single_process),
            "matches one process",
        ),
    ]
    .concat()
}

fn step_time_hint(findings: &Findings, times: &[f64]) -> String {
    let longest = times.iter().copied().fold(0.0, f64::max);
    format!(
        "Of the slowest worker in each of {} steps; the longest took {} ms.",
        grouped(times.len() as u64),
        rounded(longest.max(findings.step_ms.p99))
    )
}

fn legend(reports: &[WorkerReport]) -> String {
    let items =
        timeline::legend(reports).map(|(class, name)| format!("<li><i class=\"{class}\"></i>{name}</li>"));
    format!("<ul class=\"legend\">{}</ul>", items.collect::<String>())
}

/// The plan's drawing, if there is one, beside the table of waits, if that is small.
fn plan_and_waiting(findings: &Findings) -> String {
    let picture = workers::picture(&findings.plan, findings.workers as u32);
    if findings.workers < 2 {
        return String::new();
    }
    let beside = picture.is_some() && findings.workers <= 5;
    let section = if beside { card } else { wide };
    let waits = section(
        "Waiting, whole run",
        "Milliseconds a step, on average, that an exchange waited for another rank. The training thread may have been \
         computing meanwhile, and a rank that waits lets others wait.",
        &waiting(findings),
    );
    let picture = picture.map_or(String::new(), |picture| {
        let title = format!("The plan: {}", escape(&findings.plan));
        let picture = format!("<div class=\"picture\">{}</div>", inline(&picture));
        section(
            &title,
            "How gradients are reduced on their way up, and handed back on the way down.",
            &picture,
        )
    });
    waits + &picture
}

/// Rows wait, columns are waited for; the darker, the longer.
fn waiting(findings: &Findings) -> String {
    let ranks = findings.workers;
    let per_step = |waited: f64| waited / findings.steps.max(1) as f64;
    let most = findings
        .waited_ms
        .iter()
        .flatten()
        .copied()
        .map(per_step)
        .fold(1e-9, f64::max);
    let head: String = (0..ranks).map(|rank| format!("<th>rank {rank}</th>")).collect();
    let rows: String = (0..ranks)
        .map(|rank| {
            let cells: String = (0..ranks)
                .map(|peer| match per_step(findings.waited_ms[rank][peer]) {
                    _ if peer == rank => "<td></td>".to_owned(),
                    wait => format!(
                        "<td style=\"background:rgba(196,69,54,{:.2})\">{}</td>",
                        0.55 * wait / most,
                        format_args!("{wait:.2}")
                    ),
                })
                .collect();
            format!("<tr><th>rank {rank} waited for</th>{cells}</tr>")
        })
        .collect();
    format!("<div class=\"scroll\"><table class=\"matrix\"><tr><th></th>{head}</tr>{rows}</table></div>")
}

fn figures(findings: &Findings) -> String {
    let rows: String = findings
        .rows()
        .iter()
        .map(|[what, figure, remark]| {
            format!(
                "<tr><td>{}</td><td class=\"figure\">{}</td><td class=\"remark\">{}</td></tr>\n",
                escape(what),
                escape(figure),
                escape(remark)
            )
        })
        .collect();
    format!("<table class=\"figures\">{rows}</table>")
}

fn notes(findings: &Findings) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sharing = if findings.workers > cores {
        format!(
            "{} workers shared {cores} cores, so a step's time contains waiting for a core.",
            findings.workers
        )
    } else {
        format!(
            "{} workers ran on {cores} cores, beside whatever else the machine did.",
            findings.workers
        )
    };
    let notes = [
        "Accuracy is that of a random split by seed. The published split keeps writers apart and is harder, so the two \
         cannot be compared."
            .to_owned(),
        format!(
            "The run was compared with one process that took the same {} images in every step. Sums in another order \
             round differently: up to {:.0e} counts as equal, and {:.1e} was found.",
            findings.batch, findings.weight_tolerance, findings.max_weight_difference
        ),
        sharing,
        format!(
            "Gradients of {} are small: this shows that the exchange is right and who waits for whom, not how fast it is.",
            bytes(4 * findings.parameters as u64)
        ),
        "Every step waited for every worker. The backup-worker barrier, which would not, is not built yet; its figures \
         are null in the JSON."
            .to_owned(),
    ];
    format!(
        "<ul class=\"notes\">{}</ul>",
        notes.map(|note| format!("<li>{note}</li>")).concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::findings::{Epoch, EpochBytes, Milliseconds, SlowWorker};

    fn findings() -> Findings {
        let time = Milliseconds { p50: 1.0, p99: 2.0 };
        Findings {
            dataset: "<digits>".to_owned(),
            workers: 2,
            backups: 0,
            accuracy: 0.98,
            steps: 1,
            bytes_exchanged: 1,
            bytes_copied: 0,
            replicas_identical: true,
            weights_digest: String::new(),
            matches_single_process: true,
            max_weight_difference: 1e-7,
            dropped_gradients: 0,
            step_ms: time,
            step_ms_waiting_for_all: None,
            weight_tolerance: 1e-5,
            single_process_accuracy: 0.98,
            plan: "<plan>".to_owned(),
            fabric: "shm".to_owned(),
            staged: false,
            batch: 128,
            seed: 1,
            slow: Some(SlowWorker { rank: 1, ms: 50 }),
            training_images: 100,
            test_images: 20,
            parameters: 10,
            bytes_per_epoch: vec![EpochBytes {
                batch: 64,
                steps: 2,
                bytes: 100,
            }],
            communication_falls_with_batch: true,
            waited_ms: vec![vec![0.0, 50.0], vec![0.0, 0.0]],
            seconds: 1.0,
            epochs: vec![Epoch {
                loss: 0.5,
                accuracy: 0.98,
            }],
        }
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = html(&findings(), &timeline::tests::waiting());
        for load in [
            "http://", "https://", "//cdn", "src=", "@import", "url(", "<script", "xmlns",
        ] {
            assert!(!page.contains(load), "{load}");
        }
        assert_eq!(
            page.matches("<link").count(),
            page.matches("href=\"data:,\"").count()
        );
        assert!(page.contains("&lt;plan&gt;") && !page.contains("<plan>"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("waits for rank 1") && page.contains("Rank 1 was slowed by 50 ms"));
    }
}
