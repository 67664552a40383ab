//! Trees that lead through hosts: a box for each host with its ranks inside, the leader on top, and the boxes
//! themselves as a tree. What crosses between hosts leaves a box at its foot.

use super::canvas::{Canvas, DOWN, INK, Kind, MARGIN, MUTED, Point, RADIUS, UP};
use super::{Flow, LEGIBLE_RANKS, caption, remark, trees};
use crate::plan::dataflow::Plan;
use crate::plan::lowered::Rank;

const COLUMN: f64 = 36.0;
const LEVEL: f64 = 56.0;
/// Between a box's edge and what is in it.
const PAD: f64 = 12.0;
/// Above the leader, for the host's name.
const TITLE: f64 = 14.0;
/// The narrowest box has room for its name beside the arrows through its middle.
const NARROWEST: f64 = 100.0;
const BETWEEN: Point = (18.0, 66.0);
/// Trees that are wider than this together are drawn one below the other.
const WIDE: f64 = 1500.0;

/// One host in one tree.
#[derive(Default)]
struct Group {
    ranks: Vec<usize>,
    leader: usize,
    /// Other hosts whose leaders are children of this one.
    below: Vec<usize>,
    parent: Option<usize>,
    shown: bool,
    width: f64,
    height: f64,
    /// Of the box's corner.
    at: Point,
}

struct Drawn {
    groups: Vec<Group>,
    children: Vec<Vec<usize>>,
    /// By rank, from the corner of the picture of the tree.
    places: Vec<Option<Point>>,
    shown: usize,
    width: f64,
    height: f64,
}

pub(super) fn draw(canvas: &mut Canvas, plan: &Plan, all: &[Vec<Option<Rank>>], hosts: &[u32], flow: Flow) {
    let mut y = 62.0;
    let mut x = canvas.legend_node(MARGIN, y, Kind::Inner, "combines or passes on");
    x = canvas.legend_node(x, y, Kind::Leaf, "leaf");
    if let Some(text) = flow.up {
        x = canvas.legend_arrow(x, y, UP, flow.signals, text);
    }
    if let Some(text) = flow.down {
        canvas.legend_arrow(x, y, DOWN, flow.signals, text);
    }
    y += 30.0;
    let count = hosts.iter().max().map_or(0, |last| last + 1);
    let crossing = match all.len() {
        1 if plan.blocks() > 1 => {
            "Each box is a host. The tree of rank 0's part; those of the others look the same, with other leaders."
        }
        1 => "Each box is a host.",
        _ => "Each box is a host; its leader is another rank in each tree where it has two.",
    };
    y = remark(canvas, y, crossing);
    let mut drawn: Vec<Drawn> = all.iter().map(|parents| arrange(parents, hosts)).collect();
    if let Some(part) = drawn.iter().find(|drawn| drawn.shown < hosts.len()) {
        let text = format!(
            "Only {} of the {} ranks, on {} of the {count} hosts, are drawn, from the root down; \"+n\" counts the ranks \
             left out below one.",
            part.shown,
            plan.ranks(),
            part.groups.iter().filter(|group| group.shown).count(),
        );
        y = remark(canvas, y, &text);
    }
    let beside = drawn.iter().map(|drawn| drawn.width).sum::<f64>() < WIDE;
    let (mut left, mut bottom) = (MARGIN, y);
    for (number, (parents, drawn)) in all.iter().zip(&mut drawn).enumerate() {
        let label = match (all.len(), number) {
            (2, 0) => "tree 0: first half of the vector",
            (2, 1) => "tree 1: second half of the vector",
            _ => "",
        };
        caption(canvas, left, y + 8.0, label);
        let top = if all.len() > 1 { y + 26.0 } else { y };
        draw_tree(canvas, parents, drawn, (left, top), flow);
        bottom = f64::max(bottom, top + drawn.height);
        if beside {
            left += drawn.width.max(label.len() as f64 * 8.4) + 48.0;
        } else {
            y = bottom + 34.0;
        }
    }
    if all.len() == 2 {
        trees::roles(canvas, all, bottom + 44.0);
    }
}

/// Which hosts and ranks are drawn, and where.
fn arrange(parents: &[Option<Rank>], hosts: &[u32]) -> Drawn {
    let count = hosts.iter().max().map_or(0, |last| *last as usize + 1);
    let mut groups: Vec<Group> = Vec::new();
    groups.resize_with(count, Group::default);
    let mut children = vec![Vec::new(); parents.len()];
    let mut root = 0;
    for (rank, parent) in parents.iter().enumerate() {
        let host = hosts[rank] as usize;
        groups[host].ranks.push(rank);
        match parent.map(|parent| parent as usize) {
            Some(parent) if hosts[parent] as usize == host => children[parent].push(rank),
            Some(parent) => {
                groups[host].leader = rank;
                groups[host].parent = Some(hosts[parent] as usize);
                groups[hosts[parent] as usize].below.push(host);
            }
            None => {
                groups[host].leader = rank;
                root = host;
            }
        }
    }
    // Level by level from the root: whole hosts, as many as are legible; of a first one that is too large, a part.
    let most = LEGIBLE_RANKS as usize;
    let mut places: Vec<Option<Point>> = vec![None; parents.len()];
    let (mut order, mut next, mut shown) = (vec![root], 0, 0);
    while next < order.len() {
        let host = order[next];
        if next > 0 && shown + groups[host].ranks.len() > most {
            break;
        }
        shown += inside(&mut groups[host], &children, most, &mut places);
        order.extend(groups[host].below.iter());
        next += 1;
    }
    let mut levels: Vec<f64> = Vec::new();
    heights(&groups, root, 0, &mut levels);
    let width = spread(&mut groups, root, 0.0, 0, &levels);
    for group in groups.iter().filter(|group| group.shown) {
        for &rank in &group.ranks {
            if let Some(place) = &mut places[rank] {
                *place = (place.0 + group.at.0, place.1 + group.at.1);
            }
        }
    }
    let height = levels.iter().sum::<f64>() + BETWEEN.1 * (levels.len().max(1) - 1) as f64;
    Drawn {
        groups,
        children,
        places,
        shown,
        width,
        height,
    }
}

/// Places a host's ranks in its box; how many are drawn.
fn inside(group: &mut Group, children: &[Vec<usize>], most: usize, places: &mut [Option<Point>]) -> usize {
    let mut order = vec![group.leader];
    let mut next = 0;
    while next < order.len() && order.len() < most {
        order.extend(&children[order[next]]);
        next += 1;
    }
    order.truncate(most);
    let mut drawn = vec![false; places.len()];
    order.iter().for_each(|&rank| drawn[rank] = true);
    // The leader's children stand left and right of a free column, through which it reaches other hosts.
    let own: Vec<usize> = children[group.leader]
        .iter()
        .copied()
        .filter(|&child| drawn[child])
        .collect();
    let (first, second) = own.split_at(own.len() / 2);
    let mut column = 0.0;
    for &child in first {
        below(child, 1, children, &drawn, &mut column, places);
    }
    let middle = column;
    column += COLUMN;
    for &child in second {
        below(child, 1, children, &drawn, &mut column, places);
    }
    places[group.leader] = Some((middle, 0.0));
    let deepest = order
        .iter()
        .filter_map(|&rank| places[rank])
        .fold(0.0, |most, place| f64::max(most, place.1));
    let content = column - COLUMN + 2.0 * RADIUS;
    // As wide on both sides of the leader as its name needs.
    let left = f64::max(NARROWEST / 2.0, middle + RADIUS + PAD);
    let right = f64::max(NARROWEST / 2.0, content - middle - RADIUS + PAD);
    group.width = left + right;
    group.height = TITLE + 2.0 * PAD + 2.0 * RADIUS + deepest;
    for &rank in &order {
        if let Some(place) = &mut places[rank] {
            *place = (place.0 + left - middle, place.1 + TITLE + PAD + RADIUS);
        }
    }
    group.shown = true;
    order.len()
}

/// Leaves side by side, parents over the middle of their children.
fn below(
    rank: usize,
    depth: u32,
    children: &[Vec<usize>],
    drawn: &[bool],
    column: &mut f64,
    places: &mut [Option<Point>],
) -> f64 {
    let mut ends: Option<(f64, f64)> = None;
    for &child in children[rank].iter().filter(|&&child| drawn[child]) {
        let x = below(child, depth + 1, children, drawn, column, places);
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

/// The tallest box of each level.
fn heights(groups: &[Group], host: usize, depth: usize, levels: &mut Vec<f64>) {
    if !groups[host].shown {
        return;
    }
    levels.resize(levels.len().max(depth + 1), 0.0);
    levels[depth] = levels[depth].max(groups[host].height);
    groups[host]
        .below
        .iter()
        .for_each(|&lower| heights(groups, lower, depth + 1, levels));
}

/// Gives each box its corner, from `left` on; the width that the host and those below it take.
fn spread(groups: &mut [Group], host: usize, left: f64, depth: usize, levels: &[f64]) -> f64 {
    let y = levels[..depth].iter().sum::<f64>() + BETWEEN.1 * depth as f64;
    let lower: Vec<usize> = groups[host]
        .below
        .iter()
        .copied()
        .filter(|&lower| groups[lower].shown)
        .collect();
    let wide = |groups: &mut [Group], start: f64| {
        let mut x = start;
        for &lower in &lower {
            x += spread(groups, lower, x, depth + 1, levels) + BETWEEN.0;
        }
        f64::max(x - BETWEEN.0 - start, 0.0)
    };
    let mut total = wide(groups, left);
    let own = groups[host].width;
    if own > total {
        wide(groups, left + (own - total) / 2.0);
        total = own;
    }
    groups[host].at = (left + (total - own) / 2.0, y);
    total
}

fn draw_tree(canvas: &mut Canvas, parents: &[Option<Rank>], drawn: &Drawn, origin: Point, flow: Flow) {
    let moved = |(x, y): Point| (x + origin.0, y + origin.1);
    let at = |rank: usize| drawn.places[rank].map(moved);
    let aside = if flow.up.is_some() && flow.down.is_some() {
        3.0
    } else {
        0.0
    };
    for (host, group) in drawn.groups.iter().enumerate().filter(|(_, group)| group.shown) {
        let corner = moved(group.at);
        canvas.frame(corner, (group.width, group.height));
        canvas.text(
            corner.0 + 7.0,
            corner.1 + 14.0,
            10.0,
            MUTED,
            "start",
            &format!("host {host}"),
        );
    }
    for (rank, parent) in parents.iter().enumerate() {
        let (Some(here), Some(above)) = (at(rank), parent.and_then(|parent| at(parent as usize))) else {
            continue;
        };
        if drawn.children[parent.unwrap_or(0) as usize].contains(&rank) {
            both(canvas, here, above, aside, flow);
        }
    }
    for group in drawn.groups.iter().filter(|group| group.shown) {
        let Some(leader) = at(group.leader) else { continue };
        let lower = group
            .below
            .iter()
            .map(|&lower| &drawn.groups[lower])
            .filter(|lower| lower.shown);
        let lower: Vec<(Point, Point)> = lower
            .filter_map(|lower| at(lower.leader).map(|leader| (leader, (leader.0, moved(lower.at).1))))
            .collect();
        if lower.is_empty() {
            continue;
        }
        // Out at the foot of a box, where the ways part, and in at the head of another, clear of what is in either.
        let foot = (leader.0, moved(group.at).1 + group.height);
        let edge = |y: f64, sign: f64| y + sign * (RADIUS + 1.0);
        if flow.up.is_some() {
            canvas.arrow(beyond(foot, leader), leader, aside, UP, flow.signals);
        }
        if flow.down.is_some() {
            let start = (leader.0 + aside, edge(leader.1, 1.0));
            canvas.line(start, (foot.0 + aside, foot.1), DOWN, 1.4, 1.0, flow.signals);
        }
        for (child, head) in lower {
            if flow.up.is_some() {
                let at_head = (head.0 - aside, head.1);
                canvas.line(
                    (child.0 - aside, edge(child.1, -1.0)),
                    at_head,
                    UP,
                    1.4,
                    1.0,
                    flow.signals,
                );
                canvas.line(at_head, (foot.0 - aside, foot.1), UP, 1.4, 1.0, flow.signals);
            }
            if flow.down.is_some() {
                let at_head = (head.0 + aside, head.1);
                canvas.line((foot.0 + aside, foot.1), at_head, DOWN, 1.4, 1.0, flow.signals);
                canvas.arrow(beyond(head, child), child, aside, DOWN, flow.signals);
            }
        }
    }
    for rank in 0..parents.len() {
        let Some(point) = at(rank) else { continue };
        let group = drawn.groups.iter().find(|group| group.leader == rank);
        let leaf = drawn.children[rank].is_empty() && group.is_none_or(|group| group.below.is_empty());
        canvas.node(
            point,
            if leaf { Kind::Leaf } else { Kind::Inner },
            &rank.to_string(),
        );
        let hidden = hidden_below(rank, drawn);
        if hidden > 0 {
            let (x, y) = (point.0 + RADIUS + 3.0, point.1 + 4.0);
            canvas.text(x, y, 10.0, INK, "start", &format!("+{hidden}"));
        }
    }
}

fn both(canvas: &mut Canvas, here: Point, above: Point, aside: f64, flow: Flow) {
    if flow.up.is_some() {
        canvas.arrow(here, above, aside, UP, flow.signals);
    }
    if flow.down.is_some() {
        canvas.arrow(above, here, aside, DOWN, flow.signals);
    }
}

fn direction(from: Point, to: Point) -> Point {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx.hypot(dy).max(1.0);
    (dx / length, dy / length)
}

/// Arrows keep clear of a node at either end; one that begins where none is starts further back.
fn beyond(from: Point, to: Point) -> Point {
    let (ux, uy) = direction(from, to);
    (from.0 - ux * RADIUS, from.1 - uy * RADIUS)
}

/// How many ranks are left out below one that is drawn, not counting those below others that are drawn.
fn hidden_below(rank: usize, drawn: &Drawn) -> usize {
    let lower = |rank: usize| {
        let group = drawn
            .groups
            .iter()
            .find(|group| group.leader == rank && group.ranks.contains(&rank));
        let hosts = group.map_or(&[][..], |group| &group.below);
        let leaders = hosts.iter().map(|&host| drawn.groups[host].leader);
        drawn.children[rank]
            .iter()
            .copied()
            .chain(leaders)
            .collect::<Vec<_>>()
    };
    let mut open: Vec<usize> = lower(rank)
        .into_iter()
        .filter(|&child| drawn.places[child].is_none())
        .collect();
    let mut count = 0;
    while let Some(hidden) = open.pop() {
        count += 1;
        open.extend(lower(hidden));
    }
    count
}
