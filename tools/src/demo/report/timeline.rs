//! Who waited for whom in a few steps: a row for each rank, what its training thread and its exchange did, as SVG.

use std::fmt::Write;

use crate::demo::messages::WorkerReport;
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
pub fn legend(reports: &[WorkerReport]) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut occurs = [false; NAMES.len()];
    reports
        .iter()
        .flat_map(|report| &report.spans)
        .for_each(|span| occurs[class(span.activity)] = true);
    NAMES
        .into_iter()
        .zip(occurs)
        .filter_map(|(name, occurs)| occurs.then_some(name))
}

/// The kept steps of all workers; empty if there are no spans.
pub fn draw(reports: &[WorkerReport]) -> String {
    let spans = || reports.iter().flat_map(|report| &report.spans);
    let (Some(start), Some(end)) = (
        spans().map(|span| span.start).min(),
        spans().map(|span| span.end).max(),
    ) else {
        return String::new();
    };
    let scale = (WIDTH - LEFT - 12.0) / (end - start).max(1) as f64;
    let at = |time: u64| LEFT + (time - start) as f64 * scale;
    let bottom = TOP + ROW * reports.len() as f64;
    let mut svg = format!(
        "<svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Timeline of {} ranks\">\n",
        bottom + 26.0,
        reports.len()
    );
    steps(&mut svg, &reports[0].spans, &at, bottom);
    for (row, report) in reports.iter().enumerate() {
        let top = TOP + ROW * row as f64 + 6.0;
        put(
            &mut svg,
            format_args!(
                "<text x=\"0\" y=\"{:.1}\" class=\"rank\">rank {}</text>\n",
                top + 14.0,
                report.rank
            ),
        );
        for span in &report.spans {
            one(&mut svg, span, report.rank, top, &at);
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
    for span in spans.iter().filter(|span| span.activity.of_training()) {
        if last.replace(span.step) != Some(span.step) {
            let x = at(span.start);
            put(
                svg,
                format_args!("<path class=\"step\" d=\"M{x:.1} {:.1}V{bottom}\"/>\n", TOP - 8.0),
            );
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
    use crate::demo::gradients::Traffic;
    use crate::demo::trainer::EpochShare;

    pub fn report(rank: u32, spans: Vec<Span>) -> WorkerReport {
        WorkerReport {
            rank,
            plan: "direct".to_owned(),
            fabric: "shm".to_owned(),
            staged: false,
            weights: Vec::new(),
            epochs: vec![EpochShare { loss: 1.0, right: 1 }],
            steps: vec![1_000_000],
            waited: vec![0, 50_000_000],
            spans,
            traffic: Traffic::default(),
            counted: Vec::new(),
        }
    }

    pub fn waiting() -> Vec<WorkerReport> {
        let span = |activity, start, end, peer| Span {
            activity,
            step: 7,
            start,
            end,
            peer,
            layer: Some(2),
        };
        vec![
            report(
                0,
                vec![
                    span(Activity::Compute, 0, 1_000_000, None),
                    span(Activity::Wait, 1_000_000, 51_000_000, Some(1)),
                ],
            ),
            report(1, vec![span(Activity::Slowed, 0, 50_000_000, None)]),
        ]
    }

    #[test]
    fn a_wait_names_the_rank_that_was_waited_for() {
        let svg = draw(&waiting());
        assert!(
            svg.contains("<title>rank 0, step 7: waits for rank 1, layer 3, 50 ms</title>"),
            "{svg}"
        );
        assert!(svg.contains("class=\"name\"") && svg.contains(">rank 1</text>"));
        assert!(svg.contains("slowed on purpose") && svg.contains(">step 7</text>"));
        assert_eq!(draw(&[report(0, Vec::new())]), "");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            [0.3, 1.0, 1.1, 7.0, 30.0].map(round_tick),
            [0.5, 1.0, 2.0, 10.0, 50.0]
        );
    }
}
