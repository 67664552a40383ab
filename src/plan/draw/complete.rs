//! Everybody with everybody, as columns: inputs, the rank that combines each block, results.

use super::canvas::{Canvas, DOWN, INK, Kind, MARGIN, MUTED, Point, RADIUS, UP};
use super::{Flow, LEGIBLE_RANKS, remark};

/// Up to so many ranks every arrow is drawn; of more, those of one block.
const ALL_ARROWS: u32 = 8;
const ROW: f64 = 40.0;
const COLUMNS: f64 = 210.0;

pub(super) fn draw(canvas: &mut Canvas, ranks: u32, flow: Flow) {
    let mut y = 62.0;
    let shown = ranks.min(LEGIBLE_RANKS);
    if flow.signals {
        canvas.legend_arrow(MARGIN, y, UP, true, "\"I have begun\"");
    } else {
        let x = canvas.legend_arrow(MARGIN, y, UP, false, "inputs of block b to rank b");
        canvas.legend_arrow(x, y, DOWN, false, "block b from rank b to everybody");
    }
    y += 30.0;
    if ranks > ALL_ARROWS {
        let what = if flow.signals {
            "to and from rank 0"
        } else {
            "of block 0"
        };
        let text = format!("Bold: the arrows {what}; those of the other ranks look the same.");
        y = remark(canvas, y, &text);
    }
    if shown < ranks {
        y = remark(
            canvas,
            y,
            &format!("Only ranks 0 to {} of the {ranks} ranks are drawn.", shown - 1),
        );
    }
    let titles: &[&str] = if flow.signals {
        &["begins", "may end"]
    } else {
        &["inputs", "combines its block", "results"]
    };
    let left = MARGIN + 50.0;
    for (column, title) in titles.iter().enumerate() {
        canvas.text(
            left + column as f64 * COLUMNS,
            y + 8.0,
            13.0,
            INK,
            "middle",
            title,
        );
    }
    let top = y + 24.0 + RADIUS;
    let at =
        |column: usize, rank: u32| -> Point { (left + column as f64 * COLUMNS, top + f64::from(rank) * ROW) };
    let few = ranks <= ALL_ARROWS;
    for column in 0..titles.len() - 1 {
        let colour = if column == 0 { UP } else { DOWN };
        if !few && shown <= 32 {
            for from in 0..shown {
                for to in 0..shown {
                    canvas.line(at(column, from), at(column + 1, to), colour, 0.5, 0.18, false);
                }
            }
        }
        for from in 0..shown {
            for to in 0..shown {
                // Towards a block's rank first, from it afterwards.
                let bold = if flow.signals {
                    from == 0 || to == 0
                } else if column == 0 {
                    to == 0
                } else {
                    from == 0
                };
                if few || bold {
                    canvas.arrow(at(column, from), at(column + 1, to), 0.0, colour, flow.signals);
                }
            }
        }
    }
    for column in 0..titles.len() {
        for rank in 0..shown {
            let middle = column == 1 && !flow.signals;
            canvas.node(
                at(column, rank),
                if middle { Kind::Inner } else { Kind::Leaf },
                &rank.to_string(),
            );
        }
    }
    if !flow.signals {
        let below = top + f64::from(shown) * ROW;
        canvas.text(left, below, 12.0, MUTED, "middle", "all blocks");
        canvas.text(left + COLUMNS, below, 12.0, MUTED, "middle", "block b at rank b");
        canvas.text(left + 2.0 * COLUMNS, below, 12.0, MUTED, "middle", "all blocks");
    }
    canvas.reach(left + (titles.len() - 1) as f64 * COLUMNS + 60.0, top);
}
