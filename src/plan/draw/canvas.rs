//! SVG text with the few shapes that pictures of plans are made of; grows to hold what is drawn.

use std::fmt::Write;

pub(super) const MARGIN: f64 = 24.0;
pub(super) const INK: &str = "#1f2933";
pub(super) const MUTED: &str = "#616e7c";
pub(super) const UP: &str = "#1769aa";
pub(super) const DOWN: &str = "#c2570c";
pub(super) const INNER: &str = "#2f6f4f";
pub(super) const LEAF: &str = "#e3f0e8";
pub(super) const GROUND: &str = "#f4f6f8";
pub(super) const RADIUS: f64 = 14.0;

/// A point, in pixels from the top left.
pub(super) type Point = (f64, f64);

/// How a node looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Inner,
    Leaf,
}

pub(super) struct Canvas {
    body: String,
    width: f64,
    height: f64,
}

impl Canvas {
    pub fn new() -> Self {
        Self {
            body: String::new(),
            width: 320.0,
            height: 60.0,
        }
    }

    /// Makes room for a point and a margin beyond it.
    pub fn reach(&mut self, x: f64, y: f64) {
        self.width = self.width.max(x + MARGIN);
        self.height = self.height.max(y + MARGIN);
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.body, "{element}");
    }

    pub fn heading(&mut self, text: &str) {
        self.text(MARGIN, 34.0, 18.0, INK, "start", text);
    }

    pub fn text(&mut self, x: f64, y: f64, size: f64, colour: &str, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.put(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{text}</text>"#
        ));
        // Letters of the font are about 0.6 of its size wide.
        let width = text.chars().count() as f64 * size * 0.6;
        match anchor {
            "start" => self.reach(x + width, y),
            "middle" => self.reach(x + width / 2.0, y),
            _ => self.reach(x, y),
        }
    }

    /// A rank.
    pub fn node(&mut self, (x, y): Point, kind: Kind, label: &str) {
        let (fill, ink) = match kind {
            Kind::Inner => (INNER, "#ffffff"),
            Kind::Leaf => (LEAF, INK),
        };
        self.put(format_args!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="{RADIUS}" fill="{fill}" stroke="{INNER}" stroke-width="1.5"/>"#
        ));
        let size = if label.len() > 3 { 9.0 } else { 12.0 };
        self.text(x, y + size * 0.36, size, ink, "middle", label);
        self.reach(x + RADIUS, y + RADIUS);
    }

    pub fn square(&mut self, x: f64, y: f64, side: f64, kind: Kind) {
        let fill = if kind == Kind::Inner { INNER } else { LEAF };
        self.put(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{side}" height="{side}" rx="3" fill="{fill}" stroke="{INNER}"/>"#
        ));
        self.reach(x + side, y + side);
    }

    /// A box around things that belong together; drawn before them.
    pub fn frame(&mut self, (x, y): Point, (width, height): Point) {
        self.put(format_args!(
            r##"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="8" fill="{GROUND}" stroke="{MUTED}" stroke-opacity="0.6"/>"##
        ));
        self.reach(x + width, y + height);
    }

    /// An arrow from node to node, moved `aside` to its left so that two directions lie side by side.
    pub fn arrow(&mut self, from: Point, to: Point, aside: f64, colour: &str, dashed: bool) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        if length < 2.0 * RADIUS + 4.0 {
            return;
        }
        let (ux, uy) = (dx / length, dy / length);
        let (ox, oy) = (uy * aside, -ux * aside);
        let (start, end) = (RADIUS + 1.0, length - RADIUS - 2.0);
        let head = 6.0;
        let at = |along: f64, across: f64| {
            (
                from.0 + ux * along + ox + uy * across,
                from.1 + uy * along + oy - ux * across,
            )
        };
        let (a, b) = (at(start, 0.0), at(end - head, 0.0));
        self.line(a, b, colour, 1.4, 1.0, dashed);
        let (tip, left, right) = (at(end, 0.0), at(end - head, 3.0), at(end - head, -3.0));
        self.put(format_args!(
            r#"<polygon points="{:.1},{:.1} {:.1},{:.1} {:.1},{:.1}" fill="{colour}"/>"#,
            tip.0, tip.1, left.0, left.1, right.0, right.1
        ));
    }

    pub fn line(&mut self, a: Point, b: Point, colour: &str, width: f64, opacity: f64, dashed: bool) {
        let dashes = if dashed { r#" stroke-dasharray="4 3""# } else { "" };
        self.put(format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}" stroke-width="{width}" stroke-opacity="{opacity}"{dashes}/>"#,
            a.0, a.1, b.0, b.1
        ));
        self.reach(a.0.max(b.0), a.1.max(b.1));
    }

    /// A sample arrow and what it means; returns where the next one starts.
    pub fn legend_arrow(&mut self, x: f64, y: f64, colour: &str, dashed: bool, text: &str) -> f64 {
        self.arrow((x - RADIUS, y), (x + 26.0 + RADIUS, y), 0.0, colour, dashed);
        self.legend_text(x + 34.0, y, text)
    }

    /// A sample node and what it means; returns where the next one starts.
    pub fn legend_node(&mut self, x: f64, y: f64, kind: Kind, text: &str) -> f64 {
        self.square(x, y - 7.0, 14.0, kind);
        self.legend_text(x + 20.0, y, text)
    }

    fn legend_text(&mut self, x: f64, y: f64, text: &str) -> f64 {
        self.text(x, y + 4.5, 13.0, INK, "start", text);
        x + text.chars().count() as f64 * 7.2 + 26.0
    }

    pub fn finish(self) -> String {
        let (width, height) = (self.width.ceil(), self.height.ceil());
        format!(
            concat!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" "#,
                r#"font-family="DejaVu Sans, Verdana, sans-serif">"#,
                "\n<rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
            ),
            w = width,
            h = height,
            body = self.body
        )
    }
}
