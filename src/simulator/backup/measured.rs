//! Measured arrival times, as text: CSV with the header [`HEADER`] and one line for each worker of each step, in any
//! order. Steps are numbered as they like, workers from 0; a time counts from the step's begin. Reads no file itself.
//!
//! ```text
//! step,worker,seconds
//! 0,0,0.0131
//! 0,1,0.0127
//! ```

/// The first line.
pub const HEADER: &str = "step,worker,seconds";

/// As many as a backup-worker barrier has at most.
const MAXIMUM_WORKERS: u32 = 4096;

/// Longer than any step; sums of such times stay numbers.
const LONGEST: f64 = 1e9;

/// When the gradients of some steps arrived: every worker's in every step.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredTimes {
    workers: usize,
    /// Step after step.
    seconds: Vec<f64>,
}

/// Text that is not such a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct MeasuredError {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub reason: String,
}

#[derive(Clone, Copy)]
struct Row {
    line: usize,
    step: u64,
    worker: u32,
    seconds: f64,
}

impl MeasuredTimes {
    /// Reads the text of a file. Empty lines are passed over.
    ///
    /// # Errors
    /// The first line that cannot be used, or the first step that lacks a worker or has one twice.
    pub fn parse(text: &str) -> Result<Self, MeasuredError> {
        let mut lines = text.lines().map(str::trim).zip(1..);
        let head = lines.next().map_or("", |(line, _)| line);
        if head != HEADER {
            return Err(error(
                1,
                format!("the header \"{HEADER}\" is needed, not {head:?}"),
            ));
        }
        let mut rows = lines
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, line)| row(text, line))
            .collect::<Result<Vec<Row>, _>>()?;
        rows.sort_by_key(|row| (row.step, row.worker));
        let most = rows.iter().map(|row| row.worker).max();
        let workers = most.ok_or_else(|| error(2, "at least one step is needed".to_owned()))? as usize + 1;
        for step in rows.chunk_by(|one, next| one.step == next.step) {
            complete(step, workers)?;
        }
        Ok(Self {
            workers,
            seconds: rows.iter().map(|row| row.seconds).collect(),
        })
    }

    /// How many workers each step has.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// How many steps there are; at least one.
    pub fn steps(&self) -> usize {
        self.seconds.len() / self.workers
    }

    /// The arrival times of the workers in one of the steps, which are taken by their numbers.
    pub fn step(&self, index: usize) -> &[f64] {
        &self.seconds[index * self.workers..][..self.workers]
    }
}

fn error(line: usize, reason: String) -> MeasuredError {
    MeasuredError { line, reason }
}

fn row(text: &str, line: usize) -> Result<Row, MeasuredError> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let [step, worker, seconds] = fields[..] else {
        return Err(error(
            line,
            format!("{} fields, and three are needed: {HEADER}", fields.len()),
        ));
    };
    let not = |what: String| move || error(line, what);
    let worker_reason = format!(
        "the worker {worker:?} is not a number from 0 to {}",
        MAXIMUM_WORKERS - 1
    );
    let seconds_reason =
        format!("the time {seconds:?} is not a number of seconds above 0 and up to {LONGEST:e}");
    Ok(Row {
        line,
        step: step
            .parse()
            .ok()
            .ok_or_else(not(format!("the step {step:?} is not a whole number from 0 on")))?,
        worker: worker
            .parse()
            .ok()
            .filter(|worker| *worker < MAXIMUM_WORKERS)
            .ok_or_else(not(worker_reason))?,
        seconds: seconds
            .parse()
            .ok()
            .filter(|seconds| *seconds > 0.0 && *seconds <= LONGEST)
            .ok_or_else(not(seconds_reason))?,
    })
}

/// A step's rows, by worker, must be one of each.
fn complete(rows: &[Row], workers: usize) -> Result<(), MeasuredError> {
    let step = rows[0].step;
    for (expected, row) in rows.iter().enumerate() {
        if (row.worker as usize) < expected {
            return Err(error(
                row.line,
                format!("step {step} has a second time of worker {}", row.worker),
            ));
        }
        if row.worker as usize > expected {
            return Err(lacking(rows, expected, workers));
        }
    }
    if rows.len() < workers {
        return Err(lacking(rows, rows.len(), workers));
    }
    Ok(())
}

fn lacking(rows: &[Row], worker: usize, workers: usize) -> MeasuredError {
    let first = rows.iter().map(|row| row.line).min().unwrap_or(0);
    error(
        first,
        format!(
            "step {} has no time of worker {worker}; every step needs one of each worker from 0 to {}",
            rows[0].step,
            workers - 1
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(lines: &str) -> String {
        format!("{HEADER}\n{lines}\n")
    }

    #[test]
    fn lines_come_in_any_order() {
        let read = MeasuredTimes::parse(&file("9,1,0.4\r\n7,0,1e-3\n\n7, 1, 2\n9,0,0.1")).unwrap();
        assert_eq!((read.workers(), read.steps()), (2, 2));
        assert_eq!((read.step(0), read.step(1)), (&[1e-3, 2.0][..], &[0.1, 0.4][..]));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line, reason) in [
            (
                "".to_owned(),
                1,
                "header \"step,worker,seconds\" is needed, not \"\"",
            ),
            ("0,0,1\n".to_owned(), 1, "not \"0,0,1\""),
            (file(""), 2, "at least one step"),
            (file("0,0"), 2, "2 fields, and three"),
            (file("0,0,1\n1,0,1,1"), 3, "4 fields"),
            (file("-1,0,1"), 2, "the step \"-1\""),
            (file("0,4096,1"), 2, "from 0 to 4095"),
            (file("0,x,1"), 2, "the worker \"x\""),
            (file("0,0,NaN"), 2, "the time \"NaN\""),
            (file("0,0,inf"), 2, "the time \"inf\""),
            (file("0,0,-0.1"), 2, "seconds above 0"),
            (file("0,0,0"), 2, "the time \"0\""),
            (file("0,0,2e9"), 2, "up to 1e9"),
            (file("0,0,"), 2, "the time \"\""),
            (
                file("0,0,1\n0,1,1\n0,0,1"),
                4,
                "step 0 has a second time of worker 0",
            ),
            (file("0,0,1\n0,1,1\n5,1,1"), 4, "step 5 has no time of worker 0"),
            (
                file("0,0,1\n5,0,1\n5,1,1"),
                2,
                "step 0 has no time of worker 1; every step needs one of each worker from 0 to 1",
            ),
            (file("0,0,1\n0,2,1"), 2, "no time of worker 1"),
        ] {
            let error = MeasuredTimes::parse(&text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        /// What was written is read, whatever the order of the lines.
        #[test]
        fn times_come_back(
            (workers, times, order) in (1usize..6, 1usize..8).prop_flat_map(|(workers, steps)| {
                let lines: Vec<usize> = (0..workers * steps).collect();
                let times = prop::collection::vec(1e-9..1e9, workers * steps);
                (Just(workers), times, Just(lines).prop_shuffle())
            }),
        ) {
            let lines = order.iter().map(|at| format!("{},{},{}", at / workers, at % workers, times[*at]));
            let read = MeasuredTimes::parse(&file(&lines.collect::<Vec<_>>().join("\n"))).unwrap();
            prop_assert_eq!(read, MeasuredTimes { workers, seconds: times });
        }

        /// Whatever the text: an error with one of its lines, or steps that are complete and times that are numbers.
        #[test]
        fn any_text_is_read_or_refused(lines in "([0-3],[0-3],([0-9]|NaN|-1|1e400)?\n|.{0,9}\n){0,12}", headed: bool) {
            let text = if headed { file(&lines) } else { lines };
            match MeasuredTimes::parse(&text) {
                Ok(read) => {
                    prop_assert!(read.steps() > 0 && read.seconds.len() == read.steps() * read.workers());
                    prop_assert!(read.seconds.iter().all(|seconds| *seconds > 0.0 && *seconds <= LONGEST));
                }
                Err(error) => prop_assert!((1..=text.lines().count().max(2)).contains(&error.line), "{}", error),
            }
        }
    }
}
