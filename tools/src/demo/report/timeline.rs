//! Who waited for whom in a few steps: a row for each rank, what its training thread and its exchange did, as SVG.

use std::fmt::Write;
use std::ops::Range;

use crate::demo::messages::RunReport;
use crate::demo::spans::{Activity, Span};
use crate::report::chart::rounded;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 78.0;
const TOP: f64 = 24.0;
const TRAINING: f64 = 18.0;
const EXCHANGE: f64 = 18.0;
const ROW: f64 = TRAINING + EXCHANGE + 16.0;
/// Narrower spans cannot hold the name of a rank.
const ROOM_FOR_A_NAME: f64 = 56.0;
/// Steps that begin closer together share one name.
const ROOM_FOR_A_STEP: f64 = 60.0;

/// Every activity: the class its colour hangs on, and what it is called.
const NAMES: [(&str, &str); 6] = [
    ("compute", "forward and backward"),
    ("slowed", "slowed on purpose"),
    ("blocked", "training thread waits for the means"),
    ("update", "weights updated"),
    ("exchange", "pulling and reducing"),
    ("wait", "exchange waits for the named rank"),
];

fn class(activity: Activity) -> usize {
    match activity {
        Activity::Compute => 0,
        Activity::Slowed => 1,
        Activity::Blocked => 2,
        Activity::Update => 3,
        Activity::Exchange => 4,
        Activity::Wait => 5,
    }
}

/// Class and name of the activities that occur.
pub fn legend(workers: &[&RunReport]) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut occurs = [false; NAMES.len()];
    workers
        .iter()
        .flat_map(|worker| &worker.spans)
        .for_each(|span| occurs[class(span.activity)] = true);
    NAMES
        .into_iter()
        .zip(occurs)
        .filter_map(|(name, occurs)| occurs.then_some(name))
}

/// The kept spans of all workers, by rank; empty if there are none. With `only`, the time that the worker which was in the most
/// of these steps spent in them: others may be in other steps meanwhile.
pub fn draw(workers: &[&RunReport], only: Option<Range<u32>>) -> String {
    let all = 0..u32::MAX;
    let in_steps = |worker: &RunReport, steps: &Range<u32>| {
        let spans = worker.spans.iter().filter(|span| steps.contains(&span.step));
        spans.copied().collect::<Vec<_>>()
    };
    let timed: Vec<Span> = match &only {
        None => workers.iter().flat_map(|worker| in_steps(worker, &all)).collect(),
        Some(steps) => {
            let rows = workers.iter().map(|worker| in_steps(worker, steps));
            rows.max_by_key(Vec::len).unwrap_or_default()
        }
    };
    let (Some(start), Some(end)) = (
        timed.iter().map(|span| span.start).min(),
        timed.iter().map(|span| span.end).max(),
    ) else {
        return String::new();
    };
    let scale = (WIDTH - LEFT - 12.0) / (end - start).max(1) as f64;
    let at = |time: u64| LEFT + (time.clamp(start, end) - start) as f64 * scale;
    let bottom = TOP + ROW * workers.len() as f64;
    let mut svg = format!(
        "<svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Timeline of {} ranks\">\n",
        bottom + 26.0,
        workers.len()
    );
    let numbered = match &only {
        None => &workers[0].spans,
        Some(_) => &timed,
    };
    steps(&mut svg, numbered, &at, bottom);
    for (rank, worker) in workers.iter().enumerate() {
        let top = TOP + ROW * rank as f64 + 6.0;
        put(
            &mut svg,
            format_args!(
                "<text x=\"0\" y=\"{:.1}\" class=\"rank\">rank {rank}</text>\n",
                top + 14.0
            ),
        );
        let shown = worker
            .spans
            .iter()
            .filter(|span| span.end > start && span.start < end);
        for span in shown {
            one(&mut svg, span, rank as u32, top, &at);
        }
    }
    time_axis(&mut svg, (end - start) as f64 / 1e6, bottom);
    svg.push_str("</svg>\n");
    svg
}

/// Writing to a string does not fail.
fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("a String takes all");
}

fn one(svg: &mut String, span: &Span, rank: u32, top: f64, at: &impl Fn(u64) -> f64) {
    let (class, _) = NAMES[class(span.activity)];
    let (y, height) = if span.activity.of_training() {
        (top, TRAINING)
    } else {
        (top + TRAINING + 1.0, EXCHANGE)
    };
    let (x, width) = (at(span.start), at(span.end) - at(span.start));
    put(
        svg,
        format_args!(
            "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{height}\"><title>{}</title></rect>\n",
            width.max(0.3),
            words(span, rank)
        ),
    );
    if let (Activity::Wait, Some(peer), true) = (span.activity, span.peer, width >= ROOM_FOR_A_NAME) {
        let middle = x + width / 2.0;
        put(
            svg,
            format_args!(
                "<text class=\"name\" x=\"{middle:.1}\" y=\"{:.1}\">rank {peer}</text>\n",
                y + 13.0
            ),
        );
    }
}

/// What hovering shows.
fn words(span: &Span, rank: u32) -> String {
    let time = rounded((span.end - span.start) as f64 / 1e6);
    let layer = span
        .layer
        .map_or(String::new(), |layer| format!(", layer {}", layer + 1));
    let done = match (span.activity, span.peer) {
        (Activity::Compute, _) if span.layer.is_some() => "backward".to_owned(),
        (Activity::Compute, _) => "forward".to_owned(),
        (Activity::Slowed, _) => "slowed on purpose".to_owned(),
        (Activity::Blocked, _) => "training thread waits for the means".to_owned(),
        (Activity::Update, _) => "weights updated".to_owned(),
        (Activity::Exchange, Some(peer)) if peer != rank => format!("pulls from rank {peer} and reduces"),
        (Activity::Exchange, _) => "reduces".to_owned(),
        (Activity::Wait, Some(peer)) => format!("waits for rank {peer}"),
        (Activity::Wait, None) => "waits".to_owned(),
    };
    format!("rank {rank}, step {}: {done}{layer}, {time} ms", span.step)
}

/// A thin line where rank 0 begins a step.
fn steps(svg: &mut String, spans: &[Span], at: &impl Fn(u64) -> f64, bottom: f64) {
    let mut last = None;
    let mut free = 0.0;
    for span in spans.iter().filter(|span| span.activity.of_training()) {
        if last.replace(span.step) != Some(span.step) {
            let x = at(span.start);
            put(
                svg,
                format_args!("<path class=\"step\" d=\"M{x:.1} {:.1}V{bottom}\"/>\n", TOP - 8.0),
            );
            if x < free || x + ROOM_FOR_A_STEP > WIDTH {
                continue;
            }
            free = x + ROOM_FOR_A_STEP;
            put(
                svg,
                format_args!(
                    "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\">step {}</text>\n",
                    x + 4.0,
                    TOP - 8.0,
                    span.step
                ),
            );
        }
    }
}

fn time_axis(svg: &mut String, milliseconds: f64, bottom: f64) {
    let tick = round_tick(milliseconds / 8.0);
    let scale = (WIDTH - LEFT - 12.0) / milliseconds;
    put(
        svg,
        format_args!("<path class=\"axis\" d=\"M{LEFT} {bottom}H{}\"/>\n", WIDTH - 12.0),
    );
    let count = (milliseconds / tick) as usize;
    for number in 0..=count {
        let time = number as f64 * tick;
        let x = LEFT + time * scale;
        let unit = if number == count { " ms" } else { "" };
        put(
            svg,
            format_args!("<path class=\"axis\" d=\"M{x:.1} {bottom}v5\"/>\n"),
        );
        put(
            svg,
            format_args!(
                "<text class=\"axis tick\" x=\"{x:.1}\" y=\"{:.1}\">{}{unit}</text>\n",
                bottom + 20.0,
                rounded(time)
            ),
        );
    }
}

/// The next of 1, 2, 5, 10, … that is not smaller.
fn round_tick(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= least)
        .unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::demo::messages::WorkerReport;
    use crate::demo::record::StepRecord;
    use crate::demo::trainer::EpochShare;

    fn run(spans: Vec<Span>) -> RunReport {
        RunReport {
            epochs: vec![EpochShare::default()],
            steps: vec![StepRecord {
                step: 0,
                until: 0,
                begun: 0,
                took: 1_000_000,
                ready: Some(500_000),
                members: [0, 1].into_iter().collect(),
            }],
            waited: vec![0, 50_000_000],
            spans,
            ..RunReport::default()
        }
    }

    pub fn report(rank: u32, spans: Vec<Span>) -> WorkerReport {
        WorkerReport {
            rank,
            plan: "direct".to_owned(),
            fabric: "shm".to_owned(),
            waiting: run(spans),
            ..WorkerReport::default()
        }
    }

    fn span(activity: Activity, step: u32, start: u64, end: u64, peer: Option<u32>) -> Span {
        Span {
            activity,
            step,
            start,
            end,
            peer,
            layer: Some(2),
        }
    }

    pub fn waiting() -> Vec<WorkerReport> {
        vec![
            report(
                0,
                vec![
                    span(Activity::Compute, 7, 0, 1_000_000, None),
                    span(Activity::Wait, 7, 1_000_000, 51_000_000, Some(1)),
                ],
            ),
            report(1, vec![span(Activity::Slowed, 7, 0, 50_000_000, None)]),
        ]
    }

    #[test]
    fn a_wait_names_the_rank_that_was_waited_for() {
        let reports = waiting();
        let workers: Vec<_> = reports.iter().map(|report| &report.waiting).collect();
        let svg = draw(&workers, None);
        assert!(
            svg.contains("<title>rank 0, step 7: waits for rank 1, layer 3, 50 ms</title>"),
            "{svg}"
        );
        assert!(svg.contains("class=\"name\"") && svg.contains(">rank 1</text>"));
        assert!(svg.contains("slowed on purpose") && svg.contains(">step 7</text>"));
        assert_eq!(draw(&[&run(Vec::new())], None), "");
    }

    #[test]
    fn who_is_behind_is_shown_in_the_others_time() {
        let fast = run(vec![
            span(Activity::Compute, 6, 0, 1_000_000, None),
            span(Activity::Compute, 7, 1_000_000, 2_000_000, None),
            span(Activity::Compute, 8, 2_000_000, 3_000_000, None),
        ]);
        let slow = run(vec![
            span(Activity::Compute, 1, 0, 500_000, None),
            span(Activity::Slowed, 4, 500_000, 9_000_000, None),
        ]);
        let svg = draw(&[&fast, &slow], Some(7..8));
        assert_eq!(svg.matches("<rect").count(), 2, "{svg}");
        assert!(
            svg.contains("rank 1, step 4: slowed") && svg.contains(">step 7</text>"),
            "{svg}"
        );
        assert!(!svg.contains("step 8") && svg.contains(">1 ms</text>"), "{svg}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            [0.3, 1.0, 1.1, 7.0, 30.0].map(round_tick),
            [0.5, 1.0, 2.0, 10.0, 50.0]
        );
    }
}
