//! The findings in people's words. Computes nothing but what a sentence needs.

use super::{Findings, bytes};
use crate::table::{Align, Table, grouped};

impl Findings {
    /// The figures in people's words: what, how much, and a remark.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let mut rows = self.training_rows();
        rows.extend(self.backup_rows());
        rows.extend(self.checked_rows());
        for count in &self.bytes_per_epoch {
            rows.push(row(
                &format!("epoch at batch {}", count.batch),
                bytes(count.bytes),
                format!("exchanged in {} steps", count.steps),
            ));
        }
        rows
    }

    fn training_rows(&self) -> Vec<[String; 3]> {
        let right = (self.accuracy * self.test_images as f64).round();
        let with = |remark: String, waiting: Option<String>| {
            let waiting = waiting.map(|figure| format!("waiting for all {figure}"));
            let parts = [Some(remark).filter(|remark| !remark.is_empty()), waiting];
            parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
        };
        let accuracy = self
            .accuracy_waiting_for_all
            .map(|accuracy| format!("{:.1} %", accuracy * 100.0));
        let milliseconds = |value: f64| format!("{value:.2} ms");
        let waiting = self.step_ms_waiting_for_all;
        let counted = match self.backups {
            0 => "of the slowest worker in each step".to_owned(),
            backups => format!(
                "with {backups} {}, of the slowest in the mean",
                plural(backups, "backup")
            ),
        };
        vec![
            row(
                "test accuracy",
                format!("{:.1} %", self.accuracy * 100.0),
                with(
                    format!("{right} of {} images never trained on", self.test_images),
                    accuracy,
                ),
            ),
            row(
                "steps",
                grouped(self.steps as u64),
                format!(
                    "{} epochs of {} images, {} a step",
                    self.epochs.len(),
                    grouped(self.training_images as u64),
                    self.batch
                ),
            ),
            row(
                "step time p50",
                milliseconds(self.step_ms.p50),
                with(counted, waiting.map(|times| milliseconds(times.p50))),
            ),
            row(
                "step time p99",
                milliseconds(self.step_ms.p99),
                with(self.slow_remark(), waiting.map(|times| milliseconds(times.p99))),
            ),
            row(
                "training",
                format!("{:.2} s", self.training_s),
                with(
                    "all steps".to_owned(),
                    self.training_s_waiting_for_all.map(|time| format!("{time:.2} s")),
                ),
            ),
        ]
    }

    fn backup_rows(&self) -> Vec<[String; 3]> {
        if self.backups == 0 {
            let none = |sentence: &String| row("backup workers", "0".to_owned(), sentence.clone());
            return self.without_backups.iter().map(none).collect();
        }
        let by_worker = self.participation.iter().enumerate();
        let by_worker = by_worker.map(|(rank, one)| format!("{} of rank {rank}", grouped(one.dropped())));
        let mut rows = vec![row(
            "dropped gradients",
            grouped(self.dropped_gradients),
            by_worker.collect::<Vec<_>>().join(", "),
        )];
        let left = self.workers - self.deaths.len();
        rows.extend(self.deaths.iter().map(|died| {
            let words = format!("{}; the other {left} went on", died.words());
            row("died", format!("rank {}", died.rank), words)
        }));
        rows.extend(
            self.without_waiting
                .iter()
                .map(|why| row("waiting for all", String::new(), why.clone())),
        );
        rows.extend(self.bias().map(|sentence| {
            let ranks = self.hardly_heard.iter().map(u32::to_string);
            row(
                "hardly heard",
                format!("rank {}", ranks.collect::<Vec<_>>().join(", ")),
                sentence,
            )
        }));
        rows
    }

    fn checked_rows(&self) -> Vec<[String; 3]> {
        let yes_no = |yes| if yes { "yes" } else { "NO" }.to_owned();
        let waiting = if self.backups > 0 { "waiting for all, " } else { "" };
        let left = match self.without_waiting {
            Some(_) => ", of those that are left",
            None => "",
        };
        let replayed = match self.backups {
            0 => "",
            _ => ", each step's members replayed",
        };
        let counted = [
            row(
                "exchanged",
                bytes(self.bytes_exchanged),
                format!(
                    "{waiting}by {} workers, plan {}, fabric {}",
                    self.workers, self.plan, self.fabric
                ),
            ),
            row(
                "copied",
                bytes(self.bytes_copied),
                if self.staged {
                    format!("{waiting}staged until it is summed; leaves' gradients and results are not")
                } else {
                    format!("{waiting}read where the backward pass wrote, stored where the optimizer reads")
                },
            ),
        ];
        let mut rows = Vec::new();
        if self.without_waiting.is_none() {
            rows.extend(counted);
        }
        rows.extend([
            row(
                "replicas identical",
                yes_no(self.replicas_identical),
                format!("{} weights, bit by bit{left}", grouped(self.parameters as u64)),
            ),
            row(
                "matches one process",
                yes_no(self.matches_single_process),
                format!(
                    "largest weight difference {:.1e}, tolerance {:.1e}{replayed}",
                    self.max_weight_difference, self.weight_tolerance
                ),
            ),
        ]);
        rows
    }

    /// Who was slowed, and by how much.
    pub fn slow_remark(&self) -> String {
        let slow = self.slow.iter();
        let slow = slow.map(|slow| format!("rank {} sleeps {} ms in each step", slow.rank, slow.ms));
        slow.collect::<Vec<_>>().join(", ")
    }

    /// What it means that some workers were hardly ever in the mean.
    pub fn bias(&self) -> Option<String> {
        let sentence = "in fewer than one of ten means, so the model is biased towards the others' data (here images are \
                        dealt anew in each epoch, which spreads the loss)";
        (!self.hardly_heard.is_empty()).then(|| sentence.to_owned())
    }

    /// The table for a terminal.
    pub fn table(&self) -> String {
        let mut table = Table::new(&[Align::Left, Align::Right, Align::Left]);
        self.rows().into_iter().for_each(|row| table.row(row));
        table.render(2)
    }
}

fn row(what: &str, figure: String, remark: String) -> [String; 3] {
    [what.to_owned(), figure, remark]
}

/// A word for so many.
pub fn plural(count: usize, word: &str) -> String {
    match count {
        1 => word.to_owned(),
        _ => format!("{word}s"),
    }
}
