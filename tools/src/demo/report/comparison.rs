//! How long steps took with backup workers and without, one above the other on the same axis, as SVG.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::demo::findings::Milliseconds;
use crate::report::chart::{BLUE, GRID, INK, MUTED, ROSE, in_page, label, rounded};

const SIZE: (u32, u32) = (960, 330);
const BARS: usize = 72;

/// One run's step times.
pub struct Times<'a> {
    /// What it is called.
    pub name: &'a str,
    /// In milliseconds.
    pub times: &'a [f64],
    /// Of these.
    pub quantiles: Milliseconds,
}

/// Both runs' step times, on the same scale. The last bar also holds what is beyond the axis.
pub fn draw(with: &Times<'_>, without: &Times<'_>) -> String {
    let mut svg = String::new();
    let drawn = draw_into(&mut svg, with, without);
    format!(
        "<div class=\"scroll\"><div class=\"compared\">{}</div></div>",
        in_page(drawn.map(|()| svg))
    )
}

fn draw_into(
    svg: &mut String,
    with: &Times<'_>,
    without: &Times<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let longest = with
        .times
        .iter()
        .chain(without.times)
        .copied()
        .fold(0.0, f64::max);
    let end = (with.quantiles.p99.max(without.quantiles.p99) * 1.15)
        .min(longest * 1.02)
        .max(1e-3);
    let (upper, lower) = area.split_vertically(SIZE.1 as i32 / 2 - 16);
    for (part, run, color, axis) in [(&upper, with, BLUE, false), (&lower, without, ROSE, true)] {
        let mut counts = [0usize; BARS];
        for time in run.times {
            counts[((time / end * BARS as f64) as usize).min(BARS - 1)] += 1;
        }
        let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
        let mut chart = ChartBuilder::on(part)
            .margin_top(6)
            .margin_right(14)
            .x_label_area_size(if axis { 46 } else { 14 })
            .y_label_area_size(74)
            .build_cartesian_2d(0.0..end, 0.0..most * 1.25)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(MUTED)
            .x_labels(if axis { 10 } else { 0 })
            .y_labels(4)
            .x_label_formatter(&|value| rounded(*value))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .y_desc("steps")
            .label_style(label(&MUTED))
            .axis_desc_style(label(&MUTED));
        if axis {
            mesh.x_desc("milliseconds");
        }
        mesh.draw()?;
        let width = end / BARS as f64;
        let bars = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        chart.draw_series(bars.map(|(bar, &count)| {
            let left = bar as f64 * width;
            Rectangle::new(
                [(left + width * 0.08, 0.0), (left + width * 0.92, count as f64)],
                color.filled(),
            )
        }))?;
        let median = run.quantiles.p50;
        chart.draw_series([PathElement::new(
            [(median, 0.0), (median, most * 1.2)],
            INK.stroke_width(1),
        )])?;
        let left = median > end * 0.5;
        let (anchor, shift) = if left { (HPos::Right, -6) } else { (HPos::Left, 6) };
        let style = label(&INK).pos(Pos::new(anchor, VPos::Top));
        let text = format!(
            "{}: p50 {} ms, p99 {} ms",
            run.name,
            rounded(median),
            rounded(run.quantiles.p99)
        );
        chart.draw_series([EmptyElement::at((median, most * 1.2)) + Text::new(text, (shift, 0), style)])?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runs_are_named_and_nothing_is_too_little() {
        for times in [&[][..], &[1.0], &[1.0, 2.0, 30.0]] {
            let quantiles = Milliseconds { p50: 1.0, p99: 2.0 };
            let run = |name| Times {
                name,
                times,
                quantiles,
            };
            let svg = draw(&run("with"), &run("without"));
            assert!(
                svg.contains("<svg ") && svg.contains("without: p50 1 ms, p99 2 ms"),
                "{svg}"
            );
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
