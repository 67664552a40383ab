//! Charts as SVG, drawn by `plotters` in one style. Knows numbers and colours, nothing of what they are about.

use std::error::Error;
use std::fmt::Display;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// Pixels before the page scales them: small, so that text stays legible on a telephone.
const SIZE: (u32, u32) = (480, 280);
pub const INK: RGBColor = RGBColor(0x1f, 0x29, 0x33);
pub const MUTED: RGBColor = RGBColor(0x61, 0x6e, 0x7c);
pub const GRID: RGBColor = RGBColor(0xe4, 0xe7, 0xeb);
pub const BLUE: RGBColor = RGBColor(0x3b, 0x6e, 0xa5);
pub const GREEN: RGBColor = RGBColor(0x2f, 0x7d, 0x4f);
pub const ROSE: RGBColor = RGBColor(0xc4, 0x45, 0x36);
/// `plotters` divides a font's size by 1.24 on its way to SVG.
const LABEL: i32 = 16;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// What stands along the axes.
pub struct Axes<'a> {
    pub x: Range<f64>,
    pub y: Range<f64>,
    pub x_name: &'a str,
    pub y_name: &'a str,
    pub x_label: &'a dyn Fn(f64) -> String,
    pub y_label: &'a dyn Fn(f64) -> String,
}

/// Text in a chart.
pub fn label(color: &RGBColor) -> TextStyle<'static> {
    ("sans-serif", LABEL).into_font().color(color)
}

/// Draws axes and what `content` adds: an SVG document with a white ground.
pub fn document(
    axes: &Axes<'_>,
    content: impl FnOnce(&mut Chart<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    let area: Area<'_> = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin_top(8)
        .margin_left(4)
        .margin_right(14)
        .x_label_area_size(46)
        .y_label_area_size(74)
        .build_cartesian_2d(axes.x.clone(), axes.y.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(MUTED)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|&value| (axes.x_label)(value))
        .y_label_formatter(&|&value| (axes.y_label)(value))
        .x_desc(axes.x_name)
        .y_desc(axes.y_name)
        .label_style(label(&MUTED))
        .axis_desc_style(label(&MUTED))
        .draw()?;
    content(&mut chart)?;
    drop(chart);
    area.present()?;
    drop(area);
    Ok(svg)
}

/// The same as part of a page.
pub fn draw(axes: &Axes<'_>, content: impl FnOnce(&mut Chart<'_>) -> Result<(), Box<dyn Error>>) -> String {
    in_page(document(axes, content))
}

/// A drawing as part of a page. Drawing into a string does not fail; if it did, the sentence would stand there.
pub fn in_page(drawing: Result<String, Box<dyn Error>>) -> String {
    match drawing {
        Ok(svg) => super::inline(&svg),
        Err(error) => format!(
            "<p>This chart could not be drawn: {}</p>",
            super::escape(&error.to_string())
        ),
    }
}

/// A label of whole numbers only.
pub fn whole(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        String::new()
    }
}

/// Three significant digits, without zeros at the end.
pub fn rounded(value: f64) -> String {
    fn trimmed(number: impl Display) -> String {
        let text = number.to_string();
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    }
    let magnitude = value.abs();
    match magnitude {
        _ if magnitude < 1e-12 => "0".to_owned(),
        _ if magnitude >= 100.0 => format!("{value:.0}"),
        _ if magnitude >= 10.0 => trimmed(format!("{value:.1}")),
        _ if magnitude >= 1.0 => trimmed(format!("{value:.2}")),
        _ => trimmed(format!(
            "{value:.*}",
            (2 - magnitude.log10().floor() as i32).clamp(2, 12) as usize
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        let shown = [0.0, 1234.5, 12.34, 1.5, 0.12345, 0.001, 100.0].map(rounded);
        assert_eq!(shown, ["0", "1234", "12.3", "1.5", "0.123", "0.001", "100"]);
    }
}
