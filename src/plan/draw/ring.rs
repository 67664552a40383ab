//! Rings as circles: sums on the inner arrows, finished parts on the outer ones; a circle for each channel.

use super::canvas::{Canvas, DOWN, INK, Kind, MARGIN, MUTED, Point, UP};
use super::{Flow, LEGIBLE_RANKS, caption, remark};

/// Of a ring with too many ranks, so many of the last ones are drawn.
const TAIL: u32 = 8;
/// More channels than this are not drawn.
const MOST_CHANNELS: usize = 4;

pub(super) fn draw(canvas: &mut Canvas, ranks: u32, strides: &[u32], flow: Flow) {
    let mut y = 62.0;
    let mut x = MARGIN;
    let behind = match strides {
        [_] => "rank b + 1",
        _ => "the next rank",
    };
    if flow.up.is_some() {
        let text = format!("sums: part b from {behind} round to rank b");
        x = canvas.legend_arrow(x, y, UP, false, &text);
    }
    if flow.down.is_some() {
        let text = match flow.up {
            Some(_) => "then part b, complete, on from rank b",
            None => "part b on from rank b",
        };
        canvas.legend_arrow(x, y, DOWN, false, text);
    }
    y += 30.0;
    y = remark(
        canvas,
        y,
        &format!("{ranks} parts move at once, each starting at another rank."),
    );
    if flow.up.is_some() {
        y = remark(canvas, y, "Beside each rank: the part that is completed there.");
    }
    if strides.len() > 1 {
        let text = format!("{} channels, each with a share of every part.", strides.len());
        y = remark(canvas, y, &text);
    }
    if strides.len() > MOST_CHANNELS {
        let text = format!("Only the rings of {MOST_CHANNELS} of them are drawn.");
        y = remark(canvas, y, &text);
    }
    let elided = ranks > LEGIBLE_RANKS;
    if elided {
        let text = format!(
            "Only the first {} and the last {TAIL} of the {ranks} ranks of a ring are drawn.",
            LEGIBLE_RANKS - TAIL
        );
        y = remark(canvas, y, &text);
    }
    let mut left = MARGIN;
    for (number, stride) in strides.iter().take(MOST_CHANNELS).enumerate() {
        let mut top = y;
        if strides.len() > 1 {
            let text = format!("channel {number}: {stride} further");
            caption(canvas, left, top + 8.0, &text);
            top += 26.0;
        }
        left += circle(canvas, (left, top), ranks, *stride, flow) + 30.0;
    }
}

/// One ring; returns its width.
fn circle(canvas: &mut Canvas, (left, top): Point, ranks: u32, stride: u32, flow: Flow) -> f64 {
    let positions: Vec<Option<u32>> = if ranks > LEGIBLE_RANKS {
        let head = (0..LEGIBLE_RANKS - TAIL).map(Some);
        head.chain([None])
            .chain((ranks - TAIL..ranks).map(Some))
            .collect()
    } else {
        (0..ranks).map(Some).collect()
    };
    let rank_at = |position: u32| (u64::from(position) * u64::from(stride) % u64::from(ranks)) as u32;
    let shown: Vec<Option<u32>> = positions
        .into_iter()
        .map(|position| position.map(rank_at))
        .collect();
    let count = shown.len() as f64;
    let radius = f64::max(86.0, count * 54.0 / std::f64::consts::TAU);
    let outside = radius + 44.0;
    let centre: Point = (left + outside, top + outside);
    let at = |position: usize, radius: f64| -> Point {
        let angle = std::f64::consts::TAU * position as f64 / count - std::f64::consts::FRAC_PI_2;
        (centre.0 + radius * angle.cos(), centre.1 + radius * angle.sin())
    };
    let both = flow.up.is_some() && flow.down.is_some();
    for position in 0..shown.len() {
        let next = (position + 1) % shown.len();
        let (from, to) = (at(position, radius), at(next, radius));
        let gap = shown[position].is_none() || shown[next].is_none();
        // The left of an arrow that runs clockwise is the outside.
        let aside = match (shown.len() == 2, both) {
            (true, _) => 9.0,
            (false, true) => 3.5,
            (false, false) => 0.0,
        };
        if flow.down.is_some() {
            canvas.arrow(from, to, aside, DOWN, gap);
        }
        if flow.up.is_some() {
            let aside = if both { aside - 7.0 } else { aside };
            canvas.arrow(from, to, aside, UP, gap);
        }
    }
    for (position, rank) in shown.iter().enumerate() {
        let point = at(position, radius);
        match rank {
            Some(rank) => {
                canvas.node(point, Kind::Inner, &rank.to_string());
                if flow.up.is_some() {
                    let label = at(position, radius + 30.0);
                    canvas.text(label.0, label.1 + 3.5, 10.0, MUTED, "middle", &format!("b{rank}"));
                }
            }
            None => canvas.text(point.0, point.1 + 5.0, 18.0, INK, "middle", "…"),
        }
    }
    canvas.reach(centre.0 + outside, centre.1 + outside);
    2.0 * outside
}
