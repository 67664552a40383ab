//! Trees side by side, level by level, inner ranks dark; below two trees, who is inner in which.

use super::canvas::{Canvas, DOWN, INK, Kind, MARGIN, MUTED, Point, RADIUS, UP};
use super::{Flow, LEGIBLE_RANKS, caption, remark, stands_for};
use crate::plan::dataflow::Plan;
use crate::plan::lowered::Rank;

const COLUMN: f64 = 36.0;
const LEVEL: f64 = 64.0;
const GAP: f64 = 48.0;
/// Nodes to a row where a tree is a chain.
const CHAIN_ROW: usize = 12;

/// The nodes of a tree that are drawn, each with its place.
struct Drawn {
    places: Vec<Option<Point>>,
    width: f64,
    height: f64,
    shown: usize,
}

pub(super) fn draw(canvas: &mut Canvas, plan: &Plan, trees: &[Vec<Option<Rank>>], flow: Flow) {
    let mut y = 62.0;
    if plan.ranks() == 1 {
        remark(
            canvas,
            y,
            "A lone rank has nobody to talk to: it copies its input to its result.",
        );
        canvas.node((MARGIN + RADIUS, y + 34.0), Kind::Leaf, "0");
        return;
    }
    let mut x = MARGIN;
    x = canvas.legend_node(x, y, Kind::Inner, "inner rank");
    x = canvas.legend_node(x, y, Kind::Leaf, "leaf");
    if let Some(text) = flow.up {
        x = canvas.legend_arrow(x, y, UP, flow.signals, text);
    }
    if let Some(text) = flow.down {
        canvas.legend_arrow(x, y, DOWN, flow.signals, text);
    }
    y += 30.0;
    let turned = plan.blocks() > trees.len() as u32;
    if turned && let Some(text) = stands_for(plan.collective()) {
        y = remark(canvas, y, text);
    } else if turned {
        y = remark(
            canvas,
            y,
            "The tree of block 0; those of the others have the same shape, turned.",
        );
    }

    let drawn: Vec<Drawn> = trees.iter().map(|parents| arrange(parents)).collect();
    if let Some(part) = drawn.iter().find(|drawn| drawn.shown < plan.ranks() as usize) {
        let text = format!(
            "Only {} of the {} ranks are drawn, from the root down; \"+n\" counts those left out below a rank.",
            part.shown,
            plan.ranks()
        );
        y = remark(canvas, y, &text);
    }
    let top = if trees.len() > 1 { y + 34.0 } else { y };
    let mut left = MARGIN;
    let mut bottom = top;
    for (number, (parents, drawn)) in trees.iter().zip(&drawn).enumerate() {
        let label = match (trees.len(), number) {
            (2, 0) => "tree 0: first half of the vector",
            (2, 1) => "tree 1: second half of the vector",
            _ => "",
        };
        caption(canvas, left, y + 8.0, label);
        draw_tree(canvas, parents, drawn, (left + RADIUS, top + RADIUS), flow);
        left += drawn.width.max(label.len() as f64 * 8.4) + GAP;
        bottom = f64::max(bottom, top + drawn.height);
    }
    if trees.len() == 2 {
        roles(canvas, trees, bottom + 44.0);
    }
}

fn children_of(parents: &[Option<Rank>]) -> (Vec<Vec<usize>>, usize) {
    let mut children = vec![Vec::new(); parents.len()];
    let mut root = 0;
    for (rank, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => children[*parent as usize].push(rank),
            None => root = rank,
        }
    }
    (children, root)
}

/// Level by level from the root, as many as are legible.
fn arrange(parents: &[Option<Rank>]) -> Drawn {
    let (children, root) = children_of(parents);
    let mut order = vec![root];
    let mut next = 0;
    while next < order.len() {
        order.extend(&children[order[next]]);
        next += 1;
    }
    order.truncate(LEGIBLE_RANKS as usize);
    let mut shown = vec![false; parents.len()];
    order.iter().for_each(|&rank| shown[rank] = true);
    let mut places: Vec<Option<Point>> = vec![None; parents.len()];
    if children.iter().all(|children| children.len() <= 1) && parents.len() > 3 {
        // To and fro, so that neighbours stay neighbours.
        for (position, &rank) in order.iter().enumerate() {
            let (row, column) = (position / CHAIN_ROW, position % CHAIN_ROW);
            let column = if row % 2 == 0 {
                column
            } else {
                CHAIN_ROW - 1 - column
            };
            places[rank] = Some((column as f64 * COLUMN * 1.7, row as f64 * LEVEL));
        }
    } else {
        let mut column = 0.0;
        place(root, 0, &children, &shown, &mut column, &mut places);
        spread_levels(&children, &mut places);
    }
    let extent = |axis: fn(&Point) -> f64| places.iter().flatten().map(axis).fold(0.0, f64::max);
    let (width, height) = (
        extent(|point| point.0) + 2.0 * RADIUS,
        extent(|point| point.1) + 2.0 * RADIUS,
    );
    Drawn {
        width,
        height,
        shown: order.len(),
        places,
    }
}

/// Leaves side by side, parents over the middle of their children. Recursion is as deep as the tree is drawn.
fn place(
    rank: usize,
    depth: u32,
    children: &[Vec<usize>],
    shown: &[bool],
    column: &mut f64,
    places: &mut [Option<Point>],
) -> f64 {
    let mut ends: Option<(f64, f64)> = None;
    for &child in children[rank].iter().filter(|&&child| shown[child]) {
        let x = place(child, depth + 1, children, shown, column, places);
        ends = Some((ends.map_or(x, |(first, _)| first), x));
    }
    let x = match ends {
        Some((first, last)) => (first + last) / 2.0,
        None => {
            *column += COLUMN;
            *column - COLUMN
        }
    };
    places[rank] = Some((x, f64::from(depth) * LEVEL));
    x
}

/// Gives each level as much height as its flattest edge needs to clear the nodes that it passes.
fn spread_levels(children: &[Vec<usize>], places: &mut [Option<Point>]) {
    const CLEARANCE: f64 = RADIUS + 5.0;
    const MOST: f64 = 640.0;
    let depth_of = |point: &Point| (point.1 / LEVEL).round() as usize;
    let mut levels: Vec<Vec<f64>> = Vec::new();
    for point in places.iter().flatten() {
        let depth = depth_of(point);
        levels.resize(levels.len().max(depth + 1), Vec::new());
        levels[depth].push(point.0);
    }
    let mut heights = vec![LEVEL; levels.len()];
    for (rank, children) in children.iter().enumerate() {
        for &child in children {
            let (Some(from), Some(to)) = (places[rank], places[child]) else {
                continue;
            };
            let depth = depth_of(&to);
            let passes = |x: &&f64| (from.0.min(to.0)..=from.0.max(to.0)).contains(*x) && **x != to.0;
            let nearest = levels[depth]
                .iter()
                .filter(passes)
                .map(|x| (x - to.0).abs())
                .reduce(f64::min);
            if let Some(nearest) = nearest {
                let slope = (CLEARANCE / nearest).min(0.9);
                let needed = (from.0 - to.0).abs() * slope / (1.0 - slope * slope).sqrt();
                heights[depth] = heights[depth].max(needed.min(MOST));
            }
        }
    }
    for point in places.iter_mut().flatten() {
        point.1 = heights[1..=depth_of(point)].iter().sum();
    }
}

fn draw_tree(canvas: &mut Canvas, parents: &[Option<Rank>], drawn: &Drawn, origin: Point, flow: Flow) {
    let (children, _) = children_of(parents);
    let at = |rank: usize| drawn.places[rank].map(|(x, y)| (x + origin.0, y + origin.1));
    let aside = if flow.up.is_some() && flow.down.is_some() {
        3.0
    } else {
        0.0
    };
    for (rank, parent) in parents.iter().enumerate() {
        let (Some(here), Some(above)) = (at(rank), parent.and_then(|parent| at(parent as usize))) else {
            continue;
        };
        if flow.up.is_some() {
            canvas.arrow(here, above, aside, UP, flow.signals);
        }
        if flow.down.is_some() {
            canvas.arrow(above, here, aside, DOWN, flow.signals);
        }
    }
    for rank in 0..parents.len() {
        let Some(point) = at(rank) else { continue };
        let kind = if children[rank].is_empty() {
            Kind::Leaf
        } else {
            Kind::Inner
        };
        canvas.node(point, kind, &rank.to_string());
        let hidden = hidden_below(rank, &children, drawn);
        if hidden > 0 {
            canvas.text(
                point.0,
                point.1 + RADIUS + 13.0,
                10.0,
                MUTED,
                "middle",
                &format!("+{hidden}"),
            );
        }
    }
}

/// How many ranks are left out below one that is drawn, not counting those below its drawn children.
fn hidden_below(rank: usize, children: &[Vec<usize>], drawn: &Drawn) -> usize {
    let mut open: Vec<usize> = children[rank]
        .iter()
        .copied()
        .filter(|&child| drawn.places[child].is_none())
        .collect();
    let mut count = 0;
    while let Some(hidden) = open.pop() {
        count += 1;
        open.extend(&children[hidden]);
    }
    count
}

/// For every rank, in which tree it is inner.
pub(super) fn roles(canvas: &mut Canvas, trees: &[Vec<Option<Rank>>], top: f64) {
    const CELL: f64 = 26.0;
    const LABEL: f64 = 84.0;
    let ranks = trees[0].len().min(LEGIBLE_RANKS as usize);
    let is_root = |rank: Rank| trees.iter().all(|parents| parents[rank as usize].is_none());
    let note = match (0..trees[0].len() as Rank).find(|&rank| is_root(rank)) {
        Some(root) => format!("inner in which tree (rank {root}, the given root, stands above both)"),
        None => "inner in which tree".to_owned(),
    };
    caption(canvas, MARGIN, top, &note);
    // Rows of 32 fit a page.
    for (row, ranks) in (0..ranks).collect::<Vec<_>>().chunks(32).enumerate() {
        let top = top + 16.0 + row as f64 * 88.0;
        for (number, parents) in trees.iter().enumerate() {
            let (children, _) = children_of(parents);
            let y = top + 20.0 + number as f64 * CELL;
            canvas.text(MARGIN, y + 15.0, 13.0, INK, "start", &format!("tree {number}"));
            for (column, &rank) in ranks.iter().enumerate() {
                let kind = if children[rank].is_empty() {
                    Kind::Leaf
                } else {
                    Kind::Inner
                };
                canvas.square(MARGIN + LABEL + column as f64 * CELL, y, 20.0, kind);
            }
        }
        canvas.text(MARGIN, top + 12.0, 13.0, MUTED, "start", "rank");
        for (column, rank) in ranks.iter().enumerate() {
            let x = MARGIN + LABEL + column as f64 * CELL + 10.0;
            canvas.text(x, top + 12.0, 12.0, MUTED, "middle", &rank.to_string());
        }
    }
}
