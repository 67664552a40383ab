//! Everybody with everybody, as columns: inputs, the rank that combines each part, results.

use super::canvas::{Canvas, DOWN, INK, Kind, MARGIN, MUTED, Point, RADIUS, UP};
use super::{Flow, LEGIBLE_RANKS, remark};
use crate::plan::dataflow::Collective;

/// Up to so many ranks every arrow is drawn; of more, those of one part.
const ALL_ARROWS: u32 = 8;
const ROW: f64 = 40.0;
const COLUMNS: f64 = 210.0;

struct Column {
    title: &'static str,
    foot: &'static str,
    kind: Kind,
}

/// The arrows between two columns.
struct Arrows {
    legend: &'static str,
    colour: &'static str,
    /// Whether those to rank 0 show what happens, or those from it.
    to_first: bool,
    from_first: bool,
}

fn column(title: &'static str, foot: &'static str, kind: Kind) -> Column {
    Column { title, foot, kind }
}

fn arrows(legend: &'static str, colour: &'static str, to_first: bool, from_first: bool) -> Arrows {
    Arrows {
        legend,
        colour,
        to_first,
        from_first,
    }
}

fn columns(collective: Collective) -> (Vec<Column>, Vec<Arrows>) {
    let inputs = column("inputs", "all parts", Kind::Leaf);
    let combines = column("combines its part", "part b at rank b", Kind::Inner);
    let results = column("results", "all parts", Kind::Leaf);
    let gather = arrows("part b of each input to rank b", UP, true, false);
    let spread = arrows("part b from rank b to everybody", DOWN, false, true);
    match collective {
        Collective::Barrier => (
            vec![
                column("begins", "", Kind::Leaf),
                column("may end", "", Kind::Leaf),
            ],
            vec![arrows("\"I have begun\"", UP, true, true)],
        ),
        Collective::ReduceScatter => (vec![inputs, combines], vec![gather]),
        Collective::AllGather => (
            vec![column("inputs", "part b at rank b", Kind::Leaf), results],
            vec![spread],
        ),
        Collective::AllToAll => (
            vec![
                column("inputs", "a part for each", Kind::Leaf),
                column("results", "a part from each", Kind::Leaf),
            ],
            vec![arrows("what each has for each", UP, true, true)],
        ),
        _ => (vec![inputs, combines, results], vec![gather, spread]),
    }
}

pub(super) fn draw(canvas: &mut Canvas, ranks: u32, collective: Collective, flow: Flow) {
    let mut y = 62.0;
    let shown = ranks.min(LEGIBLE_RANKS);
    let (columns, between) = columns(collective);
    between.iter().fold(MARGIN, |x, arrows| {
        canvas.legend_arrow(x, y, arrows.colour, flow.signals, arrows.legend)
    });
    y += 30.0;
    let few = ranks <= ALL_ARROWS;
    if !few {
        let what = match between.iter().any(|arrows| arrows.to_first && arrows.from_first) {
            true => "to and from rank 0",
            false => "of part 0",
        };
        let text = format!("Bold: the arrows {what}; those of the other ranks look the same.");
        y = remark(canvas, y, &text);
    }
    if shown < ranks {
        let last = shown - 1;
        let text = format!("Only ranks 0 to {last} of the {ranks} ranks are drawn.");
        y = remark(canvas, y, &text);
    }
    let left = MARGIN + 60.0;
    let across = |number: usize| left + number as f64 * COLUMNS;
    for (number, column) in columns.iter().enumerate() {
        canvas.text(across(number), y + 8.0, 13.0, INK, "middle", column.title);
    }
    let top = y + 24.0 + RADIUS;
    let at = |number: usize, rank: u32| -> Point { (across(number), top + f64::from(rank) * ROW) };
    for (number, arrows) in between.iter().enumerate() {
        let pairs = (0..shown).flat_map(|from| (0..shown).map(move |to| (from, to)));
        if !few && shown <= 32 {
            for (from, to) in pairs.clone() {
                let (from, to) = (at(number, from), at(number + 1, to));
                canvas.line(from, to, arrows.colour, 0.5, 0.18, false);
            }
        }
        for (from, to) in pairs {
            if few || (to == 0 && arrows.to_first) || (from == 0 && arrows.from_first) {
                let (from, to) = (at(number, from), at(number + 1, to));
                canvas.arrow(from, to, 0.0, arrows.colour, flow.signals);
            }
        }
    }
    let below = top + f64::from(shown) * ROW;
    for (number, column) in columns.iter().enumerate() {
        for rank in 0..shown {
            canvas.node(at(number, rank), column.kind, &rank.to_string());
        }
        if !column.foot.is_empty() {
            canvas.text(across(number), below, 12.0, MUTED, "middle", column.foot);
        }
    }
    canvas.reach(across(columns.len() - 1) + 60.0, top);
}
