//! The measured times of all gradients as CSV, for `sapwood sim backup --distribution`. Of the run that waits for all:
//! there every worker computes every gradient to its end.

use std::fmt::Write;
use std::io;
use std::path::Path;

use sapwood::simulator::backup::HEADER;

use crate::demo::messages::WorkerReport;

/// The file's name in the report's folder.
pub const FILE: &str = "arrivals.csv";

/// Takes away what an earlier run has left there.
pub fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_file(folder.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A line for each step and worker: from the step's begin there until its gradient was ready.
pub fn csv(reports: &[WorkerReport]) -> String {
    let mut text = format!("{HEADER}\n");
    let steps = reports
        .iter()
        .map(|report| report.waiting.steps.len())
        .max()
        .unwrap_or(0);
    for step in 0..steps {
        for report in reports {
            let record = report.waiting.steps.get(step);
            if let Some(ready) = record.and_then(|record| record.ready) {
                let seconds = ready as f64 / 1e9;
                writeln!(text, "{step},{},{seconds:.9}", report.rank).expect("a String takes all");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::report::timeline::tests::waiting;

    #[test]
    fn a_line_for_each_step_and_worker() {
        assert_eq!(
            csv(&waiting()),
            "step,worker,seconds\n0,0,0.000500000\n0,1,0.000500000\n"
        );
    }
}
