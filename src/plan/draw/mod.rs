//! Draws a plan as SVG, so that a person sees its shape: who is inner and who is leaf, what goes up and what comes
//! down. It draws what the plan's rule says of its layout; it never decides anything about a plan.

mod canvas;
mod complete;
mod hosts;
mod ring;
mod rounds;
mod trees;

use super::dataflow::{Collective, Layout, Plan};
use canvas::{Canvas, INK, MUTED};

/// The most ranks of which every one is drawn; of more, the picture shows some and says so.
pub const LEGIBLE_RANKS: u32 = 64;

/// The picture of a plan: one SVG document.
///
/// All ranks are drawn up to [`LEGIBLE_RANKS`]; beyond, a part of them, and a line that says which.
pub fn svg(plan: &Plan) -> String {
    let mut canvas = Canvas::new();
    let root = plan
        .collective()
        .root()
        .map(|root| format!(" with root {root}"))
        .unwrap_or_default();
    let ranks = match plan.ranks() {
        1 => "1 rank".to_owned(),
        ranks => format!("{ranks} ranks"),
    };
    canvas.heading(&format!("{}: {}{root}, {ranks}", plan.name(), plan.collective()));
    let flow = Flow::of(plan.collective());
    match plan.rule().layout() {
        Layout::Trees(trees) => trees::draw(&mut canvas, plan, &trees, flow),
        Layout::Hosts { trees, hosts } => hosts::draw(&mut canvas, plan, &trees, &hosts, flow),
        Layout::Rings(strides) => ring::draw(&mut canvas, plan.ranks(), &strides, flow),
        Layout::Complete => complete::draw(&mut canvas, plan.ranks(), plan.collective(), flow),
        Layout::Rounds(distances) => rounds::draw(&mut canvas, plan.ranks(), &distances, flow),
    }
    canvas.finish()
}

/// What moves along an edge towards the root and away from it.
#[derive(Clone, Copy)]
struct Flow {
    up: Option<&'static str>,
    down: Option<&'static str>,
    /// Nothing but signals.
    signals: bool,
}

impl Flow {
    fn of(collective: Collective) -> Self {
        let (up, down) = match collective {
            Collective::AllReduce => (Some("sums go up"), Some("results come down")),
            Collective::Reduce { .. } => (Some("sums go up"), None),
            Collective::Broadcast { .. } => (None, Some("the root's input comes down")),
            Collective::Barrier => (Some("\"all below have begun\""), Some("\"all have begun\"")),
            Collective::ReduceScatter => (Some("sums go up"), None),
            Collective::AllGather => (None, Some("a part comes down")),
            Collective::Gather { .. } => (Some("parts go up"), None),
            Collective::Scatter { .. } => (None, Some("parts come down")),
            Collective::AllToAll => (Some("a part for each"), None),
        };
        Self {
            up,
            down,
            signals: collective == Collective::Barrier,
        }
    }
}

/// What a single tree stands for where there are several parts, if that needs to be said.
fn stands_for(collective: Collective) -> Option<&'static str> {
    match collective {
        Collective::Gather { .. } | Collective::Scatter { .. } => {
            Some("Each part goes along the tree by itself.")
        }
        Collective::ReduceScatter | Collective::AllGather => {
            Some("The tree of rank 0's part; those of the others have the same shape, turned.")
        }
        _ => None,
    }
}

/// A line of explanation below the heading; returns where the next one starts.
fn remark(canvas: &mut Canvas, y: f64, text: &str) -> f64 {
    canvas.text(canvas::MARGIN, y, 13.0, MUTED, "start", text);
    y + 20.0
}

fn caption(canvas: &mut Canvas, x: f64, y: f64, text: &str) {
    canvas.text(x, y, 14.0, INK, "start", text);
}
