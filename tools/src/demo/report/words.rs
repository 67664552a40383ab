//! The report's sentences: what was done, and what the figures do not say.

use crate::demo::findings::{Findings, bytes};
use crate::report::escape;
use crate::table::grouped;

/// What was done, in the page's head.
pub fn lead(findings: &Findings) -> String {
    let slow: String = findings
        .slow
        .iter()
        .map(|slow| format!(" Rank {} was slowed by {} ms in each step.", slow.rank, slow.ms))
        .collect();
    let waited = match (findings.backups, &findings.without_backups) {
        (0, None) => String::new(),
        (0, Some(sentence)) => format!(" No backup workers: {}.", escape(sentence)),
        (backups, _) => format!(
            " A step's mean is that of the first {} gradients of {}; the rest is not waited for.",
            findings.workers - backups,
            findings.workers,
        ),
    };
    let died: String = findings
        .deaths
        .iter()
        .map(|died| format!(" Rank {} {}; the others went on.", died.rank, died.words()))
        .collect();
    let plural = if findings.workers == 1 {
        "worker process"
    } else {
        "worker processes"
    };
    let place = match findings.hosts {
        1 => "on one host".to_owned(),
        hosts => format!("on one host, which said that they were on {hosts},"),
    };
    format!(
        "{} {plural} {place} trained a classifier of {} weights on {} handwritten digits and exchanged their \
         gradients in every one of {} steps.{slow}{waited}{died}",
        findings.workers,
        grouped(findings.parameters as u64),
        grouped(findings.training_images as u64),
        grouped(findings.steps as u64),
    )
}

/// What the figures do not say.
pub fn notes(findings: &Findings) -> String {
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
            "{} Sums in another order round differently: up to {:.0e} counts as equal, and {:.1e} was found.",
            match findings.backups {
                0 => format!(
                    "The run was compared with one process that took the same {} images in every step.",
                    findings.batch
                ),
                _ if findings.without_waiting.is_some() => "The run was compared with one process that took, in each step, the \
                      images of the workers whose gradients were in its mean, as those that are left have recorded it."
                    .to_owned(),
                _ => "Both runs were compared with one process: with the images of the workers whose gradients were in each \
                      step's mean, as recorded, and with all images."
                    .to_owned(),
            },
            findings.weight_tolerance,
            findings.max_weight_difference
        ),
        sharing,
        format!(
            "Gradients of {} are small: this shows that the exchange is right and who waits for whom, not how fast it is.",
            bytes(4 * findings.parameters as u64)
        ),
        match (findings.backups, &findings.without_backups) {
            (0, None) => "Every step waited for every worker, as --backups 0 says.".to_owned(),
            (0, Some(sentence)) => format!("Every step waited for every worker: {}.", escape(sentence)),
            _ if findings.without_waiting.is_some() => "A dropped gradient is a part of the batch that is not learnt from. Here \
                  the images are dealt anew in each epoch, so that the loss is spread over all of them; where each worker keeps \
                  data of its own, what was with one that died is lost."
                .to_owned(),
            _ => "A dropped gradient is a part of the batch that is not learnt from. Here the images are dealt anew in each \
                  epoch, so that the loss is spread over all of them; where each worker keeps data of its own, what a slow one \
                  has is lost. Bytes exchanged and copied, waits and the plan are those of the run that waited for all: the other one \
                  has no plan, and does not count its bytes. arrivals.csv has the times of each step's gradients in the run that \
                  waited for all."
                .to_owned(),
        },
    ];
    format!(
        "<ul class=\"notes\">{}</ul>",
        notes.map(|note| format!("<li>{note}</li>")).concat()
    )
}
