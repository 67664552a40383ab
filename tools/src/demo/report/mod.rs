//! The demo's report: one HTML file with inline style and SVG, nothing loaded from anywhere, and the times as CSV. Only
//! shows; checks nothing.

mod arrivals;
mod backups;
mod charts;
mod comparison;
mod timeline;
mod waits;
mod words;

use std::io;
use std::path::{Path, PathBuf};

use super::findings::{Findings, bytes, step_times};
use super::messages::{RunReport, WorkerReport};
use crate::report::chart::rounded;
use crate::report::{self, Page, card, escape, tile, wide};
use crate::table::grouped;

/// Writes `index.html`, whose path it returns, and `arrivals.csv` into the folder, each all at once.
pub fn write(folder: &Path, findings: &Findings, reports: &[WorkerReport]) -> io::Result<PathBuf> {
    match findings.without_waiting {
        None => drop(report::write_whole(
            folder,
            arrivals::FILE,
            &arrivals::csv(reports),
        )?),
        Some(_) => arrivals::remove(folder)?,
    }
    report::write(folder, &html(findings, reports))
}

fn html(findings: &Findings, reports: &[WorkerReport]) -> String {
    let all: Vec<_> = reports.iter().map(|report| &report.waiting).collect();
    let epochs = findings.epochs.len();
    let drawn = super::drawn(epochs, findings.steps / epochs.max(1), super::DRAWN_WITH_BACKUPS);
    let drawn = drawn.start as u32..drawn.end as u32;
    let losses: Vec<f64> = findings.epochs.iter().map(|epoch| epoch.loss).collect();
    let accuracies: Vec<f64> = findings.epochs.iter().map(|epoch| epoch.accuracy).collect();
    let sections = [
        backups::sections(findings, reports),
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
        step_time(findings, &all),
        backups::timeline(findings, reports, drawn),
        waited(findings, &all),
        wide("Figures", "", &figures(findings)),
        wide("What these figures do not say", "", &words::notes(findings)),
    ];
    Page {
        title: "demo",
        lead: &words::lead(findings),
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

fn tiles(findings: &Findings) -> Vec<String> {
    let checked = |held| if held { "good" } else { "bad" };
    let yes_no = |held| if held { "yes" } else { "no" };
    let backups = findings.backups > 0;
    let mut tiles = vec![
        tile("", format!("{:.1} %", findings.accuracy * 100.0), "test accuracy"),
        tile(
            "",
            format!("{} ms", rounded(findings.step_ms.p50)),
            if backups {
                "a step with backups"
            } else {
                "a step, median"
            },
        ),
    ];
    if let Some(times) = findings.step_ms_waiting_for_all {
        tiles.push(tile(
            "",
            format!("{} ms", rounded(times.p50)),
            "a step waiting for all",
        ));
    }
    if backups {
        tiles.push(tile("", grouped(findings.dropped_gradients), "gradients dropped"));
    }
    if !findings.deaths.is_empty() {
        let died = findings.deaths.len().to_string();
        tiles.push(tile("", died, "died, of the workers"));
    }
    if findings.without_waiting.is_none() {
        let of = if backups { ", waiting for all" } else { "" };
        tiles.extend([
            tile("", bytes(findings.bytes_exchanged), &format!("exchanged{of}")),
            tile(
                checked(findings.copies_hold()),
                bytes(findings.bytes_copied),
                &format!("copied{of}"),
            ),
        ]);
    }
    tiles.extend([
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
    ]);
    tiles
}

/// Who waited for whom, in the run that waits for all; nothing, if that has not come to its end.
fn waited(findings: &Findings, all: &[&RunReport]) -> String {
    if findings.without_waiting.is_some() {
        return String::new();
    }
    let title = match findings.backups {
        0 => "Who waited for whom",
        _ => "Who waited for whom: waiting for all",
    };
    wide(
        title,
        "Upper half of a row: the training thread. Lower half: its exchange. Hover for rank, step, layer and time.",
        &format!(
            "{}<div class=\"scroll\">{}</div>",
            legend(all),
            timeline::draw(all, None)
        ),
    ) + &waits::sections(findings)
}

/// One run's step times; of two, the comparison has shown them.
fn step_time(findings: &Findings, workers: &[&RunReport]) -> String {
    if findings.backups > 0 {
        return String::new();
    }
    let times = step_times(workers, findings.steps);
    let longest = times.iter().copied().fold(0.0, f64::max);
    let hint = format!(
        "Of the slowest worker in each of {} steps; the longest took {} ms.",
        grouped(times.len() as u64),
        rounded(longest.max(findings.step_ms.p99))
    );
    card("Step time", &hint, &charts::step_times(&times, findings.step_ms)) + &communication(findings)
}

fn communication(findings: &Findings) -> String {
    card(
        "Communication per epoch",
        "Counted in an epoch of its own for each batch size, waiting for all. Red: exact proportion to 1/batch; the last step \
         of an epoch may be short.",
        &charts::epoch_bytes(&findings.bytes_per_epoch),
    )
}

fn legend(workers: &[&RunReport]) -> String {
    let items =
        timeline::legend(workers).map(|(class, name)| format!("<li><i class=\"{class}\"></i>{name}</li>"));
    format!("<ul class=\"legend\">{}</ul>", items.collect::<String>())
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::demo::findings::{Died, Epoch, EpochBytes, Milliseconds, Participation, SlowWorker};

    fn findings() -> Findings {
        let time = Milliseconds { p50: 1.0, p99: 2.0 };
        Findings {
            dataset: "<digits>".to_owned(),
            workers: 2,
            backups: 0,
            accuracy: 0.98,
            accuracy_waiting_for_all: None,
            steps: 1,
            bytes_exchanged: 1,
            bytes_copied: 0,
            replicas_identical: true,
            weights_digest: String::new(),
            matches_single_process: true,
            max_weight_difference: 1e-7,
            dropped_gradients: 0,
            participation: vec![Participation::default(); 2],
            hardly_heard: Vec::new(),
            step_ms: time,
            step_ms_waiting_for_all: None,
            training_s: 1.0,
            training_s_waiting_for_all: None,
            weight_tolerance: 1e-5,
            single_process_accuracy: 0.98,
            plan: "<plan>".to_owned(),
            fabric: "shm".to_owned(),
            hosts: 1,
            staged: false,
            batch: 128,
            seed: 1,
            slow: vec![SlowWorker { rank: 1, ms: 50 }],
            without_backups: None,
            deaths: Vec::new(),
            without_waiting: None,
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

    #[test]
    fn after_a_death_the_page_says_who_died_and_has_nothing_of_waiting_for_all() {
        let mut reports = timeline::tests::waiting();
        for report in &mut reports {
            report.with_backups = Some(std::mem::take(&mut report.waiting));
        }
        let findings = Findings {
            backups: 1,
            deaths: vec![Died {
                rank: 1,
                how: "(process 7) was killed by SIGKILL".to_owned(),
                run: "with backups",
                step: 41,
            }],
            without_waiting: Some("not run: it would wait for rank 1, which had died".to_owned()),
            bytes_per_epoch: Vec::new(),
            waited_ms: Vec::new(),
            ..findings()
        };
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("arrivals.csv"), "of an earlier run").unwrap();
        let page = fs::read_to_string(write(folder.path(), &findings, &reports).unwrap()).unwrap();
        for part in [
            "Rank 1 (process 7) was killed by SIGKILL in step 41",
            "died, of the workers",
            "not run: it would wait for rank 1",
            "Whose gradients were used",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("Who waited for whom") && !page.contains("exchanged, waiting"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_page_stands_beside_the_times() {
        let folder = tempfile::tempdir().unwrap();
        let page = write(folder.path(), &findings(), &timeline::tests::waiting()).unwrap();
        assert!(fs::read_to_string(&page).unwrap().ends_with("</html>\n"));
        let files = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["arrivals.csv", "index.html"]);
    }

    #[test]
    fn with_backups_the_page_compares_and_says_whose_gradients_were_dropped() {
        let mut reports = timeline::tests::waiting();
        for report in &mut reports {
            report.with_backups = Some(RunReport::default());
        }
        let findings = Findings {
            backups: 1,
            step_ms_waiting_for_all: Some(Milliseconds { p50: 50.0, p99: 51.0 }),
            hardly_heard: vec![1],
            participation: vec![
                Participation::default(),
                Participation {
                    stopped: 1,
                    ..Participation::default()
                },
            ],
            ..findings()
        };
        let page = html(&findings, &reports);
        for part in [
            "1 backup: p50 1 ms, p99 2 ms",
            "waiting for all: p50 50 ms",
            "Hardly heard: rank 1",
            "biased towards the others",
            "<td>0</td><td>0</td><td>1</td><td>0</td>",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}
