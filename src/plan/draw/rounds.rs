//! Rounds as columns: between two of them the arrows of one round, from every rank to the one that is so many further.

use super::canvas::{Canvas, INK, Kind, MARGIN, Point, RADIUS, UP};
use super::{Flow, LEGIBLE_RANKS, remark};

/// More rounds than this are not drawn.
const MOST_ROUNDS: usize = 12;
/// Up to so many ranks every arrow is bold; of more, the way of what rank 0 has.
const ALL_ARROWS: u32 = 8;
const ROW: f64 = 40.0;
const COLUMN: f64 = 120.0;

pub(super) fn draw(canvas: &mut Canvas, ranks: u32, distances: &[u32], flow: Flow) {
    let mut y = 62.0;
    let legend = match flow.signals {
        true => "\"I and all who told me have begun\"",
        false => "what each has for the other",
    };
    canvas.legend_arrow(MARGIN, y, UP, flow.signals, legend);
    y += 30.0;
    let shown = ranks.min(LEGIBLE_RANKS);
    let few = ranks <= ALL_ARROWS;
    if !few {
        let text = match flow.signals {
            true => "Bold: how word of rank 0 spreads; those of the other ranks look the same.",
            false => "Bold: the arrows from rank 0; those of the other ranks look the same.",
        };
        y = remark(canvas, y, text);
    }
    if shown < ranks {
        let last = shown - 1;
        let text = format!("Only ranks 0 to {last} of the {ranks} ranks are drawn.");
        y = remark(canvas, y, &text);
    }
    let rounds = &distances[..distances.len().min(MOST_ROUNDS)];
    if rounds.len() < distances.len() {
        let text = format!(
            "Only the first {} of the {} rounds are drawn.",
            rounds.len(),
            distances.len()
        );
        y = remark(canvas, y, &text);
    }
    let left = MARGIN + 20.0;
    let top = y + 30.0 + RADIUS;
    let at =
        |column: usize, rank: u32| -> Point { (left + column as f64 * COLUMN, top + f64::from(rank) * ROW) };
    // Who has heard of rank 0 before a round.
    let mut heard = vec![0];
    for (round, distance) in rounds.iter().enumerate() {
        let x = left + (round as f64 + 0.5) * COLUMN;
        canvas.text(x, y + 8.0, 12.0, INK, "middle", &format!("{distance} further"));
        for rank in 0..shown {
            let to = (rank + distance) % ranks;
            if to >= shown {
                continue;
            }
            if few || heard.contains(&rank) {
                canvas.arrow(at(round, rank), at(round + 1, to), 0.0, UP, flow.signals);
            } else {
                canvas.line(at(round, rank), at(round + 1, to), UP, 0.5, 0.25, false);
            }
        }
        if flow.signals {
            let told: Vec<u32> = heard.iter().map(|rank| (rank + distance) % ranks).collect();
            heard.extend(told);
        }
    }
    for column in 0..=rounds.len() {
        for rank in 0..shown {
            canvas.node(at(column, rank), Kind::Leaf, &rank.to_string());
        }
    }
}
