//! A ring as a circle: sums on the inner arrows, finished blocks on the outer ones.

use super::canvas::{Canvas, DOWN, INK, Kind, MARGIN, MUTED, Point, UP};
use super::{LEGIBLE_RANKS, remark};

/// Of a ring with too many ranks, so many of the last ones are drawn.
const TAIL: u32 = 8;

pub(super) fn draw(canvas: &mut Canvas, ranks: u32) {
    let mut y = 62.0;
    let x = canvas.legend_arrow(
        MARGIN,
        y,
        UP,
        false,
        "sums: block b from rank b + 1 round to rank b",
    );
    canvas.legend_arrow(x, y, DOWN, false, "then block b, complete, on from rank b");
    y += 30.0;
    y = remark(
        canvas,
        y,
        &format!("{ranks} blocks move at once, each starting at another rank."),
    );
    y = remark(canvas, y, "Beside each rank: the block that is completed there.");
    let elided = ranks > LEGIBLE_RANKS;
    if elided {
        let text = format!(
            "Only ranks 0 to {} and the last {TAIL} of the {ranks} ranks are drawn.",
            LEGIBLE_RANKS - TAIL - 1
        );
        y = remark(canvas, y, &text);
    }
    let shown: Vec<Option<u32>> = if elided {
        let head = (0..LEGIBLE_RANKS - TAIL).map(Some);
        head.chain([None])
            .chain((ranks - TAIL..ranks).map(Some))
            .collect()
    } else {
        (0..ranks).map(Some).collect()
    };
    let count = shown.len() as f64;
    let radius = f64::max(86.0, count * 54.0 / std::f64::consts::TAU);
    let outside = radius + 44.0;
    let centre: Point = (MARGIN + outside, y + outside);
    let at = |position: usize, radius: f64| -> Point {
        let angle = std::f64::consts::TAU * position as f64 / count - std::f64::consts::FRAC_PI_2;
        (centre.0 + radius * angle.cos(), centre.1 + radius * angle.sin())
    };
    for position in 0..shown.len() {
        let next = (position + 1) % shown.len();
        let (from, to) = (at(position, radius), at(next, radius));
        let gap = shown[position].is_none() || shown[next].is_none();
        // The left of an arrow that runs clockwise is the outside.
        let aside = if shown.len() == 2 { 9.0 } else { 3.5 };
        canvas.arrow(from, to, aside, DOWN, gap);
        canvas.arrow(from, to, aside - 7.0, UP, gap);
    }
    for (position, rank) in shown.iter().enumerate() {
        let point = at(position, radius);
        match rank {
            Some(rank) => {
                canvas.node(point, Kind::Inner, &rank.to_string());
                let label = at(position, radius + 30.0);
                canvas.text(label.0, label.1 + 3.5, 10.0, MUTED, "middle", &format!("b{rank}"));
            }
            None => canvas.text(point.0, point.1 + 5.0, 18.0, INK, "middle", "…"),
        }
    }
    canvas.reach(centre.0 + outside, centre.1 + outside);
}
